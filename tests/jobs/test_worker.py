"""The worker's handlers on a real clip, queue and database; only the model is a stand-in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import Job, JobEngine, JobState
from svac_backend.jobs.payloads import FramesPayload, PrelabelPayload
from svac_backend.jobs.rendering import config_key
from svac_backend.jobs.worker import ModelOwner, create_worker
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.written import validate_results
from svac_backend.masks.tracks import ObjectPrompt
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.predictions import PredictionStore
from svac_backend.svac.files.weights import model_version

CONFIG = """<View>
  <TextArea name="prompt" toName="frames" smart="true"/>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="dog"/><Label value="cat"/></BrushLabels>
  <Video name="video" value="$video" framerate="$fps"/>
</View>"""
VIDEO = "/data/local-files/?d=clip.mp4"

PRELABEL = PrelabelPayload(
    project_id="38",
    task_id="7",
    task_data={"video": VIDEO},
    prompts=(ObjectPrompt("obj1", "dog", "the dog"), ObjectPrompt("obj2", "cat", "the cat")),
    label_config=CONFIG,
    hostname="",
    video_url=VIDEO,
    push=True,
)
FRAMES = FramesPayload("38", "7", {"video": VIDEO}, CONFIG, "", VIDEO)

Do = Callable[..., Job]


@pytest.fixture
def connected(settings: Settings, label_studio: Any) -> Settings:
    label_studio.tasks[7] = {"video": VIDEO, "prompt": "the dog", "other": 1}
    return settings.model_copy(
        update={"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    )


@pytest.fixture
def engine(connected: Settings, database: Database, model: Any) -> Iterator[JobEngine]:
    """The engine of a worker that runs on threads of this process."""
    worker, _ = create_worker(connected, database, load=lambda _: model)
    worker.start()
    yield JobEngine(database)
    worker.stop()


@pytest.fixture
def do(engine: JobEngine, connected: Settings) -> Do:
    """Submit a payload and wait for its job's end."""

    def submit(payload: PrelabelPayload | FramesPayload) -> Job:
        if isinstance(payload, PrelabelPayload):
            version = model_version(connected.model)
            job = engine.submit("prelabel", payload.to_json(), payload.job_key(version))
        else:
            job = engine.submit("frames", payload.to_json(), payload.job_key())
        return engine.wait(job.id, timeout=30)

    return submit


def test_prelabel_segments_keeps_and_pushes(
    do: Do, connected: Settings, database: Database, label_studio: Any, model: Any
) -> None:
    job = do(PRELABEL)
    assert job.state is JobState.DONE, job.error
    assert job.message == "Masks on 6 of 12 frames"
    assert job.result is not None
    assert (job.result["frames"], job.result["frames_with_masks"]) == (12, 6)
    assert job.result["pushed"] is True
    assert model.calls == [["the dog", "the cat"]]

    version = model_version(connected.model)
    (sent,) = label_studio.predictions
    assert (sent["task"], sent["model_version"], sent["score"]) == (7, version, 0.4375)
    # 0.875 of the stand-in, halved where its masks come and go; see task_score.
    validate_results(sent["result"], parse_config(CONFIG), frame_count=12)
    assert {region["id"] for region in sent["result"]} == {
        f"obj{n}-f{frame:05d}" for n in (1, 2) for frame in (1, 3, 5, 7, 9, 11)
    }

    store = PredictionStore(database)
    kept = store.get(PRELABEL.cache_key(version))
    assert kept is not None
    assert (kept.width, kept.height, kept.frame_count, kept.fps) == (64, 48, 12, 10.0)
    assert sorted(kept.tracks[0].masks) == [1, 3, 5, 7, 9, 11]
    assert len(kept.tracks[0].scores) == 12
    text = store.rendering(kept.key, config_key(CONFIG, connected))
    assert json.loads(text or b"") == sent["result"]


def test_the_same_again_neither_segments_nor_pushes_again(do: Do, label_studio: Any, model: Any) -> None:
    do(PRELABEL)
    again = do(PRELABEL)
    assert again.state is JobState.DONE
    assert again.message == "Masks on 6 of 12 frames, from the cache"
    assert again.result is not None
    assert (again.result["cached"], again.result["pushed"]) == (True, False)
    assert len(model.calls) == 1
    assert len(label_studio.predictions) == 1


def test_an_interactive_job_does_not_push(do: Do, label_studio: Any) -> None:
    job = do(replace(PRELABEL, push=False))
    assert job.state is JobState.DONE
    assert job.result is not None
    assert "pushed" not in job.result
    assert label_studio.predictions == []


def test_finding_nothing_is_said(do: Do, label_studio: Any, model: Any) -> None:
    model.finds = False
    job = do(PRELABEL)
    assert job.state is JobState.DONE
    assert job.message == "Nothing was found on any of the 12 frames"
    # Sent all the same: Label Studio would ask again each time the task is opened.
    assert (label_studio.predictions[0]["result"], label_studio.predictions[0]["score"]) == ([], 0.0)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"video_url": "/data/local-files/?d=missing.mp4"}, "missing.mp4"),
        ({"video_url": "/data/local-files/?d=text.mp4"}, "text.mp4"),
        ({"video_url": "ftp://host/v.mp4"}, "ftp"),
        ({"prompts": (ObjectPrompt("obj1", "bird", "the bird"),)}, "'bird'"),
        ({"task_id": "seven"}, "'seven'"),
    ],
)
def test_bad_input_fails_the_job_with_a_reason(
    do: Do, files_root: Path, change: dict[str, Any], error: str, label_studio: Any
) -> None:
    (files_root / "text.mp4").write_text("no video at all")
    job = do(replace(PRELABEL, **change))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert error in job.error + (job.hint or "")
    assert "unexpectedly" not in job.error
    assert label_studio.predictions == []


