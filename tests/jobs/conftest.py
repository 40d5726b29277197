"""A small clip, a folder that stands in for a model's weights, and a stand-in for the model itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import from_coco
from svac_backend.masks.tracks import FrameMasks
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.video.source import VideoSource

WIDTH, HEIGHT, FRAMES, FPS = 64, 48, 12, 10

CONFIG = """<View>
  <TextArea name="prompt" toName="frames" smart="true"/>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="dog"/><Label value="cat"/></BrushLabels>
  <Video name="video" value="$video" framerate="$fps"/>
</View>"""


class SquareModel:
    """Stands in for `Svac`: expression number n is found as a square at column 8 + 16 n, on the odd frames.

    Attributes:
        calls: the expressions of each call.
        on_frame: called before each frame, so that a test can do something while the model is at work.
        finds: whether it finds anything.
    """

    device = "stand-in"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.on_frame: Callable[[int], None] = lambda index: None
        self.finds = True

    def segment(
        self,
        video: VideoSource,
        expressions: Sequence[str],
        *,
        progress: Callable[[float, str], None] | None = None,
    ) -> Iterator[FrameMasks]:
        self.calls.append(list(expressions))
        for start, frames in video.windows(4):
            for i, frame in enumerate(frames, start):
                self.on_frame(i)
                if progress:
                    progress(i / len(video), f"frame {i}")
                masks = np.zeros((len(expressions), *frame.shape[:2]), dtype=np.bool_)
                if i % 2 and self.finds:
                    for n, mask in enumerate(masks):
                        mask[8:20, 8 + 16 * n : 20 + 16 * n] = True
                yield FrameMasks(i, masks, np.full(len(expressions), 0.75 if i % 2 else 0.0, np.float32))

    def propagate(
        self,
        video: VideoSource,
        prompts: Sequence[Mapping[int, FrameHint]],
        *,
        frames: range | None = None,
        window: int = 16,
        progress: Callable[[float, str], None] | None = None,
    ) -> Iterator[tuple[int, int, NDArray[np.bool_], float]]:
        """What was shown on the first frame of each object is on all of them; the rest as it was shown."""
        for number, shown in enumerate(prompts):
            masks = [from_coco(shown[i].mask) for i in sorted(shown) if shown[i].mask is not None]  # type: ignore[arg-type]
            for i in frames or range(len(video)):
                self.on_frame(i)
                yield number, i, masks[0], 0.875


class SmallLabelStudio(ThreadingHTTPServer):
    """The few API routes that jobs use, with their real shapes; a real Label Studio takes a minute to start.

    Attributes:
        tasks: id -> data; predictions, storages: as they were posted.
        drafts: of all tasks, as they are listed.
        shown: which model version project 38 shows; its connected model is called `SVAC`.
        tokens: the Authorization header of each call.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Routes)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.tasks: dict[int, dict[str, Any]] = {}
        self.predictions: list[dict[str, Any]] = []
        self.storages: list[dict[str, Any]] = []
        self.drafts: list[dict[str, Any]] = []
        self.shown = ""
        self.tokens: list[str | None] = []


class _Routes(BaseHTTPRequestHandler):
    server: SmallLabelStudio

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        first_page = query.get("page", ["1"]) == ["1"]  # the SDK asks on until a page is empty
        if url.path == "/api/predictions/":
            task = int(query["task"][0])
            self._answer([p for p in self.server.predictions if p["task"] == task])
        elif url.path == "/api/storages/localfiles/":
            self._answer(self.server.storages)
        elif url.path.rstrip("/") == "/api/tasks":
            wanted = json.loads(query["query"][0])["selectedItems"]["included"]
            found = self.server.tasks.items() if first_page else ()
            tasks = [{"id": task, "data": data} for task, data in found if task in wanted]
            page = {"tasks": tasks, "total": len(tasks), "total_annotations": 0, "total_predictions": 0}
            status = 200 if query["project"] == ["38"] else 404
            self._answer(page if status == 200 else {"detail": "No Project matches the given query."}, status)
        elif url.path.rstrip("/") == "/api/projects/38":
            self._answer({"id": 38, "model_version": self.server.shown})
        elif url.path.rstrip("/") == "/api/ml":
            self._answer([{"id": 1, "title": "SVAC", "state": "CO", "url": "http://127.0.0.1:9090"}])
        elif url.path.rstrip("/") == "/api/projects":
            self._answer({"count": 1, "results": [{"id": 38}] if first_page else []})
        elif url.path.endswith("/drafts"):
            self._answer(self.server.drafts)
        elif url.path.startswith("/api/tasks/"):
            task = int(url.path.split("/")[3])
            if task in self.server.tasks:
                self._answer({"id": task, "data": self.server.tasks[task]})
            else:
                self._answer({"detail": "No Task matches the given query."}, 404)
        else:
            self._answer({"detail": "Not found."}, 404)

    def do_POST(self) -> None:
        items = self.server.predictions if "predictions" in self.path else self.server.storages
        items.append({"id": len(items) + 1, **self._body()})
        self._answer(items[-1], 201)

    def do_DELETE(self) -> None:
        prediction = int(self.path.split("/")[3])
        kept = [one for one in self.server.predictions if one["id"] != prediction]
        status = 204 if len(kept) < len(self.server.predictions) else 404
        self.server.predictions[:] = kept
        self._answer({}, status)

    def do_PATCH(self) -> None:
        if "predictions" in self.path:
            number = int(self.path.split("/")[3])
            one = next(one for one in self.server.predictions if one["id"] == number)
            one.update(self._body())
            self._answer(one)
            return
        if "projects" in self.path:
            self.server.shown = self._body()["model_version"]
            self._answer({"id": 38, "model_version": self.server.shown})
            return
        task = int(self.path.split("/")[3])
        self.server.tasks[task] = self._body()["data"]
        self._answer({"id": task, "data": self.server.tasks[task]})

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: Any, status: int = 200) -> None:
        self.server.tokens.append(self.headers.get("Authorization"))
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        pass


def serve() -> Iterator[SmallLabelStudio]:
    """Yield a server that listens, and end it."""
    server = SmallLabelStudio()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def label_studio() -> Iterator[SmallLabelStudio]:
    yield from serve()


@pytest.fixture
def model() -> SquareModel:
    return SquareModel()


def write_clip(path: Path) -> None:
    """Write 12 frames of 64x48 at 10 frames/s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def files_root(tmp_path: Path) -> Path:
    """Label Studio's local files, with `clip.mp4`."""
    root = tmp_path / "files"
    root.mkdir()
    write_clip(root / "clip.mp4")
    return root


@pytest.fixture
def settings(tmp_path: Path, files_root: Path) -> Settings:
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "config.json").write_text(json.dumps({"preset": "standin"}))
    (weights / "model.safetensors").write_bytes(b"no weights, but they have a hash")
    return Settings(
        _env_file=None,
        model=str(weights),
        data_dir=tmp_path / "data",
        label_studio_files_root=files_root,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database.from_settings(settings)
    yield database
    database.close()
