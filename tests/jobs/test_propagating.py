"""Text, clicks, boxes and corrections through the worker, with the embedded model, on a square that moves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pydantic import SecretStr

from svac_backend.jobs.engine import Job, JobEngine, JobState
from svac_backend.jobs.payloads import PrelabelPayload, PropagatePayload
from svac_backend.jobs.propagate import scaled
from svac_backend.jobs.worker import create_worker
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.regions.read import results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import CocoRle, ObjectPrompt, Track
from svac_backend.pipeline import load_model
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.objects import SentStore
from svac_backend.store.predictions import PartStore, PredictionStore
from svac_backend.svac.files.weights import model_version
from svac_backend.svac.model import Svac
from svac_backend.video.source import VideoInfo
from tests.jobs.conftest import CONFIG

WIDTH, HEIGHT, FRAMES = 128, 96, 10
VIDEO = "/data/local-files/?d=square.mp4"
RED = ObjectPrompt("obj1", "dog", "the red square")


def place(frame: int) -> tuple[int, int]:
    """Left and top edge of the square, which is 36 pixels wide."""
    return 10 + 5 * frame, 20 + 2 * frame


def truth(frame: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    left, top = place(frame)
    mask[top : top + 36, left : left + 36] = True
    return mask


def overlap(rle: CocoRle | None, frame: int) -> float:
    if rle is None:
        return 0.0
    mask = from_coco(rle)
    return float((mask & truth(frame)).sum() / (mask | truth(frame)).sum())


@pytest.fixture(scope="module")
def model() -> Svac:
    return load_model(Settings(_env_file=None, model="svac-tiny", device="cpu", threads=1))


@pytest.fixture
def files_root(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    with av.open(str(root / "square.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for frame in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), (120, 130, 140), np.uint8)
            picture[truth(frame)] = (220, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return root


@pytest.fixture
def settings(tmp_path: Path, files_root: Path, label_studio: Any) -> Settings:
    label_studio.tasks[7] = {"video": VIDEO}
    return Settings(
        _env_file=None,
        model="svac-tiny",
        data_dir=tmp_path / "data",
        label_studio_files_root=files_root,
        label_studio_url=label_studio.url,
        label_studio_api_key=SecretStr("ab" * 20),
    )


@pytest.fixture
def engine(settings: Settings, database: Database, model: Svac) -> Iterator[JobEngine]:
    worker, _ = create_worker(settings, database, load=lambda _: model)
    worker.start()
    yield JobEngine(database)
    worker.stop()


BASE: dict[str, Any] = {
    "project_id": "38",
    "task_id": "7",
    "task_data": {"video": VIDEO},
    "label_config": CONFIG,
    "hostname": "",
    "video_url": VIDEO,
}
NAME = ObjectPrompt("obj2", "cat", "")


def correction(prompts: dict[int, FrameHint], **changes: Any) -> PropagatePayload:
    payload = PropagatePayload(**BASE, objects=(NAME,), hints={"obj2": prompts}, size=(WIDTH, HEIGHT))
    return replace(payload, **changes)


def do(engine: JobEngine, payload: PropagatePayload | PrelabelPayload) -> Job:
    kind = "propagate" if isinstance(payload, PropagatePayload) else "prelabel"
    job = engine.wait(engine.submit(kind, payload.to_json(), payload.job_key(VERSION)).id, timeout=120)
    assert job.state is JobState.DONE, job.error
    return job


VERSION = model_version("svac-tiny")


def found(database: Database, payload: PropagatePayload | PrelabelPayload) -> Track:
    prediction = PredictionStore(database).get(payload.cache_key(VERSION))
    assert prediction is not None
    assert (prediction.width, prediction.height, prediction.frame_count) == (WIDTH, HEIGHT, FRAMES)
    (track,) = prediction.tracks
    return track


def middle(frame: int) -> Click:
    left, top = place(frame)
    return Click(left + 18.0, top + 18.0)


def test_an_expression(engine: JobEngine, database: Database) -> None:
    payload = PrelabelPayload(**BASE, prompts=(RED,), push=False)
    do(engine, payload)
    track = found(database, payload)
    assert np.mean([overlap(track.masks.get(frame), frame) for frame in range(FRAMES)]) > 0.6


def box_of(frame: int) -> tuple[float, float, float, float]:
    left, top = place(frame)
    return left - 1.0, top - 1.0, left + 37.0, top + 37.0


@pytest.mark.parametrize(
    "prompts",
    [
        {4: FrameHint(clicks=(middle(4), Click(2.0, 2.0, positive=False)))},
        {4: FrameHint(box=box_of(4))},
        {0: FrameHint(mask=to_coco(truth(0))), 9: FrameHint(mask=to_coco(truth(9)))},
    ],
    ids=["click", "box", "masks"],
)
def test_what_is_shown_on_a_frame_reaches_all(
    engine: JobEngine, database: Database, prompts: dict[int, FrameHint]
) -> None:
    payload = correction(prompts)
    job = do(engine, payload)
    assert job.message == f"1 object from what was shown on {len(prompts)} frame" + "s" * (len(prompts) > 1)
    track = found(database, payload)
    assert sorted(track.scores) == list(range(FRAMES))
    assert np.mean([overlap(track.masks.get(frame), frame) for frame in range(FRAMES)]) > 0.5
    for frame, prompt in prompts.items():
        if prompt.mask is not None:
            assert track.masks[frame] == prompt.mask
    assert PartStore(database).get(payload.cache_key(VERSION)) is None


def test_only_the_frames_of_a_window_are_predicted(engine: JobEngine, database: Database) -> None:
    payload = correction({4: FrameHint(mask=to_coco(truth(4)))}, frames=(3, 7))
    do(engine, payload)
    assert sorted(found(database, payload).scores) == [3, 4, 5, 6]


def test_clicks_on_smaller_frames_than_the_video_are_scaled() -> None:
    info = VideoInfo(128, 96, FRAMES, 10.0, 1.0, 0, False, "mpeg4")
    prompt = FrameHint(clicks=(Click(4.0, 5.0, positive=False),), box=(1.0, 2.0, 3.0, 4.0))
    assert scaled({"obj1": {4: prompt}}, (64, 32), info) == {
        "obj1": {
            4: FrameHint(clicks=(Click(8.0, 15.0, positive=False),), box=(2.0, 6.0, 6.0, 12.0)),
        }
    }
    assert scaled({"obj1": {4: prompt}}, (128, 96), info) == {"obj1": {4: prompt}}


def test_masks_on_smaller_frames_are_refused(engine: JobEngine) -> None:
    small = FrameHint(mask=to_coco(np.ones((HEIGHT // 2, WIDTH // 2), np.bool_)))
    payload = correction({4: small}, size=(WIDTH // 2, HEIGHT // 2))
    job = engine.wait(engine.submit("propagate", payload.to_json(), "k").id, timeout=60)
    assert (job.state, job.error) == (
        JobState.FAILED,
        "The editor's frames have 64x48 pixels, but the video 128x96.",
    )


def regions(object_id: str, masks: dict[int, np.ndarray], label: str) -> list[dict[str, Any]]:
    track = Track(object_id, label, "", {i: to_coco(mask) for i, mask in masks.items()}, {})
    control = cached_config(CONFIG).mask_control()
    return tracks_to_results([track], control, Canvas(WIDTH, HEIGHT))


def test_a_submitted_annotation_makes_a_prediction_with_its_corrections(
    engine: JobEngine, database: Database, label_studio: Any
) -> None:
    wrong = np.zeros((HEIGHT, WIDTH), np.bool_)
    wrong[80:95, 0:20] = True
    (other,) = regions("obj2", {3: truth(0)}, "cat")
    predicted = [*regions("obj1", dict.fromkeys(range(FRAMES), wrong), "dog"), other]
    label_studio.predictions.append({"id": 1, "task": 7, "result": predicted, "model_version": VERSION})
    (fixed,) = regions("obj1", {5: truth(5)}, "dog")
    text = {
        "id": "t",
        "from_name": "prompt",
        "to_name": "frames",
        "type": "textarea",
        "value": {"text": ["x"]},
    }
    result = [*predicted[:5], fixed, *predicted[6:], text]
    annotation = {"id": 3, "result": result, "parent_prediction": 1}
    body = json.dumps({"action": "ANNOTATION_CREATED", "annotation": annotation}).encode()
    event = EventStore(database).add("ANNOTATION_CREATED", "38", body)
    payload = PropagatePayload(**BASE, event=event)
    job = do(engine, payload)
    assert job.result is not None
    assert (job.result["corrected"], job.result["pushed"]) == (1, True)
    sent = label_studio.predictions[1]
    assert fixed in sent["result"]
    assert other in sent["result"]
    assert all(region["type"] == "brushlabels" for region in sent["result"])
    assert predicted[0] not in sent["result"]
    track, _ = results_to_tracks(sent["result"], cached_config(CONFIG), Canvas(WIDTH, HEIGHT))
    assert overlap(track.masks.get(4), 4) > 0.4
    # Submitted once more as it was predicted now, the correction still counts.
    assert set(SentStore(database).find("38", "7")["obj1"].hints) == {5}

    untouched = {"id": 4, "result": predicted, "parent_prediction": 1}
    event = EventStore(database).add(
        "ANNOTATION_CREATED", "38", json.dumps({"annotation": untouched}).encode()
    )
    job = do(engine, PropagatePayload(**BASE, event=event))
    assert job.message == "Nothing to propagate: no correction shows an object"
    assert len(label_studio.predictions) == 2

    skipped = {"id": 5, "result": result, "parent_prediction": 1, "was_cancelled": True}
    event = EventStore(database).add("ANNOTATION_CREATED", "38", json.dumps({"annotation": skipped}).encode())
    assert "Nothing to propagate" in do(engine, PropagatePayload(**BASE, event=event)).message
    assert len(label_studio.predictions) == 2

    unsized = [{k: v for k, v in one.items() if not k.startswith("original_")} for one in result]
    label_studio.predictions[:] = []
    event = EventStore(database).add(
        "ANNOTATION_CREATED", "38", json.dumps({"annotation": {"id": 6, "result": unsized}}).encode()
    )
    job = engine.wait(
        engine.submit("propagate", PropagatePayload(**BASE, event=event).to_json(), "u").id,
        timeout=60,
    )
    assert job.state is JobState.FAILED
    assert "how large the frames are" in str(job.error)


def test_an_event_that_is_not_there_fails_with_a_reason(engine: JobEngine) -> None:
    payload = PropagatePayload(**BASE, event=77)
    job = engine.wait(engine.submit("propagate", payload.to_json(), "k").id, timeout=60)
    assert job.state is JobState.FAILED
    assert job.error == "The webhook of this job is not in the database."
