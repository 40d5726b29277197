"""Predictions are made once, and can be looked at meanwhile; only the model is a stand-in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from svac_backend.jobs import prelabel
from svac_backend.jobs.engine import JobEngine, JobState
from svac_backend.jobs.payloads import FramesPayload, PrelabelPayload
from svac_backend.jobs.worker import create_worker
from svac_backend.masks.rle import decode_brush
from svac_backend.masks.tracks import FrameMasks, ObjectPrompt
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.objects import SentStore
from svac_backend.store.predictions import PartStore
from svac_backend.svac.files.weights import model_version
from svac_backend.video.source import VideoSource
from tests.jobs.conftest import CONFIG, FRAMES, HEIGHT, WIDTH
from tests.labelstudio.api.test_places import HEAD, dripping

VIDEO = "/data/local-files/?d=clip.mp4"


def payload(task: str, **data: Any) -> PrelabelPayload:
    return PrelabelPayload(
        project_id="38",
        task_id=task,
        task_data={"video": VIDEO, **data},
        prompts=(ObjectPrompt("obj1", "dog", "the dog"),),
        label_config=CONFIG,
        hostname="",
        video_url=VIDEO,
        push=True,
    )


@pytest.fixture
def connected(settings: Settings, label_studio: Any) -> Settings:
    return settings.model_copy(
        update={"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    )


@pytest.fixture
def two_workers(connected: Settings, database: Database, model: Any) -> Iterator[JobEngine]:
    workers = [create_worker(connected, database, load=lambda _: model)[0] for _ in range(2)]
    for worker in workers:
        worker.start()
    yield JobEngine(database)
    for worker in workers:
        worker.stop()


def submit(engine: JobEngine, settings: Settings, wanted: PrelabelPayload) -> str:
    return engine.submit("prelabel", wanted.to_json(), wanted.job_key(model_version(settings.model))).id


def test_windows_of_one_video_are_computed_once_and_each_is_pushed(
    two_workers: JobEngine, connected: Settings, label_studio: Any, model: Any
) -> None:
    at_work = threading.Event()

    def slowly(index: int) -> None:
        at_work.set()
        time.sleep(0.1)

    model.on_frame = slowly
    windows = [
        payload("7", svac_window={"start": 0, "count": 6}),
        payload("8", svac_window={"start": 6, "count": 6}),
    ]
    ids = [submit(two_workers, connected, window) for window in windows]
    assert at_work.wait(20)
    for id_ in ids:
        job = two_workers.wait(id_, timeout=60)
        assert job.state is JobState.DONE, job.error
    assert len(model.calls) == 1
    pushed = {
        one["task"]: [region["item_index"] for region in one["result"]] for one in label_studio.predictions
    }
    assert pushed == {7: [1, 3, 5], 8: [1, 3, 5]}
    assert {region["id"] for one in label_studio.predictions for region in one["result"]} == {
        f"obj1-f{frame:05d}" for frame in (1, 3, 5, 7, 9, 11)
    }


def test_each_thing_of_a_sentence_has_an_id_of_its_own_in_what_is_pushed(
    two_workers: JobEngine,
    connected: Settings,
    label_studio: Any,
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def two(video: VideoSource, expressions: list[str], **_: Any) -> Iterator[FrameMasks]:
        assert expressions == ["the dogs"]
        for frame in range(len(video)):
            mask = np.zeros((1, HEIGHT, WIDTH), np.bool_)
            mask[0, 8:20, 4:16] = mask[0, 8:20, 40:52] = True
            yield FrameMasks(frame, mask, np.array([0.75], np.float32))

    monkeypatch.setattr(model, "segment", two)
    wanted = replace(payload("7"), prompts=(ObjectPrompt("obj1", "dog", "each: the dogs"),))
    job = two_workers.wait(submit(two_workers, connected, wanted), timeout=60)
    assert job.state is JobState.DONE, job.error
    (pushed,) = label_studio.predictions
    assert [region["id"] for region in pushed["result"]] == [
        f"obj1.{number}-f{frame:05d}" for frame in range(FRAMES) for number in (1, 2)
    ]
    for region in pushed["result"]:
        number = int(region["id"][5])
        assert region["value"]["brushlabels"] == ["dog"]
        assert region["meta"] == {"text": [f"dog {number}"]}
        columns = np.flatnonzero(decode_brush(region["value"]["rle"], HEIGHT, WIDTH).any(0))
        assert (columns[0], columns[-1]) == ((4, 15), (40, 51))[number - 1]


def test_a_job_that_waits_for_one_that_fails_does_the_work_itself(
    two_workers: JobEngine, connected: Settings, model: Any
) -> None:
    at_work = threading.Event()

    def fail_once(index: int) -> None:
        at_work.set()
        time.sleep(0.5)
        if len(model.calls) == 1:
            raise RuntimeError("the first one fails")
        model.on_frame = lambda _: None

    model.on_frame = fail_once
    first = submit(two_workers, connected, payload("7"))
    assert at_work.wait(20)
    second = submit(two_workers, connected, payload("8"))
    assert two_workers.wait(first, timeout=60).state is JobState.FAILED
    assert two_workers.wait(second, timeout=60).state is JobState.DONE
    assert len(model.calls) == 2


def test_tracks_can_be_looked_at_while_they_are_made(
    two_workers: JobEngine,
    connected: Settings,
    database: Database,
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prelabel, "PART_INTERVAL_S", 0.0)
    parts, wanted = PartStore(database), payload("7")
    key = wanted.cache_key(model_version(connected.model))
    seen: list[list[int]] = []

    def look(index: int) -> None:
        part = parts.get(key)
        seen.append([] if part is None else sorted(part.tracks[0].scores))
        time.sleep(0.05)  # longer than storing takes: a part is stored in a share of the time only

    model.on_frame = look
    job = two_workers.wait(submit(two_workers, connected, wanted), timeout=60)
    assert job.state is JobState.DONE, job.error
    assert seen[0] == []
    assert seen[-1][:3] == [0, 1, 2]
    assert max(map(len, seen)) < 12
    assert parts.get(key) is None


def test_a_part_is_gone_when_the_job_fails(
    two_workers: JobEngine,
    connected: Settings,
    database: Database,
    files_root: Path,
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prelabel, "PART_INTERVAL_S", 0.0)
    parts, wanted = PartStore(database), payload("7")
    key = wanted.cache_key(model_version(connected.model))
    there: list[bool] = []

    def break_off(index: int) -> None:
        there.append(parts.get(key) is not None)
        if index == 6:
            raise RuntimeError("breaks off")

    model.on_frame = break_off
    job = two_workers.wait(submit(two_workers, connected, wanted), timeout=60)
    assert job.state is JobState.FAILED
    assert any(there)
    assert parts.get(key) is None


def test_a_prediction_takes_the_place_of_the_one_that_was_sent_before(
    two_workers: JobEngine, connected: Settings, database: Database, label_studio: Any
) -> None:
    first, second = payload("7"), replace(payload("7"), prompts=(ObjectPrompt("obj1", "cat", "the cat"),))
    for wanted in (first, second):
        job = two_workers.wait(submit(two_workers, connected, wanted), timeout=60)
        assert job.state is JobState.DONE, job.error
    (sent,) = label_studio.predictions
    assert {region["value"]["brushlabels"][0] for region in sent["result"]} == {"cat"}
    (old,) = SentStore(database).replaced("38", "7")
    assert (old.prediction, {region["value"]["brushlabels"][0] for region in old.regions}) == (1, {"dog"})


@pytest.mark.parametrize("kind", ["prelabel", "frames"])
def test_a_job_whose_video_drips_can_be_cancelled(
    connected: Settings, database: Database, model: Any, label_studio: Any, kind: str
) -> None:
    """The lane stood still, and cancelling had no effect. How soon it ends is measured with the download itself."""
    settings = connected.model_copy(update={"media_hosts": "127.0.0.1", "media_url": "http://127.0.0.1:9090"})
    worker = create_worker(settings, database, load=lambda _: model)[0]
    worker.start()
    engine = JobEngine(database)
    try:
        with dripping(HEAD, b"x", 0.5) as url:
            video = f"{url}/v.mp4"
            label_studio.tasks[7] = {"video": video}
            wanted = replace(payload("7"), task_data={"video": video}, video_url=video)
            if kind == "frames":
                frames = FramesPayload(
                    **{one.name: getattr(wanted, one.name) for one in fields(FramesPayload)}
                )
                job_id = engine.submit("frames", frames.to_json(), frames.job_key()).id
            else:
                job_id = submit(engine, settings, wanted)
            deadline = time.monotonic() + 20
            while engine.get(job_id).message != "Fetching the video" and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.5)
            engine.cancel(job_id)
            done = engine.wait(job_id, timeout=15)
            assert done.state is JobState.CANCELLED, done.error
    finally:
        worker.stop()
