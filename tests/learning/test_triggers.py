"""Requests for fine-tuning coalesce: one runs, at most one waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from svac_backend.learning.triggers import Trigger
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.settings import Settings
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.jobs import Job, JobState, JobStore
from svac_backend.store.lanes import TRAINING_LANE
from svac_backend.store.versions import Training, TrainingStore
from svac_backend.svac.files.weights import version_of


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


def make(database: Database, every: int = 0) -> Trigger:
    settings = Settings(_env_file=None, model="svac-tiny", finetune_every=every)
    store = JobStore(database)
    return Trigger(settings, database, store.submit_many)


def begin(trigger: Trigger, job: Job, event: int) -> Job:
    """What the worker does first: claim it, and freeze what is corrected by then."""
    claimed = trigger.jobs.claim(TRAINING_LANE, "w")
    assert claimed is not None
    assert claimed.id == job.id
    trigger.trainings.begin(Training(job.id, version_of(trigger.settings), "", event, 1))
    return claimed


def annotate(database: Database) -> int:
    return EventStore(database).add("ANNOTATION_UPDATED", "38", b"{}")


def test_requests_before_a_run_begins_are_one(database: Database) -> None:
    trigger = make(database)
    first = trigger.request("pressed", "38")
    assert first.is_new
    assert first.message == "Fine-tuning starts. It learns from the corrections of all projects."
    assert first.job.payload == {"why": "pressed", "project_id": "38"}
    again = trigger.request("pressed", "39")
    assert (again.is_new, again.job.id) == (False, first.job.id)
    trigger.jobs.claim(TRAINING_LANE, "w")  # claimed, and has not looked at the corrections yet
    annotate(database)
    assert trigger.request("pressed").job.id == first.job.id


def test_during_a_run_only_new_corrections_make_one_more_wait(database: Database) -> None:
    trigger = make(database)
    running = begin(trigger, trigger.request("pressed").job, annotate(database))
    assert trigger.request("pressed").job.id == running.id
    EventStore(database).add("TASKS_CREATED", "38", b"{}")  # no correction
    assert trigger.request("pressed").job.id == running.id

    annotate(database)
    next_one = trigger.request("pressed")
    assert (next_one.is_new, next_one.message) == (True, "Fine-tuning follows the one that runs.")
    assert next_one.job.key != running.key
    annotate(database)
    assert trigger.request("pressed").job.id == next_one.job.id
    assert len(trigger.jobs.find(kind="finetune")) == 2

    # The next one runs, the keys take turns.
    trigger.jobs.finish(running, JobState.DONE)
    begin(trigger, next_one.job, annotate(database))
    annotate(database)
    third = trigger.request("pressed")
    assert (third.is_new, third.job.key) == (True, running.key)


def test_two_that_run_are_enough(database: Database) -> None:
    """With several workers one of two trains, the other waits for the device."""
    trigger = make(database)
    first = begin(trigger, trigger.request("a").job, annotate(database))
    annotate(database)
    second = begin(trigger, trigger.request("b").job, annotate(database))
    annotate(database)
    asked = trigger.request("c")
    assert not asked.is_new
    assert asked.job.id in (first.id, second.id)


def correct(database: Database, task: int, event: int) -> None:
    about = Annotation("38", str(task), event, str(task), AnnotationState.USED)
    track = Track("obj1", "dog", "the dog", {2: CocoRle(size=[4, 5], counts="04d0")})
    CorrectionStore(database).put(about, [Correction(about, track, frozenset({2}), frozenset())])


def test_after_so_many_corrected_tasks(database: Database) -> None:
    trigger, off = make(database, every=2), make(database)
    correct(database, 1, event=1)
    correct(database, 1, event=2)  # the same task once more
    assert not trigger.due()
    correct(database, 2, event=3)
    assert trigger.due()
    assert not off.due()
    job = trigger.request("2 tasks were corrected").job
    assert not trigger.due()  # it is on its way
    running = begin(trigger, job, event=3)
    trigger.jobs.finish(running, JobState.FAILED, error="x", hint="y")
    assert not trigger.due()  # also one that failed has seen these: it is not tried for ever
    assert TrainingStore(database).last_event(version_of(trigger.settings)) == 3
    correct(database, 3, event=4)
    correct(database, 4, event=5)
    assert trigger.due()