def test_a_push_waits_for_a_label_studio_that_is_down_and_the_work_is_kept(
    settings: Settings, database: Database, model: Any
) -> None:
    down = settings.model_copy(
        update={"label_studio_url": "http://127.0.0.1:9", "label_studio_api_key": SecretStr("ab" * 20)}
    )
    worker, _ = create_worker(down, database, load=lambda _: model)
    engine = JobEngine(database)
    worker.start()
    job = engine.wait(engine.submit("prelabel", PRELABEL.to_json(), "k").id, timeout=30)
    worker.stop()
    assert (job.state, job.message, job.tries) == (JobState.QUEUED, "Waiting to retry", 1)
    assert job.error is not None
    assert "127.0.0.1:9" in job.error
    assert PredictionStore(database).summary(PRELABEL.cache_key(model_version(settings.model))) == (0.75, 12)


def test_cancel_stops_the_model(engine: JobEngine, model: Any, label_studio: Any) -> None:
    at_work = threading.Event()
    last: list[int] = []

    def slowly(index: int) -> None:
        last.append(index)
        at_work.set()
        time.sleep(0.3)  # longer than the interval of reports, so that each frame reports

    model.on_frame = slowly
    job = engine.submit("prelabel", PRELABEL.to_json(), "k")
    assert at_work.wait(timeout=20)
    engine.cancel(job.id)
    done = engine.wait(job.id, timeout=20)
    assert done.state is JobState.CANCELLED
    assert max(last) < 11
    assert label_studio.predictions == []


def test_a_model_that_is_not_there_fails_the_jobs_not_the_worker(
    settings: Settings, database: Database
) -> None:
    def missing(_: Settings) -> Any:
        raise SvacError("There is no model at 'x'.", "Set SVAC_MODEL.")

    worker, owner = create_worker(settings, database, load=missing)
    engine = JobEngine(database)
    worker.start()
    job = engine.wait(engine.submit("prelabel", PRELABEL.to_json(), "k").id, timeout=30)
    worker.stop()
    assert (job.state, job.error, job.hint) == (
        JobState.FAILED,
        "There is no model at 'x'.",
        "Set SVAC_MODEL.",
    )
    assert owner.describe() == ("", "")


def test_the_model_is_loaded_once_and_named(
    settings: Settings, database: Database, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loads: list[Settings] = []

    def load(given: Settings) -> Any:
        loads.append(given)
        return model

    owner = ModelOwner(settings, database, load)
    assert owner.describe() == ("", "")
    with caplog.at_level("INFO"):
        assert owner.get() is owner.get()
    assert loads == [settings]
    assert owner.describe() == ("stand-in", model_version(settings.model))
    assert "loaded on stand-in" in caplog.text


def test_frames_are_made_and_added_to_the_task(
    do: Do, connected: Settings, files_root: Path, label_studio: Any
) -> None:
    job = do(FRAMES)
    assert job.state is JobState.DONE, job.error
    assert job.message == "12 frames added to the task"
    data = label_studio.tasks[7]
    assert (data["video"], data["prompt"], data["other"], data["fps"]) == (VIDEO, "the dog", 1, 10.0)
    assert len(data["frames"]) == 12
    folder = files_root / "svac-frames" / "project-38"
    assert data["frames"][3] == "/data/local-files/?d=svac-frames/project-38/task-7/00003.jpg"
    assert (folder / "task-7" / "00003.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert [(s["project"], s["path"]) for s in label_studio.storages] == [(38, str(folder))]

    again = do(FRAMES)
    assert again.message == "The task has frames already"
    assert len(label_studio.storages) == 1


def test_frames_need_a_place(settings: Settings, database: Database) -> None:
    nowhere = settings.model_copy(update={"label_studio_files_root": None})
    worker, _ = create_worker(nowhere, database, load=lambda _: None)  # type: ignore[arg-type,return-value]
    engine = JobEngine(database)
    worker.start()
    job = engine.wait(engine.submit("frames", FRAMES.to_json(), "k").id, timeout=30)
    worker.stop()
    assert job.state is JobState.FAILED
    assert job.hint is not None
    assert "SVAC_LABEL_STUDIO_FILES_ROOT" in job.hint


def test_frames_of_a_config_without_frames_fail_with_its_reason(do: Do) -> None:
    job = do(replace(FRAMES, label_config='<View><Video name="video" value="$video"/></View>'))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "<Image valueList>" in job.error


def test_frames_of_a_task_that_is_gone_fail_with_a_reason(do: Do) -> None:
    job = do(replace(FRAMES, task_id="8"))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "task 8" in job.error


def test_a_task_with_other_frames_than_its_video_fails_before_the_work(
    do: Do, label_studio: Any, model: Any
) -> None:
    data = {"video": VIDEO, "frames": ["/0.jpg", "/1.jpg"]}
    job = do(PrelabelPayload(**{**PRELABEL.__dict__, "task_data": data}))
    assert job.state is JobState.FAILED
    assert job.error == "The task has 2 frames under 'frames', but its video has 12."
    assert model.calls == []
    assert label_studio.predictions == []
