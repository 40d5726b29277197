"""What is old goes, what persons made stays, and nothing that is still to be used is lost."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from svac_backend.jobs.engine import JobContext, JobState
from svac_backend.jobs.retention import RetainHandler, measure
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore, Inbox
from svac_backend.store.jobs import JobStore
from svac_backend.store.lanes import MODEL_LANE
from svac_backend.store.predictions import Prediction, PredictionStore
from svac_backend.store.versions import Version, VersionState, VersionStore
from tests.databases import OpenDatabase

DAY_S = 86_400.0


@pytest.fixture
def database(open_database: OpenDatabase, settings: Settings) -> Database:
    return open_database(settings.data_dir)


def retain(settings: Settings, database: Database) -> dict[str, Any]:
    class Context:
        def progress(self, fraction: float, message: str) -> None:
            pass

    context: JobContext = Context()  # type: ignore[assignment]
    return RetainHandler(settings, database)(context)


def age(database: Database, table: str, column: str, days: float, where: str = "1 = 1") -> None:
    with database.write() as session:
        session.execute(
            text(f"UPDATE {table} SET {column} = :then WHERE {where}"), {"then": time.time() - days * DAY_S}
        )


def ids(database: Database, table: str, column: str = "id") -> list[Any]:
    with database.read() as session:
        return list(session.scalars(text(f"SELECT {column} FROM {table} ORDER BY {column}")))


def test_ended_jobs_go_with_the_configs_that_nothing_names_any_more(
    settings: Settings, database: Database
) -> None:
    jobs = JobStore(database)
    for key, config in (("done", "<View/>"), ("new", "<View>new</View>"), ("waits", "<View>waits</View>")):
        jobs.submit("prelabel", {"label_config": config}, key, 0 if key == "waits" else 1)
        if key != "waits":
            job = jobs.claim(MODEL_LANE, "w")
            assert job is not None
            jobs.finish(job, JobState.DONE)
    age(database, "jobs", "finished", 31, "key = 'done'")
    age(database, "jobs", "created", 400)
    assert retain(settings, database)["jobs"] == 1
    assert ids(database, "jobs", "key") == ["new", "waits"]
    assert len(ids(database, "configs", "sha256")) == 2
    kept = settings.model_copy(update={"keep_jobs_days": 0.0})
    age(database, "jobs", "finished", 4000, "key = 'new'")
    assert retain(kept, database)["jobs"] == 0


def test_webhooks_go_only_once_they_were_made_use_of_and_numbers_are_never_given_twice(
    settings: Settings, database: Database
) -> None:
    events, inbox = EventStore(database), Inbox(database)
    numbers = [events.add("ANNOTATION_CREATED", "38", b"{}") for _ in range(6)]
    age(database, "events", "received", 400)
    assert retain(settings, database)["webhooks"] == 0  # none was looked at
    inbox.advance(numbers[3])
    inbox.put_off(numbers[1], "error", "hint")
    assert retain(settings, database)["webhooks"] == 3
    assert ids(database, "events") == [numbers[1], numbers[4], numbers[5]]
    inbox.advance(numbers[5])
    inbox.settle(numbers[1])
    retain(settings, database)
    assert ids(database, "events") == [numbers[5]]
    assert events.add("ANNOTATION_CREATED", "38", b"{}") == numbers[5] + 1
    # A job that waits may name any webhook since it was submitted.
    inbox.advance(numbers[5] + 1)
    JobStore(database).submit("propagate", {"event": numbers[5]}, "k")
    age(database, "jobs", "created", 500)
    age(database, "events", "received", 400)
    assert retain(settings, database)["webhooks"] == 0


def prediction(key: str, task: str) -> Prediction:
    return Prediction(key, "svac-1", "38", task, [Track("obj1", "dog", "the dog")], 64, 48, 10.0, 12, 0.5)


def test_predictions_of_deleted_tasks_and_old_regions_go_and_what_persons_made_stays(
    settings: Settings, database: Database
) -> None:
    store = PredictionStore(database)
    for key, task in (("a", "7"), ("b", "8")):
        store.put(prediction(key, task))
        store.put_rendering(key, "config", [])
    about = Annotation("38", "3", 1, "7", AnnotationState.USED)
    CorrectionStore(database).put(
        about, [Correction(about, Track("obj1", "dog", "d"), frozenset({1}), frozenset())]
    )
    for table, column in (("annotations", "saved"), ("predictions", "created")):
        age(database, table, column, 4000)
    body = json.dumps({"tasks": [{"id": 7}]}).encode()
    EventStore(database).add("TASKS_DELETED", "38", body)
    assert retain(settings, database)["predictions"] == 0  # it may have been a slip
    age(database, "events", "received", 8)
    assert retain(settings, database)["predictions"] == 1
    assert (ids(database, "predictions", "key"), ids(database, "renderings", "prediction_key")) == (
        ["b"],
        ["b"],
    )
    age(database, "renderings", "created", 31)
    assert retain(settings, database)["renderings"] == 1
    assert (ids(database, "predictions", "key"), ids(database, "renderings", "prediction_key")) == (["b"], [])
    assert len(CorrectionStore(database).all()) == 1


def test_versions_that_never_served_go_with_their_runs(settings: Settings, database: Database) -> None:
    store = VersionStore(database)
    for name, parent, job in (
        ("served", "", "j1"),
        ("kept", "served", "j2"),
        ("child", "mother", "j3"),
        ("mother", "", "j4"),
    ):
        store.register(
            Version(name, "svac-1", "0" * 64, 1, parent=parent, state=VersionState.KEPT, job_id=job)
        )
        (settings.data_dir / "versions" / name).mkdir(parents=True)
    store.promote("served")
    store.promote("child")
    for job in ("j1", "j2", "gone"):
        folder = settings.data_dir / "training" / job
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    assert retain(settings, database)["versions"] == 0
    age(database, "versions", "created", 91)
    found = retain(settings, database)
    assert (found["versions"], found["runs"]) == (1, 1)
    assert ids(database, "versions") == ["child", "mother", "served"]
    assert sorted(path.name for path in (settings.data_dir / "versions").iterdir()) == [
        "child",
        "mother",
        "served",
    ]
    assert [path.name for path in (settings.data_dir / "training").iterdir()] == ["j1"]


def download(folder: Path, name: str, days: float) -> None:
    folder.mkdir(exist_ok=True)
    for path, content in ((folder / name, b"x" * 1000), (folder / f"{name}.json", b"{}")):
        path.write_bytes(content)
        os.utime(path, (time.time() - days * DAY_S,) * 2)


def test_downloads_used_least_recently_go_first(settings: Settings, database: Database) -> None:
    folder = settings.data_dir / "media"
    for name, days in (("old", 9.0), ("older", 20.0), ("new", 2.0), ("in use", 0.1), ("partial-x", 3.0)):
        download(folder, name, days)
    limited = settings.model_copy(update={"keep_media_gb": 2500 / 1e9})
    assert retain(limited, database)["downloads"] == 3
    assert sorted(path.name for path in folder.iterdir()) == ["in use", "in use.json", "new", "new.json"]
    none = settings.model_copy(update={"keep_media_gb": 1e-9})
    assert retain(none, database)["downloads"] == 1
    assert (folder / "in use").is_file()


@pytest.mark.parametrize("kind", ["webhooks", "downloads", "database"])
def test_what_takes_the_room_is_told(settings: Settings, database: Database, kind: str) -> None:
    if kind == "database":
        kind = "database file" if database.size() is None else "database on its server"
    EventStore(database).add("A", "38", os.urandom(5000))
    download(settings.data_dir / "media", "a", 1)
    count, size = measure(settings, database)[kind]
    assert count >= 1
    assert size >= 1000
