"""The backend as it is deployed, a web process and a worker with the embedded model, and clips for its tasks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.labelstudio.tasks import build_task_data, local_files_url
from svac_backend.quickstart.processes import LOCAL, Process, choose_port, wait_until_up
from svac_backend.synthetic.scene import Scene, SceneConfig, make_scene
from svac_backend.synthetic.video import write_mp4
from tests.browser.tasks import CONFIGS, api

FPS = 12.0
FIRST_PORT = 19_190
COMMAND = Path(sys.executable).with_name("svac-backend")


@contextmanager
def running_backend(
    label_studio: LabelStudioServer,
    folder: Path,
    logs: Path,
    *,
    commands: Sequence[str] = ("serve", "worker"),
) -> Iterator[str]:
    """Run `svac-backend serve` and `svac-backend worker`, and yield the address of the web process.

    Args:
        label_studio: the running server.
        folder: takes the data.
        logs: folder that takes the logs, `serve.log` and `worker.log`.
        commands: what runs.
    """
    port = choose_port(FIRST_PORT, taken=[label_studio.port])
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SVAC_")},
        "SVAC_DATA_DIR": str(folder / "data"),
        "SVAC_HOST": LOCAL,
        "SVAC_PORT": str(port),
        "SVAC_THREADS": "1",
        "SVAC_LABEL_STUDIO_URL": label_studio.url,
        "SVAC_LABEL_STUDIO_API_KEY": label_studio.token,
        "SVAC_LABEL_STUDIO_FILES_ROOT": str(label_studio.files_root),
        # The machine may do other work, too; what is tested is the loop and not its speed.
        "SVAC_PREDICT_WAIT_S": "80",
    }
    url = f"http://{LOCAL}:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for command in commands:
            log = logs / f"{command}.log"
            process = Process(command, [str(COMMAND), command], log, env, folder)
            stack.callback(process.stop)
            if command == "serve":
                wait_until_up(f"{url}/health", process, timeout=60)
            else:  # without a worker that lives, nobody waits for masks
                wait_until_up(f"{url}/ready", process, timeout=120)
        yield url


@dataclass(frozen=True)
class Clip:
    """A made clip whose frames and video lie where Label Studio may serve them.

    Attributes:
        scene: what is seen, with the truth.
        folder: folder with `clip.mp4` and the frames.
        root: folder that Label Studio serves.
    """

    scene: Scene
    folder: Path
    root: Path

    @property
    def prompts(self) -> list[str]:
        """A sentence that names the colour, one for each object; empty where colours do not tell them apart."""
        found = {e.targets[0]: e.text for e in self.scene.expressions if e.kind == "color"}
        return [found.get(index, "") for index in range(len(self.scene.objects))]

    @cached_property
    def paths(self) -> list[Path]:
        """The frames' files."""
        return sorted(self.folder.glob("*.jpg"))

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Return a frame as the editor gets it, u8 [H, W, 3]."""
        return np.asarray(Image.open(self.paths[index]))

    def truth(self, target: int) -> NDArray[np.bool_]:
        """Return the masks of an object, bool [T, H, W]."""
        return self.scene.masks[target]


def make_clip(label_studio: LabelStudioServer, name: str, seed: int, config: SceneConfig) -> Clip:
    """Render a scene and write its frames and its video."""
    scene = make_scene(seed, config)
    folder = label_studio.files_root / name
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(scene.frames):
        Image.fromarray(frame).save(folder / f"{index:05d}.jpg", quality=90)
    write_mp4(scene.frames, folder / "clip.mp4", config.fps)
    return Clip(scene, folder, label_studio.files_root)


@dataclass(frozen=True)
class ConnectedProject:
    """A project whose ML backend is ours, for interactive calls too.

    Attributes:
        project: its id.
        kind: `brush` or `polygon`.
    """

    label_studio: LabelStudioServer
    project: int
    kind: str

    def add_task(self, clip: Clip, prompt: str | None = None) -> int:
        """Make a task of a clip, without any prediction; return its id."""
        client = self.label_studio.client()
        client.allow_local_files(self.project, str(clip.folder))
        frames = [local_files_url(path, clip.root) for path in clip.paths]
        data = build_task_data(local_files_url(clip.folder / "clip.mp4", clip.root), frames, FPS, prompt)
        return client.create_task(self.project, data)


def connected_project(
    label_studio: LabelStudioServer, backend_url: str, kind: str, *, prelabelled: bool = False
) -> ConnectedProject:
    """Make a project with `<kind>_frames.xml` and connect the backend.

    Args:
        label_studio: the running server.
        backend_url: address of the web process.
        kind: `brush` or `polygon`.
        prelabelled: whether annotators begin with a prediction. Otherwise opening a task asks for none, and they begin
            with nothing; a task without prompt would be pre-labelled by the names of its labels.
    """
    xml = (CONFIGS / f"{kind}_frames.xml").read_text()
    parse_config(xml).mask_control(kind)
    client = label_studio.client()
    project = client.create_project(f"correcting {kind}", xml)
    client.connect_ml_backend(project, backend_url, interactive=True)
    if prelabelled:
        return ConnectedProject(label_studio, project, kind)
    with api(label_studio) as http:
        settings = {"show_collab_predictions": False, "evaluate_predictions_automatically": False}
        http.patch(f"/api/projects/{project}/", json=settings).raise_for_status()
    return ConnectedProject(label_studio, project, kind)
