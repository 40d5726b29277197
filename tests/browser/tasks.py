"""Tasks to look at: a made video whose truth is pushed as its prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import to_prediction, tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import build_task_data, local_files_url
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.synthetic.scene import Scene, SceneConfig, make_scene
from svac_backend.synthetic.video import write_mp4

CONFIGS = Path(__file__).resolve().parents[2] / "labelstudio_config"
WIDTH, HEIGHT, FRAMES, FPS = 640, 360, 12, 12.0
VERSION = "truth-1"


@dataclass(frozen=True)
class PrelabelledTask:
    """A task in Label Studio with a prediction.

    Attributes:
        project, task: their ids.
        frames: u8 [T, H, W, 3] RGB, as the editor gets them (after JPEG).
        masks: bool [T, H, W], what the prediction shows.
        results: the prediction's regions, as they were sent.
    """

    project: int
    task: int
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    results: list[dict[str, Any]]


def scene() -> Scene:
    """Return the clip of these tests: three objects, one of them a ring that the others pass over."""
    return make_scene(10_001, SceneConfig(WIDTH, HEIGHT, FRAMES, min_objects=3, max_objects=3, fps=FPS))


def api(label_studio: Any) -> httpx.Client:
    """Return a client of Label Studio's API, without any of our own code in between."""
    headers = {"Authorization": f"Token {label_studio.token}"}
    return httpx.Client(base_url=label_studio.url, headers=headers, timeout=60)


def prelabelled_task(label_studio: Any, kind: str) -> PrelabelledTask:
    """Make a project with `<kind>_frames.xml` and one task whose object is the scene's first.

    Args:
        label_studio: the running server.
        kind: `brush` or `polygon`.
    """
    clip = scene()
    folder = Path(label_studio.files_root) / f"browser-{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:05d}.jpg" for index in range(FRAMES)]
    for path, frame in zip(paths, clip.frames, strict=True):
        Image.fromarray(frame).save(path, quality=90)
    write_mp4(clip.frames, folder / "clip.mp4", FPS)
    xml = (CONFIGS / f"{kind}_frames.xml").read_text()
    config = parse_config(xml)
    control = config.mask_control()
    track = Track("obj1", next(iter(control.labels)), "the ring")
    for index in range(FRAMES):
        track.masks[index] = to_coco(clip.masks[0, index])
        track.scores[index] = 0.9
    results = tracks_to_results([track], control, Canvas(WIDTH, HEIGHT))
    validate_results(results, config, frame_count=FRAMES)

    root = Path(label_studio.files_root)
    data = build_task_data(
        local_files_url(folder / "clip.mp4", root),
        [local_files_url(path, root) for path in paths],
        FPS,
        "the ring",
    )
    storage = {"path": str(folder), "use_blob_urls": True, "title": "frames", "regex_filter": "nomatch"}
    with api(label_studio) as client:
        project = client.post("/api/projects/", json={"title": f"browser {kind}", "label_config": xml})
        project_id = project.raise_for_status().json()["id"]
        client.post("/api/storages/localfiles", json={"project": project_id, **storage}).raise_for_status()
        task = client.post("/api/tasks/", json={"project": project_id, "data": data})
        task_id = task.raise_for_status().json()["id"]
        prediction = {"task": task_id, **to_prediction(results, VERSION)}
        client.post("/api/predictions/", json=prediction).raise_for_status()
        # The editor starts from the prediction of the project's own version.
        client.patch(f"/api/projects/{project_id}/", json={"model_version": VERSION}).raise_for_status()
    frames = np.stack([np.asarray(Image.open(path)) for path in paths])
    return PrelabelledTask(project_id, task_id, frames, clip.masks[0], results)
