"""The local engine: queue, priorities, waiting, recovery."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import text

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import BATCH, INTERACTIVE, JobState
from svac_backend.jobs.local import LIGHT_LANE, MODEL_LANE, LocalEngine
from svac_backend.settings import Settings
from svac_backend.store.database import Database


@pytest.fixture
def engine(settings: Settings, database: Database) -> LocalEngine:
    return LocalEngine(settings, database)


def drain(engine: LocalEngine, lane: str = MODEL_LANE) -> list[str]:
    """Take everything off a queue, as a consumer would; return the jobs' ids."""
    ids = []
    while (task := engine.lanes[lane].dequeue()) is not None:
        ids.append(task.args[0])
    return ids


def test_the_queue_carries_the_id_of_each_new_job(engine: LocalEngine) -> None:
    job = engine.submit("prelabel", {"large": "x" * 10_000}, "k")
    assert engine.submit("prelabel", {}, "k").id == job.id
    assert engine.get(job.id).payload == {"large": "x" * 10_000}
    assert drain(engine) == [job.id]


def test_the_queue_file_holds_no_pickle(engine: LocalEngine) -> None:
    job = engine.submit("prelabel", {}, "k")
    (data,) = engine.lanes[MODEL_LANE].storage.enqueued_items()
    assert bytes(data).startswith(b"[")
    assert job.id.encode() in bytes(data)


def test_interactive_jobs_go_first(engine: LocalEngine) -> None:
    batch = [engine.submit("prelabel", {}, f"batch {n}", priority=BATCH).id for n in range(2)]
    urgent = engine.submit("prelabel", {}, "urgent", priority=INTERACTIVE).id
    assert drain(engine) == [urgent, *batch]


def test_a_waiting_batch_job_that_somebody_waits_for_now_goes_first(engine: LocalEngine) -> None:
    first, second = (engine.submit("prelabel", {}, key).id for key in ("one", "two"))
    engine.submit("prelabel", {}, "two", priority=INTERACTIVE)
    # Its first entry stays behind; it does nothing once the job was claimed.
    assert drain(engine) == [second, first, second]


def test_frames_have_a_lane_of_their_own(engine: LocalEngine) -> None:
    frames = engine.submit("frames", {}, "f").id
    prelabel = engine.submit("prelabel", {}, "p").id
    assert drain(engine, LIGHT_LANE) == [frames]
    assert drain(engine, MODEL_LANE) == [prelabel]


def test_wait_returns_when_the_job_ends(engine: LocalEngine) -> None:
    job = engine.submit("prelabel", {}, "k")

    def work() -> None:
        time.sleep(0.2)
        claimed = engine.store.claim(job.id, "w")
        assert claimed is not None
        engine.store.finish(claimed, JobState.DONE, result={"n": 1})

    thread = threading.Thread(target=work)
    begun = time.monotonic()
    thread.start()
    done = engine.wait(job.id, timeout=20)
    thread.join()
    assert (done.state, done.result) == (JobState.DONE, {"n": 1})
    assert 0.15 < time.monotonic() - begun < 5


def test_wait_gives_up_in_time(engine: LocalEngine) -> None:
    job = engine.submit("prelabel", {}, "k")
    begun = time.monotonic()
    assert engine.wait(job.id, timeout=0.2).state is JobState.QUEUED
    assert 0.2 <= time.monotonic() - begun < 2
    assert engine.wait(job.id, timeout=0).state is JobState.QUEUED


def test_unknown_jobs_are_an_error(engine: LocalEngine) -> None:
    for ask in (engine.get, engine.cancel, lambda id_: engine.wait(id_, 1)):
        with pytest.raises(SvacError, match="no job 'nothing'"):
            ask("nothing")


def test_recover_queues_what_the_queue_lost(engine: LocalEngine) -> None:
    lost = [engine.submit("prelabel", {}, key, priority=p).id for key, p in (("a", 0), ("b", 0), ("c", 10))]
    assert len(drain(engine)) == 3
    kept = engine.submit("prelabel", {}, "kept").id
    engine.recover(lease_s=30)
    engine.recover(lease_s=30)
    assert drain(engine) == [lost[2], kept, lost[0], lost[1]]


def test_recover_queues_the_jobs_of_the_dead_only(engine: LocalEngine, database: Database) -> None:
    dead, alive = (engine.submit("prelabel", {}, key).id for key in ("dead", "alive"))
    drain(engine)
    engine.store.claim(dead, "w1")
    engine.store.claim(alive, "w2")
    with database.write() as session:
        session.execute(text("UPDATE jobs SET heartbeat = heartbeat - 100 WHERE id = :id"), {"id": dead})
    engine.recover(lease_s=30)
    assert drain(engine) == [dead]
    assert engine.get(dead).state is JobState.QUEUED
    assert engine.get(alive).state is JobState.RUNNING


def test_another_process_sees_the_same_queue(engine: LocalEngine, settings: Settings) -> None:
    job = engine.submit("prelabel", {}, "k")
    other = LocalEngine(settings, Database(settings.data_dir))
    assert other.get(job.id).state is JobState.QUEUED
    assert drain(other) == [job.id]
    assert drain(engine) == []


def test_the_queue_is_not_flushed_for_each_message(engine: LocalEngine) -> None:
    (level,) = engine.lanes[MODEL_LANE].storage.conn.execute("PRAGMA synchronous").fetchone()
    assert level == 1  # NORMAL


def test_a_queue_that_cannot_be_written_loses_no_job(
    engine: LocalEngine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine.lanes[MODEL_LANE].storage.conn.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(settings.data_dir / "queue.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        job = engine.submit("prelabel", {}, "k")
        other.execute("ROLLBACK")
    assert "not on the queue yet" in caplog.text
    assert drain(engine) == []
    engine.recover(lease_s=30)
    assert drain(engine) == [job.id]


def test_a_damaged_queue_file_is_said(settings: Settings, database: Database) -> None:
    (settings.data_dir / "queue.db").write_bytes(b"this is no database" * 500)
    with pytest.raises(SvacError, match=r"queue\.db cannot be used") as caught:
        LocalEngine(settings, database)
    assert "delete this file" in caught.value.hint
