"""A small clip, a folder that stands in for a model's weights, and a stand-in for the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from svac_backend.masks.tracks import FrameMasks
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.video.reader import VideoSource

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
    """

    device = "stand-in"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.on_frame: Callable[[int], None] = lambda index: None

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
                if i % 2:
                    for n, mask in enumerate(masks):
                        mask[8:20, 8 + 16 * n : 20 + 16 * n] = True
                yield FrameMasks(i, masks, np.full(len(expressions), 0.75 if i % 2 else 0.0, np.float32))


@pytest.fixture
def model() -> SquareModel:
    return SquareModel()


@pytest.fixture
def files_root(tmp_path: Path) -> Path:
    """Label Studio's local files, with `clip.mp4`: 12 frames of 64x48 at 10 frames/s."""
    root = tmp_path / "files"
    root.mkdir()
    with av.open(str(root / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
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
    database = Database(settings.data_dir)
    yield database
    database.close()
