"""Heartbeats: which workers live, and which jobs they keep."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from svac_backend.store.database import Database
from svac_backend.store.jobs import MODEL_LANE, JobStore, WorkerStore


def test_workers_come_and_go(tmp_path: Path) -> None:
    database = Database(tmp_path)
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


def test_a_beat_renews_the_named_jobs_of_that_worker_only(tmp_path: Path) -> None:
    database = Database(tmp_path)
    jobs, workers = JobStore(database), WorkerStore(database)
    ids = {}
    for key, worker in (("mine", "w"), ("lost track of", "w"), ("other", "x")):
        ids[key] = jobs.submit("prelabel", {}, key).id
        jobs.claim(MODEL_LANE, worker)
    with database.write() as session:
        session.execute(text("UPDATE jobs SET heartbeat = heartbeat - 100"))
    workers.beat("w", [ids["mine"], ids["other"]])
    again = {job.id for job in jobs.recover(lease_s=30, max_attempts=3)}
    assert again == {ids["lost track of"], ids["other"]}
