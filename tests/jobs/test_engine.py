"""The engine: queue, priorities, waiting, recovery; and the context of a handler."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from svac_backend.errors import JobCancelled, SvacError
from svac_backend.jobs.engine import (
    BATCH,
    INTERACTIVE,
    PORTION,
    Job,
    JobContext,
    JobEngine,
    JobInterrupted,
    JobState,
    Work,
)
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.lanes import BULK_LANE, LANES, LIGHT_LANE, MODEL_LANE
from svac_backend.store.workers import WorkerStore
from tests.databases import OpenDatabase


@pytest.fixture
def database(open_database: OpenDatabase, settings: Settings) -> Database:
    return open_database(settings.data_dir)


@pytest.fixture
def engine(database: Database) -> JobEngine:
    return JobEngine(database)


def drain(engine: JobEngine, lane: str = MODEL_LANE) -> list[str]:
    """Take every job of a lane, as a worker would; return their ids in that order."""
    ids = []
    while (job := engine.store.claim(lane, "drain")) is not None:
        ids.append(job.id)
    return ids


def test_interactive_jobs_go_first(engine: JobEngine) -> None:
    batch = [engine.submit("prelabel", {}, f"batch {n}", priority=BATCH).id for n in range(2)]
    urgent = engine.submit("prelabel", {}, "urgent", priority=INTERACTIVE).id
    assert drain(engine) == [urgent, *batch]


def test_frames_have_a_lane_of_their_own(engine: JobEngine) -> None:
    frames = engine.submit("frames", {}, "f").id
    prelabel = engine.submit("prelabel", {}, "p").id
    assert drain(engine, LIGHT_LANE) == [frames]
    assert drain(engine, MODEL_LANE) == [prelabel]


def test_wait_returns_when_the_job_ends(engine: JobEngine) -> None:
    job = engine.submit("prelabel", {}, "k")

    def work() -> None:
        time.sleep(0.2)
        claimed = engine.store.claim(MODEL_LANE, "w")
        assert claimed is not None
        engine.store.finish(claimed, JobState.DONE, result={"n": 1})

    thread = threading.Thread(target=work)
    begun = time.monotonic()
    thread.start()
    done = engine.wait(job.id, timeout=20)
    thread.join()
    assert (done.state, done.result) == (JobState.DONE, {"n": 1})
    assert 0.15 < time.monotonic() - begun < 5


def test_wait_gives_up_in_time(engine: JobEngine) -> None:
    job = engine.submit("prelabel", {}, "k")
    begun = time.monotonic()
    assert engine.wait(job.id, timeout=0.2).state is JobState.QUEUED
    assert 0.2 <= time.monotonic() - begun < 2
    assert engine.wait(job.id, timeout=0).state is JobState.QUEUED


def test_unknown_jobs_are_an_error(engine: JobEngine) -> None:
    for ask in (engine.get, engine.cancel, lambda id_: engine.wait(id_, 1)):
        with pytest.raises(SvacError, match="no job 'nothing'"):
            ask("nothing")


def let_time_pass(engine: JobEngine, seconds: float) -> None:
    """Let time pass, by this process's own clock, and see what was heard until then."""
    engine.store.recover(1e9, max_attempts=3)
    now = engine.store._watch.clock() + seconds
    engine.store._watch.clock = lambda: now
    engine.store.recover(1e9, max_attempts=3)


def test_recover_queues_the_jobs_of_the_dead_only(engine: JobEngine) -> None:
    dead, alive = (engine.submit("prelabel", {}, key).id for key in ("dead", "alive"))
    engine.store.claim(MODEL_LANE, "w1")
    engine.store.claim(MODEL_LANE, "w2")
    let_time_pass(engine, 20)
    engine.workers.beat("w2", [alive])
    let_time_pass(engine, 20)
    engine.recover(lease_s=30)
    assert engine.get(dead).state is JobState.QUEUED
    assert engine.get(alive).state is JobState.RUNNING
    assert drain(engine) == [dead]


def test_all_jobs_of_a_worker_that_is_known_to_be_dead_come_back_at_once(engine: JobEngine) -> None:
    """Whoever has asked about it before, as `/ready` and `/metrics` do all the time."""
    jobs = [engine.submit(kind, {}, kind).id for kind in ("prelabel", "frames", "finetune")]
    dead = WorkerStore(engine.store.database)
    dead.hold("dead")
    dead.beat("dead")
    for lane in LANES:
        if lane != BULK_LANE:
            assert engine.store.claim(lane, "dead") is not None
    engine.recover(lease_s=30)
    assert [engine.get(job).state for job in jobs] == [JobState.RUNNING] * 3
    dead._held.pop("dead").release()  # as the system does when it dies
    assert engine.workers.alive(30) == []
    engine.recover(lease_s=30)
    assert [engine.get(job).state for job in jobs] == [JobState.QUEUED] * 3


