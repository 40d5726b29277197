"""A data folder as it is after a while: a generated clip's masks, a correction, a training, two versions."""

from __future__ import annotations

import json
import time
from pathlib import Path

from svac_backend.jobs.engine import Job, JobState
from svac_backend.jobs.frames import OwnMedia
from svac_backend.jobs.services import Services
from svac_backend.learning.freeze import OUT
from svac_backend.learning.triggers import FINETUNE
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.storage.folder import Kind
from svac_backend.storage.published import open_storage
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.lanes import TRAINING_LANE
from svac_backend.store.links import MediaLinks
from svac_backend.store.predictions import Prediction
from svac_backend.store.tasks import PredictedTask
from svac_backend.store.versions import Version, VersionState
from svac_backend.synthetic.scene import DEMO_SEEDS, Scene, SceneConfig, make_scene
from svac_backend.video.frames import write_frames
from svac_backend.video.reader import ArrayVideo
from tests.learning.adapter_folders import adapter_folder

KEY, PROJECT, TASK, ANNOTATION = "k" * 64, "38", "7", "11"
SHAPE = SceneConfig(320, 180, 24, min_objects=2, max_objects=2, fps=12.0, noise=2.0, blur=0.0)
# The frames on which the model is unsure, and on which a person drew.
UNSURE, DRAWN = range(15, 19), frozenset({15, 16})


def add_task(backend: Services) -> Scene:
    """Add a task with frames, a prediction that is wrong on some frames, and its correction."""
    scene = make_scene(DEMO_SEEDS.start + 102, SHAPE)
    folder = OwnMedia(MediaLinks.from_settings(backend.settings), open_storage(backend.settings)).folder(
        PROJECT, int(TASK)
    )
    write_frames(ArrayVideo(scene.frames, 12.0), folder, quality=90)
    tracks = []
    for number, masks in enumerate(scene.masks[:2]):
        track = Track(f"obj{number + 1}", "object", f"the object number {number + 1}")
        for index, mask in enumerate(masks):
            wrong = number == 0 and index in UNSURE
            shown = mask.copy()
            if wrong:  # half of it is missing
                shown[:, : int(mask.any(axis=0).nonzero()[0].mean())] = False
            if shown.any():
                track.masks[index] = to_coco(shown)
            track.scores[index] = 0.2 if wrong else 0.9
        tracks.append(track)
    version = backend.model_version
    backend.predictions.put(
        Prediction(KEY, version, PROJECT, TASK, tracks, 320, 180, 12.0, len(scene.frames), 0.8)
    )
    backend.tasks.put([PredictedTask(PROJECT, TASK, KEY, version, 0.45)])
    about = Annotation(
        PROJECT,
        ANNOTATION,
        1,
        TASK,
        AnnotationState.USED,
        width=320,
        height=180,
        who="Ada",
        saved=time.time() - 300,
        model_version=version,
    )
    right = Track("obj1", "object", "the object number 1")
    right.masks = {index: to_coco(scene.masks[0][index]) for index in sorted(DRAWN)}
    CorrectionStore(backend.database).put(about, [Correction(about, right, DRAWN, frozenset({0, 1}))])
    return scene


def add_training(backend: Services, *, steps: int = 40, of: int = 180) -> Job:
    """Add a training that runs, with curves."""
    job = backend.engine.submit(FINETUNE, {"why": "test", "project_id": PROJECT}, "finetune:1")
    claimed = backend.jobs.claim(TRAINING_LANE, "stand-in")
    assert claimed is not None
    assert claimed.id == job.id
    backend.jobs.report(claimed, 0.3, f"step {steps} of {of}")
    write_run(backend, job.id, steps=steps, of=of)
    return claimed


def write_run(backend: Services, job_id: str, *, steps: int, of: int, report: str = "") -> Path:
    """Write the curves, and the report, of a training."""
    out = backend.settings.data_dir / Kind.RUNS.value / job_id / OUT
    out.mkdir(parents=True)
    lines = [
        {"step": step, "of": of, "seconds": 3.0 * step, "loss": 2.0 / step, "iou": 1 - 0.5 / step}
        for step in range(4, steps + 1, 4)
    ]
    (out / "curves.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if report:
        (out / "report.html").write_text(report)
    return out


def add_version(backend: Services, folder: Path, name: str, *, good: bool, job_id: str = "") -> Version:
    """Add a version that the gate let pass, or not; it has a file, as the registry wants it."""
    source = folder / name
    adapter_folder(source, name.encode())
    serving = backend.registry.serving()
    figures = {
        "held_out_before": 61.0,
        "held_out_after": 66.5 if good else 60.2,
        "regression_before": 54.9,
        "regression_after": 54.1 if good else 49.0,
    }
    told = "from 61.0 to 66.5." if good else "from 61.0 to 60.2; a gain of at least 1 points is asked for."
    reason = f"{'Promoted' if good else 'Not promoted'}. J&F on held-out corrections went {told}"
    made = backend.registry.publish(
        source,
        base=backend.registry.base,
        parent=serving.id if serving else "",
        promote=good,
        reason=reason,
        figures=figures,
        data={"corrections": 12, "videos": 9},
        job_id=job_id,
    )
    assert made.state is (VersionState.PROMOTED if good else VersionState.KEPT)
    return made


def end(backend: Services, job: Job) -> None:
    """End a training."""
    backend.jobs.finish(job, JobState.DONE, message="A new version.", result={"promoted": True})
