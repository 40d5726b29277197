"""One job from claim to end."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text

from svac_backend.errors import StoreError, SvacError
from svac_backend.jobs.engine import INTERACTIVE, Job, JobContext, JobEngine, JobState
from svac_backend.jobs.process import IN_A_ROW, Runner, WorkerProcess
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.jobs import JobStore
from svac_backend.store.lanes import MODEL_LANE


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def run(store: JobStore, handler: Any, kind: str = "work") -> Job:
    job = store.submit(kind, {"n": 2}, "k")
    Runner(store, {"work": handler}, "w").run(MODEL_LANE)
    after = store.get(job.id)
    assert after is not None
    return after


def test_done(store: JobStore) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        context.progress(0.5, "half")
        return {"double": 2 * context.payload["n"], "message": "Doubled"}

    job = run(store, work)
    assert (job.state, job.progress, job.message) == (JobState.DONE, 1.0, "Doubled")
    assert job.result == {"double": 4}


def test_an_error_for_people_fails_the_job_with_its_hint(store: JobStore) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        raise SvacError("The video is damaged.", "Encode it again.")

    job = run(store, work)
    assert (job.state, job.error, job.hint) == (JobState.FAILED, "The video is damaged.", "Encode it again.")


def test_an_unexpected_error_is_logged_whole_and_the_worker_goes_on(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        raise KeyError("inner detail")

    job = run(store, work)
    assert job.state is JobState.FAILED
    assert job.error == "The job failed unexpectedly (KeyError)."
    assert job.hint is not None
    assert job.id in job.hint
    assert "inner detail" in caplog.text
    assert "Traceback" in caplog.text


def test_an_unknown_kind_fails_with_a_reason(store: JobStore) -> None:
    job = run(store, lambda context: {}, kind="paint")
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "'paint'" in job.error


def test_cancel_while_running(store: JobStore) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        store.cancel(context.job.id)
        context.progress(0.5, "this must stop it")
        return {}

    job = run(store, work)
    assert (job.state, job.message, job.result) == (JobState.CANCELLED, "Cancelled", None)


def test_a_cancelled_waiting_job_is_not_begun(store: JobStore) -> None:
    job = store.submit("work", {}, "k")
    store.cancel(job.id)
    begun: list[str] = []
    Runner(store, {"work": lambda context: begun.append(context.job.id) or {}}, "w").run(MODEL_LANE)
    assert begun == []


def test_a_stopping_worker_puts_the_job_back(store: JobStore) -> None:
    job = store.submit("work", {}, "k")

    def work(context: JobContext) -> dict[str, Any]:
        runner.stopping.set()
        context.progress(0.5, "x")
        return {}

    runner = Runner(store, {"work": work}, "w")
    runner.run(MODEL_LANE)
    after = store.get(job.id)
    assert after is not None
    assert (after.state, after.attempts) == (JobState.QUEUED, 0)
    runner.run(MODEL_LANE)
    assert store.get(job.id) == after


def test_a_job_that_does_not_stop_is_given_back_and_its_late_result_refused(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    job = store.submit("work", {}, "k")

    def work(context: JobContext) -> dict[str, Any]:
        assert runner.active_ids == [job.id]
        runner.release_active()
        return {"late": True}

    runner = Runner(store, {"work": work}, "w")
    with caplog.at_level(logging.WARNING):
        runner.run(MODEL_LANE)
    after = store.get(job.id)
    assert after is not None
    assert (after.state, after.result) == (JobState.QUEUED, None)
    assert "another worker has it" in caplog.text
    assert runner.active_ids == []


@pytest.fixture
def lock(settings: Settings, store: JobStore) -> Iterator[sqlite3.Connection]:
    """Another program that can hold the database; what waits for it gives up at once."""
    event.listen(store.database.engine, "connect", lambda c, _: c.execute("PRAGMA busy_timeout = 20"))
    store.database.close()  # connections made from now on have the short timeout
    path = settings.data_dir / "svac.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        yield other


def test_work_goes_on_while_its_progress_cannot_be_stored(
    store: JobStore, lock: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        lock.execute("BEGIN IMMEDIATE")
        context.progress(0.5, "half")
        lock.execute("ROLLBACK")
        return {"n": 1}

    job = run(store, work)
    assert (job.state, job.result) == (JobState.DONE, {"n": 1})
    assert "locked" in caplog.text


def test_the_end_of_a_job_waits_for_the_database(
    store: JobStore,
    lock: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("svac_backend.jobs.process.TROUBLE_S", 0.05)

    def work(context: JobContext) -> dict[str, Any]:
        lock.execute("BEGIN IMMEDIATE")
        threading.Timer(0.5, lambda: lock.execute("ROLLBACK")).start()
        return {"n": 1}

    job = run(store, work)
    assert (job.state, job.result, job.attempts) == (JobState.DONE, {"n": 1}, 1)
    assert "trying again" in caplog.text


def test_a_job_whose_end_cannot_be_stored_runs_again(
    store: JobStore, lock: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its database without end, however short patience is, but for that of the worker itself."""
    monkeypatch.setattr("svac_backend.jobs.process.PATIENCE_S", 0.0)
    monkeypatch.setattr("svac_backend.jobs.process.TROUBLE_S", 0.05)

    def work(context: JobContext) -> dict[str, Any]:
        lock.execute("BEGIN IMMEDIATE")
        return {"n": 1}

    runner = Runner(store, {"work": work}, "w")
    store.submit("work", {}, "k")
    thread = threading.Thread(target=runner.run, args=(MODEL_LANE,))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    runner.stopping.set()
    thread.join(20)
    lock.execute("ROLLBACK")
    (job,) = store.find()
    assert job.state is JobState.RUNNING
    assert [again.id for again in store.recover(lease_s=-1, max_attempts=3)] == [job.id]