def test_a_job_is_taken_with_its_payload(engine: JobEngine) -> None:
    job = engine.submit("prelabel", {"large": "x" * 10_000}, "k")
    assert engine.submit("prelabel", {}, "k").id == job.id
    taken = engine.store.claim(MODEL_LANE, "w")
    assert taken is not None
    assert (taken.id, taken.payload) == (job.id, {"large": "x" * 10_000})
    assert drain(engine) == []


def test_a_waiting_batch_job_that_somebody_waits_for_now_goes_first(engine: JobEngine) -> None:
    first, second = (engine.submit("prelabel", {}, key).id for key in ("one", "two"))
    engine.submit("prelabel", {}, "two", priority=INTERACTIVE)
    assert drain(engine) == [second, first]


def test_what_was_taken_and_put_back_keeps_its_place(engine: JobEngine) -> None:
    jobs = [engine.submit("prelabel", {}, key, priority=p).id for key, p in (("a", 0), ("b", 0), ("c", 10))]
    taken = [engine.store.claim(MODEL_LANE, "w") for _ in jobs]
    kept = engine.submit("prelabel", {}, "kept").id
    assert taken[1] is not None
    engine.store.release(taken[1])  # its worker stops; the others' dies
    let_time_pass(engine, 31)
    engine.recover(lease_s=30)
    engine.recover(lease_s=30)
    assert drain(engine) == [jobs[2], jobs[0], jobs[1], kept]


def test_another_process_sees_the_same_queue(
    engine: JobEngine, settings: Settings, open_database: OpenDatabase
) -> None:
    job = engine.submit("prelabel", {}, "k")
    other = JobEngine(open_database(settings.data_dir))
    assert other.get(job.id).state is JobState.QUEUED
    assert drain(other) == [job.id]
    assert drain(engine) == []


def test_a_queue_file_of_an_older_version_is_left_alone(settings: Settings, database: Database) -> None:
    leftover = settings.data_dir / "queue.db"
    leftover.write_bytes(b"this is no database" * 500)
    engine = JobEngine(database)
    job = engine.submit("prelabel", {}, "k")
    assert drain(engine) == [job.id]
    assert leftover.read_bytes() == b"this is no database" * 500


def test_many_works_are_stored_in_portions_and_taken_in_their_order(
    engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    portions: list[int] = []
    store = engine.store.submit_many
    monkeypatch.setattr(
        engine.store, "submit_many", lambda works: portions.append(len(works)) or store(works)
    )
    jobs = engine.submit_many([Work("prelabel", {}, f"k{n}") for n in range(PORTION + 3)])
    assert portions == [PORTION, 3]
    assert drain(engine) == [job.id for job in jobs]


JOB = Job(
    "id",
    "prelabel",
    JobState.RUNNING,
    "k",
    0,
    0.0,
    "",
    {"a": 1},
    None,
    None,
    None,
    1,
    0,
    None,
    False,
    "w",
    0.0,
    0.0,
    0.0,
    None,
)


def test_reports_are_few_and_within_bounds() -> None:
    reports: list[tuple[float, str]] = []

    def report(fraction: float, message: str) -> Job:
        reports.append((fraction, message))
        return JOB

    context = JobContext(JOB, report, threading.Event())
    assert context.payload == {"a": 1}
    for i in range(1000):
        context.progress(i / 100, "masks")
    assert reports[0] == (0.0, "masks")
    assert len(reports) < 20
    context.progress(7.0, "something new is said at once")
    context.progress(-1.0, "and this")
    assert reports[-2:] == [(1.0, "something new is said at once"), (0.0, "and this")]


def test_a_cancelled_job_stops_at_its_next_report() -> None:
    context = JobContext(JOB, lambda *_: replace(JOB, cancel_requested=True), threading.Event())
    with pytest.raises(JobCancelled):
        context.progress(0.5, "x")


def test_a_job_that_another_worker_has_stops() -> None:
    context = JobContext(JOB, lambda *_: None, threading.Event())
    with pytest.raises(JobInterrupted, match="another worker"):
        context.progress(0.5, "x")


def test_a_stopping_worker_stops_its_jobs_even_between_reports() -> None:
    stopping = threading.Event()
    context = JobContext(JOB, lambda *_: JOB, stopping)
    context.progress(0.5, "x")
    stopping.set()
    with pytest.raises(JobInterrupted, match="shuts down"):
        context.progress(0.5, "x")
