"""All tasks of a project: each is predicted once, few wait at a time, and what is given up is given up whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from lab.drill.label_studio import StandIn
from lab.drill.stage import CONFIG, clip, task
from pydantic import SecretStr

from svac_backend.jobs.bulk import bulk_work
from svac_backend.jobs.engine import BULK, Job, JobEngine, JobState
from svac_backend.jobs.worker import create_worker
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from tests.jobs.conftest import SquareModel


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """Label Studio with one project of eight tasks; the third lacks a prompt, the fifth has a prediction."""
    here = StandIn(clip(), CONFIG)
    for _ in range(8):
        number = here.add_task({})
        here.tasks[number].update(task(number, **({"prompt": ""} if number == 3 else {}))["data"])
    here.store(5, {"result": []})
    yield here
    here.leave()


@pytest.fixture
def engine(settings: Settings, database: Database, model: Any, stand_in: StandIn) -> Iterator[JobEngine]:
    changes = {"label_studio_url": stand_in.url, "label_studio_api_key": SecretStr("ab" * 20)}
    worker, _ = create_worker(settings.model_copy(update=changes), database, load=lambda _: model)
    worker.start()
    yield JobEngine(database)
    worker.stop()


def entered(engine: JobEngine, *states: JobState) -> list[Job]:
    return engine.find(states=states, kind="prelabel")


def test_each_task_without_a_prediction_gets_one_and_few_wait(
    engine: JobEngine, model: SquareModel, stand_in: StandIn
) -> None:
    waited: list[int] = []
    model.on_frame = lambda _: waited.append(len(entered(engine, JobState.QUEUED, JobState.RUNNING)))
    (job,) = engine.submit_many([bulk_work("1", ahead=2)])
    done = engine.wait(job.id, 60)
    assert (done.state, done.message) == (JobState.DONE, "7 of 8 tasks have a prediction, 1 failed"), (
        done.error
    )
    assert done.result == {"tasks": 8, "had": 1, "predicted": 6, "failed": 1}
    assert max(waited) == 2
    assert {one.priority for one in entered(engine, JobState.DONE)} == {BULK}
    assert stand_in.counts() == {number: 1 for number in range(1, 9) if number != 3}
    (refused,) = entered(engine, JobState.FAILED)
    assert "prompt" in (refused.error or "")

    stand_in.tasks[3]["prompt"] = "the red square"
    (again,) = engine.submit_many([bulk_work("1")])
    done = engine.wait(again.id, 60)
    assert done.result == {"tasks": 8, "had": 7, "predicted": 1, "failed": 0}
    assert set(stand_in.counts().values()) == {1}


def test_who_cancels_it_cancels_what_it_entered(
    engine: JobEngine, model: SquareModel, stand_in: StandIn
) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        at_work.set()
        go_on.wait(20)

    model.on_frame = hold
    (job,) = engine.submit_many([bulk_work("1", ahead=4)])
    assert engine.submit_many([bulk_work("1")])[0].id == job.id
    assert at_work.wait(20)
    while len(entered(engine, JobState.QUEUED, JobState.RUNNING)) < 4:
        time.sleep(0.05)
    engine.cancel(job.id)
    assert engine.wait(job.id, 20).state is JobState.CANCELLED
    go_on.set()
    states = {one.state for one in (engine.wait(one.id, 20) for one in entered(engine))}
    assert states == {JobState.CANCELLED, JobState.FAILED}  # the one without a prompt
    assert set(stand_in.counts()) == {5}