def test_a_job_that_cannot_be_claimed_stays_queued(store: JobStore, lock: sqlite3.Connection) -> None:
    store.submit("work", {}, "k")
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        Runner(store, {"work": lambda _: {}}, "w").run(MODEL_LANE)
    lock.execute("ROLLBACK")
    (after,) = store.find()
    assert (after.state, after.attempts) == (JobState.QUEUED, 0)


def test_a_lane_goes_on_when_the_database_can_be_used_again(
    store: JobStore,
    lock: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("svac_backend.jobs.process.TROUBLE_S", 0.05)
    engine = JobEngine(store.database)
    worker = WorkerProcess(engine, {"work": lambda _: {"n": 1}})
    worker.start()
    lock.execute("BEGIN IMMEDIATE")
    # Put in by the one that holds the lock, so that the lane sees it and cannot take it.
    columns = "(id, kind, lane, state, key, priority, progress, message, payload, attempts, cancel_requested, created)"
    values = "('a', 'work', 'model', 'queued', 'k', 0, 0, '', '{}', 0, 0, 0)"
    lock.execute(f"INSERT INTO jobs {columns} VALUES {values}")
    lock.execute("COMMIT")
    lock.execute("BEGIN IMMEDIATE")
    deadline = time.monotonic() + 10
    while "no model job can be taken" not in caplog.text and engine.get("a").state is JobState.QUEUED:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lock.execute("ROLLBACK")
    assert engine.wait("a", timeout=10).state is JobState.DONE
    worker.stop()


def test_a_damaged_job_is_set_aside_and_the_next_one_is_done(store: JobStore) -> None:
    """It was claimed again and again, and each time its lane's thread died."""
    damaged, good = store.submit("work", {}, "damaged"), store.submit("work", {}, "good")
    with store.database.write() as session:
        session.execute(text("UPDATE jobs SET payload = '{\"cut' WHERE id = :id"), {"id": damaged.id})
    runner = Runner(store, {"work": lambda _: {"n": 1}}, "w")
    assert runner.run(MODEL_LANE)
    assert runner.run(MODEL_LANE)
    failed, done = store.get(damaged.id), store.get(good.id)
    assert failed is not None
    assert done is not None
    assert (failed.state, done.state) == (JobState.FAILED, JobState.DONE)
    assert failed.error == "This job's entry in the database cannot be read."
    assert [job.key for job in store.find()] == ["good", "damaged"]


def test_a_result_that_cannot_be_stored_fails_its_job_at_once(store: JobStore) -> None:
    job = run(store, lambda _: {"thing": object()})
    assert job.state is JobState.FAILED
    assert job.error == "The job failed unexpectedly (TypeError)."


def test_words_that_are_no_text_are_stored_and_logged_as_escapes(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        context.progress(0.5, "the \ud800 dog")
        raise SvacError("No \ud800 video.\0", "Send \udfff again.")

    job = run(store, work)
    assert job.state is JobState.FAILED
    assert (job.error, job.hint) == (r"No \ud800 video.\x00", r"Send \udfff again.")
    assert r"No \ud800 video.\x00" in caplog.text
    reason = store.reject("work", {}, "r", "Not \ud800.", "h")
    assert reason.id == store.reject("work", {}, "r", "Not \ud800.", "h").id


def test_threads_of_a_worker_outlive_what_nobody_thought_of(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as garbage in a file that they read: a heart that stops, or a deaf lane, is a worker that seems to live."""
    monkeypatch.setattr("svac_backend.jobs.process.TROUBLE_S", 0.02)
    thrown: list[str] = []

    def garbage(name: str, real: Any) -> Any:
        def first_garbage(*args: Any, **options: Any) -> Any:
            if thrown.count(name) < 2:
                thrown.append(name)
                raise ValueError(f"garbage in {name}")
            return real(*args, **options)

        return first_garbage

    worker = WorkerProcess(JobEngine(store.database), {"work": lambda _: {"n": 1}}, lease_s=0.3)
    worker.start()
    for owner, name in (
        (worker.engine.store, "claim"),
        (worker.engine.store, "waiting"),
        (worker.engine.workers, "beat"),
        (worker.engine.store, "recover"),
    ):
        monkeypatch.setattr(owner, name, garbage(name, getattr(owner, name)))
    job = worker.engine.submit("work", {}, "k")
    assert worker.engine.wait(job.id, timeout=20).state is JobState.DONE
    deadline = time.monotonic() + 20
    while len(thrown) < 8:
        assert time.monotonic() < deadline, thrown
        time.sleep(0.02)
    worker.stop()
    assert "garbage in beat" in caplog.text


def away(_: JobContext) -> dict[str, Any]:
    raise SvacError("Label Studio is away.", "Start it.", temporary=True)


def test_what_time_mends_is_tried_again_with_growing_pauses(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(store.database, "time", lambda: now)
    job_id = store.submit("work", {}, "k").id
    runner = Runner(store, {"work": away}, "w")
    pauses = []
    while runner.run(MODEL_LANE):
        job = store.get(job_id)
        assert job is not None
        if job.due is None:
            break
        assert (job.state, job.message, job.error, job.attempts) == (
            JobState.QUEUED,
            "Waiting to retry",
            "Label Studio is away.",
            0,
        )
        pauses.append(round(job.due - now, 3))
        assert job.tries == len(pauses)
        now = job.due - 0.1
        assert store.wake() == 0
        assert not runner.run(MODEL_LANE)
        assert MODEL_LANE not in store.waiting()
        now += 0.2
        assert store.wake() == 1
    assert pauses[:3] == [5, 15, 60]
    assert pauses == sorted(pauses)
    assert 20 * 3600 < sum(pauses) <= 24 * 3600
    assert job.state is JobState.FAILED
    assert job.error == "Label Studio is away."


def test_what_time_does_not_mend_fails_at_once_and_so_does_all_where_nothing_is_tried_again(
    store: JobStore,
) -> None:
    job = store.submit("work", {}, "k")
    Runner(store, {"work": away}, "w", retry_hours=0).run(MODEL_LANE)
    after = store.get(job.id)
    assert after is not None
    assert (after.state, after.tries) == (JobState.FAILED, 0)


def test_a_job_that_waits_to_be_tried_again_can_be_cancelled_hurried_and_outlives_a_clock_set_back(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(store, {"work": away}, "w")
    for key in ("cancelled", "hurried", "clock"):
        store.submit("work", {}, key)
        assert runner.run(MODEL_LANE)
    jobs = {job.key: job for job in store.find()}
    cancelled = store.cancel(jobs["cancelled"].id)
    assert cancelled is not None
    assert (cancelled.state, cancelled.due) == (JobState.CANCELLED, None)
    assert store.submit("work", {}, "hurried", 0).due is not None  # nobody waits for it
    assert store.submit("work", {}, "hurried", 10).due is None
    now = time.time() - 7200
    monkeypatch.setattr(store.database, "time", lambda: now)
    assert store.wake() == 1
    again = store.get(jobs["clock"].id)
    assert again is not None
    assert again.due is None


def test_a_short_outage_costs_seconds(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svac_backend.jobs.engine.PAUSES_S", (0.05, 0.1, 0.2, 0.4, 0.8, 1.6))
    monkeypatch.setattr("svac_backend.jobs.process.WAKE_S", 0.05)
    back = time.monotonic() + 1.0

    def until_back(context: JobContext) -> dict[str, Any]:
        return away(context) if time.monotonic() < back else {"n": 1}

    engine = JobEngine(store.database)
    worker = WorkerProcess(engine, {"work": until_back})
    worker.start()
    jobs = [engine.submit("work", {}, f"k{n}") for n in range(6)]
    deadline = time.monotonic() + 20
    while any(engine.get(job.id).active for job in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker.stop()
    ended = [engine.get(job.id) for job in jobs]
    assert {job.state for job in ended} == {JobState.DONE}
    assert all(job.error is None for job in ended)
    assert max(job.tries for job in ended) >= 2


@pytest.mark.parametrize(
    ("number", "state", "message"),
    [
        (errno.ENOSPC, JobState.QUEUED, "Waiting to retry"),
        (errno.EDQUOT, JobState.QUEUED, "Waiting to retry"),
        (errno.EACCES, JobState.FAILED, "Failed"),
    ],
)
def test_a_full_disk_is_something_that_time_mends(
    store: JobStore, number: int, state: JobState, message: str
) -> None:
    def write(_: JobContext) -> dict[str, Any]:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise SvacError("The video cannot be written.", "Make room.") from error

    job = store.submit("work", {}, "k")
    assert Runner(store, {"work": write}, "w").run(MODEL_LANE)
    now = store.get(job.id)
    assert now is not None
    assert (now.state, now.message, now.hint) == (state, message, "Make room.")

    def raw(_: JobContext) -> dict[str, Any]:
        raise OSError(number, os.strerror(number), "frames/0.jpg")

    job = store.submit("work", {}, "raw")
    assert Runner(store, {"work": raw}, "w").run(MODEL_LANE)
    now = store.get(job.id)
    assert now is not None
    assert (now.state, now.message) == (state, message)


def test_a_job_nobody_waits_for_lets_one_through_that_a_person_waits_for(store: JobStore) -> None:
    ended: list[str] = []
    pinned: list[str] = []

    @contextmanager
    def between() -> Iterator[None]:
        pinned.append("in")
        yield
        pinned.append("out")

    def work(context: JobContext) -> dict[str, Any]:
        if context.job.key == "batch":
            context.progress(0.5, "half")
            assert ended == []
            store.submit("work", {}, "person", INTERACTIVE)
            store.submit("work", {}, "next batch")
            assert runner.patient
            runner.urgent.set()  # as the look-out does
            context.progress(0.6, "more")
        else:
            assert not context.job.key.startswith("person") or not runner.patient
        ended.append(context.job.key)
        return {}

    store.submit("work", {}, "batch")
    runner = Runner(store, {"work": work}, "w", between=between)
    assert runner.run(MODEL_LANE)
    assert ended == ["person", "batch"]
    assert pinned == ["in", "out"]
    assert not runner.active_ids


def test_a_drained_worker_takes_nothing(store: JobStore) -> None:
    store.submit("work", {}, "k")
    runner = Runner(store, {"work": lambda _: {}}, "w")
    runner.drained.set()
    assert not runner.run(MODEL_LANE)
    runner.drained.clear()
    assert runner.run(MODEL_LANE)


def test_a_worker_goes_on_with_a_video_only_so_often_in_a_row(store: JobStore) -> None:
    for number in range(2 * IN_A_ROW):
        store.submit("work", {"hostname": "h", "video_url": "a.mp4"}, f"a{number}")
    store.submit("work", {"hostname": "h", "video_url": "b.mp4"}, "b")
    order: list[str] = []
    runner = Runner(store, {"work": lambda context: order.append(context.job.key) or {}}, "w")
    store.submit("work", {"hostname": "h", "video_url": "a.mp4"}, "last")
    while runner.run(MODEL_LANE):
        pass
    assert len(order) == 2 * IN_A_ROW + 2
    assert order[-2:] == ["b", "last"]
