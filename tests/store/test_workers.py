"""Heartbeats: which workers live, and which jobs they keep."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest
from sqlalchemy import text

from svac_backend.store.database import Database
from svac_backend.store.jobs import JobStore
from svac_backend.store.lanes import MODEL_LANE
from svac_backend.store.workers import Watch, WorkerStore
from tests.databases import OpenDatabase


def test_workers_come_and_go(open_database: OpenDatabase, tmp_path: Path) -> None:
    database = open_database(tmp_path)
    workers = WorkerStore(database)
    workers.beat("one")
    workers.beat("two")
    workers.beat("one", device="cpu", model_version="svac-1")
    assert [(w.id, w.device, w.model_version) for w in workers.alive(30)] == [
        ("one", "cpu", "svac-1"),
        ("two", "", ""),
    ]
    workers.leave("two")
    with database.write() as session:
        session.execute(text("UPDATE workers SET heartbeat = heartbeat - 100"))
    assert workers.alive(30) == []
    workers.forget(30)
    assert workers.alive(1000) == []


def test_a_beat_renews_the_named_jobs_of_that_worker_only(
    open_database: OpenDatabase, tmp_path: Path
) -> None:
    database = open_database(tmp_path)
    jobs, workers = JobStore(database), WorkerStore(database)
    ids = {}
    for key, worker in (("mine", "w"), ("lost track of", "w"), ("other", "x")):
        ids[key] = jobs.submit("prelabel", {}, key).id
        jobs.claim(MODEL_LANE, worker)
    jobs.recover(1e9, max_attempts=3)
    later = time.monotonic() + 100
    jobs._watch.clock = lambda: later
    workers.beat("w", [ids["mine"], ids["other"]])
    jobs.recover(1e9, max_attempts=3)
    again = {job.id for job in jobs.recover(lease_s=30, max_attempts=3)}
    assert again == {ids["lost track of"], ids["other"]}


def test_an_observer_that_was_frozen_takes_nobody_for_dead() -> None:
    watch = Watch()
    now = watch.clock()
    watch.clock = lambda: now
    assert watch.silent_s({"w": 1}, 30) == {"w": 0}
    now += 600
    assert watch.silent_s({"w": 1}, 30) == {"w": 15}
    now += 5
    assert watch.silent_s({"w": 2}, 30) == {"w": 0}
    for _ in range(4):
        now += 10
        found = watch.silent_s({"w": 2}, 30)
    assert found == {"w": 40}


HOLDER = """
import sys, time
from pathlib import Path
from svac_backend.store.database import Database
from svac_backend.store.workers import WorkerStore
workers = WorkerStore(Database(Path(sys.argv[1]), sys.argv[2]))
workers.hold("other:7:abc")
workers.beat("other:7:abc")
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("jump", [-7200, 0, 7200])
def test_the_death_of_a_worker_is_seen_at_once_and_a_jump_of_the_clock_is_none(
    open_database: OpenDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    workers = WorkerStore(open_database(tmp_path))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), open_database.url(tmp_path)], stdout=PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    now = time.time() + jump
    monkeypatch.setattr(Database, "time", lambda _: now)
    assert [one.id for one in workers.alive(30)] == ["other:7:abc"]
    assert not workers.died("other:7:abc")
    holder.kill()
    holder.wait()
    assert workers.died("other:7:abc")
    workers.beat("other:7:abc")  # whatever was on its way
    other = WorkerStore(open_database(tmp_path))
    assert other.alive(30) == []
    assert other.died("other:7:abc")  # also who asks again, about another job of it
    other.forget(30)
    assert list((tmp_path / "workers").iterdir()) == []
    monkeypatch.undo()


def test_a_worker_that_leaves_takes_its_lock_along(open_database: OpenDatabase, tmp_path: Path) -> None:
    workers = WorkerStore(open_database(tmp_path))
    workers.hold("a/b:1:c")
    assert [path.name for path in (tmp_path / "workers").iterdir()] == ["a%2Fb%3A1%3Ac.lock"]
    assert not WorkerStore(open_database(tmp_path)).died("a/b:1:c")
    workers.leave("a/b:1:c")
    assert list((tmp_path / "workers").iterdir()) == []
