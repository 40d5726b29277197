"""The job table: idempotent keys, claims, leases."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import StatementError

from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.jobs import _LOADS, Job, JobState, JobStore, Work, _active
from svac_backend.store.lanes import BULK_LANE, LANES, LIGHT_LANE, MODEL_LANE, TRAINING_LANE, nexts
from svac_backend.store.tables import EventRow, JobRow, RenderingRow
from tests.databases import OpenDatabase


@pytest.fixture
def store(open_database: OpenDatabase, tmp_path: Path) -> JobStore:
    return JobStore(open_database(tmp_path))


def submit(store: JobStore, key: str = "k", priority: int = 0) -> Job:
    return store.submit("prelabel", {"task_id": "7"}, key, priority)


def begin(store: JobStore, worker: str) -> Job | None:
    """Submit a job, and have a worker take it."""
    submit(store)
    return store.claim(MODEL_LANE, worker)


def age(store: JobStore, job: Job, seconds: float) -> None:
    """Let time pass, by this process's own clock, in which nothing is heard of a job."""
    store.recover(1e9, max_attempts=3)  # seen as it is
    now = store._watch.clock() + seconds
    store._watch.clock = lambda: now
    store.recover(1e9, max_attempts=3)


def test_same_key_is_the_same_job_while_it_is_active(store: JobStore) -> None:
    first = store.submit("prelabel", {"a": 1}, "k")
    again = store.submit("prelabel", {"a": 2}, "k")
    assert len(store.find()) == 1
    assert again.id == first.id
    assert again.payload == {"a": 1}
    running = store.claim(MODEL_LANE, "w")
    assert running is not None
    assert submit(store).id == first.id
    store.finish(running, JobState.FAILED, error="e", hint="h")
    assert submit(store).id != first.id


def test_threads_that_submit_the_same_key_get_the_same_job(store: JobStore) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(submit(store).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_waiting_job_takes_over_a_higher_priority(store: JobStore) -> None:
    job = submit(store, priority=0)
    raised = store.submit("prelabel", {}, "k", 10)
    assert (raised.id, raised.priority) == (job.id, 10)
    assert store.submit("prelabel", {}, "k", 0).priority == 10
    assert store.claim(MODEL_LANE, "w") is not None
    assert store.submit("prelabel", {}, "k", 20).priority == 10  # it runs: there is nothing to hurry


def test_a_job_is_claimed_once(store: JobStore) -> None:
    submit(store)
    claims: list[Job | None] = []
    threads = [
        threading.Thread(target=lambda n=n: claims.append(store.claim(MODEL_LANE, f"w{n}"))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [claim for claim in claims if claim is not None]
    assert len(claims) == 8
    assert len(won) == 1
    assert (won[0].state, won[0].attempts) == (JobState.RUNNING, 1)


def test_progress_and_result(store: JobStore) -> None:
    job = begin(store, "w")
    assert job is not None
    now = store.report(job, 0.4, "frame 4 of 10")
    assert now is not None
    assert (now.progress, now.message) == (0.4, "frame 4 of 10")
    assert store.finish(job, JobState.DONE, message="Done", result={"masks": 3})
    done = store.get(job.id)
    assert done is not None
    assert (done.state, done.progress, done.result) == (JobState.DONE, 1.0, {"masks": 3})
    assert done.finished is not None
    assert not done.active


def test_cancel_waiting_running_and_finished(store: JobStore) -> None:
    waiting = store.cancel(submit(store).id)
    assert waiting is not None
    assert waiting.state is JobState.CANCELLED
    assert store.claim(MODEL_LANE, "w") is None

    job = begin(store, "w")
    assert job is not None
    asked = store.cancel(job.id)
    assert asked is not None
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    told = store.report(job, 0.5, "x")
    assert told is not None
    assert told.cancel_requested

    store.finish(job, JobState.DONE)
    after = store.cancel(job.id)
    assert after is not None
    assert after.state is JobState.DONE
    assert store.cancel("nothing") is None


def test_a_dead_workers_job_is_queued_again_and_its_word_counts_no_more(store: JobStore) -> None:
    dead = begin(store, "dead")
    assert dead is not None
    assert store.recover(lease_s=30, max_attempts=3) == []
    age(store, dead, 31)
    assert [job.id for job in store.recover(lease_s=30, max_attempts=3)] == [dead.id]

    alive = store.claim(MODEL_LANE, "alive")
    assert alive is not None
    assert alive.attempts == 2
    assert store.report(dead, 0.9, "I am not dead") is None
    assert not store.finish(dead, JobState.DONE, result={})
    assert not store.release(dead)
    now = store.get(dead.id)
    assert now is not None
    assert (now.state, now.progress, now.worker_id) == (JobState.RUNNING, 0.0, "alive")


def test_attempts_are_capped(store: JobStore) -> None:
    job_id = submit(store).id
    for attempt in (1, 2, 3):
        job = store.claim(MODEL_LANE, f"w{attempt}")
        assert job is not None
        age(store, job, 100)
        store.recover(lease_s=30, max_attempts=3)
    job = store.get(job_id)
    assert job is not None
    assert job.state is JobState.FAILED
    assert job.error == "The worker died 3 times while it ran this job."
    assert job.hint
    assert "log" in job.hint


def test_a_cancelled_job_of_a_dead_worker_is_not_run_again(store: JobStore) -> None:
    job = begin(store, "w")
    assert job is not None
    store.cancel(job.id)
    age(store, job, 100)
    assert store.recover(lease_s=30, max_attempts=3) == []
    now = store.get(job.id)
    assert now is not None
    assert now.state is JobState.CANCELLED


def test_release_gives_the_attempt_back(store: JobStore) -> None:
    job = begin(store, "w")
    assert job is not None
    assert store.release(job)
    now = store.get(job.id)
    assert now is not None
    assert (now.state, now.attempts, now.worker_id) == (JobState.QUEUED, 0, None)


def test_release_of_a_cancelled_job_cancels_it(store: JobStore) -> None:
    job = begin(store, "w")
    assert job is not None
    store.cancel(job.id)
    assert store.release(job)
    now = store.get(job.id)
    assert now is not None
    assert now.state is JobState.CANCELLED


def test_the_same_rejection_is_one_row(store: JobStore) -> None:
    first = store.reject("prelabel", {"task_id": "7"}, "k", "The prompt is empty.", "Say something.")
    again = store.reject("prelabel", {"task_id": "7"}, "k", "The prompt is empty.", "Say something.")
    other = store.reject("prelabel", {"task_id": "7"}, "k", "Another reason.", "Do this.")
    assert first.id == again.id
    assert other.id != first.id
    assert first.state is JobState.FAILED
    assert first.finished is not None
    assert again.finished is not None
    assert again.finished >= first.finished
    # A rejected job stands in nobody's way.
    assert submit(store, "k").state is JobState.QUEUED


def test_find_filters_and_orders(store: JobStore) -> None:
    jobs = [submit(store, key) for key in "abc"]
    store.submit("frames", {}, "f")
    store.cancel(jobs[0].id)
    assert [job.key for job in store.find(kind="prelabel")] == ["c", "b", "a"]
    assert [job.key for job in store.find(states=(JobState.CANCELLED,))] == ["a"]
    assert [job.key for job in store.find(key="b")] == ["b"]
    assert len(store.find(limit=2)) == 2
    assert store.counts() == {
        JobState.QUEUED: 3,
        JobState.RUNNING: 0,
        JobState.DONE: 0,
        JobState.FAILED: 0,
        JobState.CANCELLED: 1,
    }


def test_an_earlier_attempt_of_the_same_worker_counts_no_more(store: JobStore) -> None:
    """A worker that was suspended, lost the job, and claimed it again on another thread."""
    first = begin(store, "w")
    assert first is not None
    age(store, first, 100)
    store.recover(lease_s=30, max_attempts=3)
    second = store.claim(MODEL_LANE, "w")
    assert second is not None
    assert not store.finish(first, JobState.DONE, result={"of": "first"})
    assert store.report(first, 0.9, "x") is None
    assert store.finish(second, JobState.DONE, result={"of": "second"})


def test_several_works_are_stored_at_once_and_each_key_once(store: JobStore) -> None:
    waiting = store.submit("prelabel", {}, "b")
    works = [Work("prelabel", {"n": n}, key, 5 * n) for n, key in enumerate("abca")]
    found = store.submit_many(works)
    assert [job.key for job in found] == list("abca")
    assert found[1].id == waiting.id
    assert found[0].id == found[3].id
    # New, and raised from 0 to 15 by the last of this call; raised from 0 to 5; new.
    assert {job.key: job.priority for job in store.find()} == {"a": 15, "b": 5, "c": 10}
    assert store.active_keys(["a", "c", "x"]) == {"a", "c"}
    assert store.submit_many([]) == []


def test_works_that_cannot_all_be_stored_are_none(store: JobStore) -> None:
    with pytest.raises((StatementError, TypeError)):
        store.submit_many([Work("prelabel", {}, "a"), Work("prelabel", {"n": object()}, "b")])
    assert store.find() == []


def test_claims_take_the_highest_priority_first_then_the_oldest_of_their_lane(store: JobStore) -> None:
    for key, kind, priority in (
        ("a", "prelabel", 0),
        ("b", "propagate", 10),
        ("c", "frames", 20),
        ("d", "prelabel", 10),
        ("e", "finetune", 0),
        ("f", "a kind of tomorrow", -1),
        ("g", "bulk", 0),
    ):
        store.submit(kind, {}, key, priority)
    taken: dict[str, list[str]] = {}
    for lane in LANES:
        taken[lane] = []
        while (job := store.claim(lane, "w")) is not None:
            taken[lane].append(job.key)
    assert taken == {
        MODEL_LANE: ["b", "d", "a", "f"],
        LIGHT_LANE: ["c"],
        TRAINING_LANE: ["e"],
        BULK_LANE: ["g"],
    }


def test_processes_that_claim_at_once_get_each_job_once(store: JobStore, open_database: OpenDatabase) -> None:
    jobs = store.submit_many([Work("prelabel", {}, f"k{n}") for n in range(120)])
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from svac_backend.store.database import Database\nfrom svac_backend.store.jobs import JobStore\n"
        "store = JobStore(Database(Path(sys.argv[1]), sys.argv[3]))\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "while (job := store.claim('model', sys.argv[2])) is not None: print(job.id)\n"
    )
    folder = store.database.data_dir
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder), f"w{n}", open_database.url(folder)],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    taken = [worker.communicate("go\n", timeout=60)[0].split() for worker in workers]
    assert sorted(job for ids in taken for job in ids) == sorted(job.id for job in jobs)
    assert all(job.attempts == 1 for job in store.find(limit=200))


def test_an_idle_worker_takes_no_lock_and_reads_no_other_rows(store: JobStore) -> None:
    with store.database.write("jobs"):
        assert store.claim(MODEL_LANE, "w") is None  # with a write lock it would wait, and fail
    *_, last = nexts(MODEL_LANE)
    (step,) = plan(store, last)  # nothing is sorted
    assert "jobs_waiting" in step


def plan(store: JobStore, query: Any) -> list[str]:
    """Return the steps of a query; PostgreSQL would read small tables as a whole, if it were not told."""
    compiled = str(query.compile(store.database.engine, compile_kwargs={"literal_binds": True}))
    with store.database.read() as session:
        if store.database.engine.dialect.name == "sqlite":
            return [row[3] for row in session.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL enable_bitmapscan = off"))
        lines = [row[0] for row in session.execute(text(f"EXPLAIN (COSTS OFF) {compiled}"))]
        return [f"SEARCH {line} (key=?)" for line in lines if re.search(r"\b(Scan|Sort)\b", line)]


def test_what_is_asked_of_many_jobs_is_asked_of_an_index(store: JobStore) -> None:
    latest = select(JobRow.id).where(JobRow.key == "k").order_by(JobRow.created.desc()).limit(1)
    of_kind = select(JobRow.id).where(JobRow.kind == "finetune", JobRow.state.in_(["queued", "running"]))
    queries = {
        "jobs_key": [latest],
        "(key=?)": [select(JobRow.id).where(_active(["a", "b"]))],
        "jobs_kind": [of_kind],
        "jobs_due": [select(JobRow.id).where(JobRow.due.is_not(None))],
        "events_action": [select(func.max(EventRow.id)).where(EventRow.action == "A")],
        "renderings_created": [select(RenderingRow.config_key).where(RenderingRow.created < 1)],
    }
    for index, asked in queries.items():
        for query in asked:
            (step,) = plan(store, query)
            assert step.startswith("SEARCH"), step
            assert index in step, step
    loads = " ".join(plan(store, _LOADS))
    assert "SCAN jobs" not in loads
    assert "Seq Scan" not in loads


def test_recovery_of_many_waiting_jobs_is_quick_and_reads_none_of_them(store: JobStore) -> None:
    fill(store, 20_000, "queued")
    running = store.claim(MODEL_LANE, "w")
    assert running is not None
    age(store, running, 100)
    tracemalloc.start()
    begun = time.monotonic()
    assert len(store.recover(lease_s=30, max_attempts=3)) == 1
    seconds, (_, peak) = time.monotonic() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1
    assert peak < 10e6


def fill(store: JobStore, count: int, state: str) -> None:
    """Put many jobs of one state into the table."""
    columns = "id, kind, lane, state, key, priority, progress, message, payload, attempts, cancel_requested, created"
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    json = "'{\"a\": 1}'" if store.database.engine.dialect.name == "sqlite" else "'{\"a\": 1}'::json"
    values = f"'{state}' || i, 'prelabel', 'model', '{state}', '{state}' || i, 0, 0, '', {json}, 0, false, i"
    with store.database.write() as session:
        session.execute(
            text(f"INSERT INTO jobs ({columns}) {numbers} SELECT {values} FROM n".replace(":", "\\:"))
        )


def steps(store: JobStore, work: Callable[[], object]) -> int:
    """Return how many thousands of SQLite's steps something takes: a measure that no busy core disturbs."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    def watch(connection: sqlite3.Connection, _: Any) -> None:
        connection.set_progress_handler(step, 1000)

    store.database.close()  # all connections are made anew, and watched
    event.listen(store.database.engine, "connect", watch)
    work()
    event.remove(store.database.engine, "connect", watch)
    return count


def test_many_finished_jobs_and_webhooks_cost_nothing(tmp_path: Path) -> None:
    store = JobStore(Database(tmp_path))
    fill(store, 100_000, "done")
    fill(store, 5_000, "queued")
    with store.database.write() as session:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)"
        columns = "events (action, project_id, body, received)"
        values = "SELECT 'ANNOTATION_CREATED', '38', x'00', i FROM n"
        session.execute(text(f"INSERT INTO {columns} {numbers} {values}"))
    events = EventStore(store.database)

    def work() -> None:
        store.reject("prelabel", {}, "a new key", "error", "hint")
        store.reject("prelabel", {}, "done7", "error", "hint")
        submit(store)
        assert store.claim(MODEL_LANE, "w") is not None
        store.find(kind="finetune", states=(JobState.QUEUED, JobState.RUNNING))
        assert events.latest({"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "TASKS_DELETED"}) == 1_000_000
        assert len(events.find(after=999_990)) == 10

    assert steps(store, work) <= 2


def test_thousands_of_jobs_share_their_labelling_config(store: JobStore) -> None:
    config = "<View>" + "<!-- a long one -->" * 50_000 + "</View>"
    works = [Work("prelabel", {"label_config": config, "n": n}, f"k{n}") for n in range(300)]
    store.submit_many(works)
    store.submit_many([*works[:3], Work("frames", {"label_config": config}, "f")])
    claimed = store.claim(MODEL_LANE, "w")
    assert claimed is not None
    assert claimed.payload == {"label_config": config, "n": 0}
    found = store.get(claimed.id)
    assert found is not None
    assert found.payload == claimed.payload
    assert {job.payload["label_config"] for job in store.find(limit=1000)} == {config}
    with store.database.read() as session:
        assert session.execute(text("SELECT count(*) FROM configs")).scalar() == 1
        assert (
            session.execute(text("SELECT max(length(CAST(payload AS TEXT))) FROM jobs")).scalar() or 0
        ) < 100


@pytest.mark.parametrize("jump", [-7200, 7200])
def test_leases_do_not_care_what_the_clock_says(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    job = begin(store, "w")
    assert job is not None
    store.recover(30, max_attempts=3)
    now = store.database.time() + jump
    monkeypatch.setattr(store.database, "time", lambda: now)
    assert store.recover(30, max_attempts=3) == []  # a living worker keeps its job
    age(store, job, 31)
    assert [one.id for one in store.recover(30, max_attempts=3)] == [job.id]


def test_the_job_of_a_worker_that_is_known_to_be_dead_is_taken_at_once(store: JobStore) -> None:
    job = begin(store, "dead")
    assert job is not None
    assert store.recover(30, max_attempts=3, died=lambda worker: worker == "another") == []
    assert [one.id for one in store.recover(30, 3, died=lambda worker: worker == "dead")] == [job.id]


def test_lanes_tell_what_they_have_to_do(store: JobStore) -> None:
    assert [load.lane for load in store.lanes()] == list(LANES)
    assert [(load.waiting, load.retrying, load.running) for load in store.lanes()] == [(0, 0, 0)] * len(LANES)
    running = begin(store, "w")
    assert running is not None
    put_off = store.submit("prelabel", {}, "later")
    claimed = store.claim(MODEL_LANE, "w")
    assert claimed is not None
    assert claimed.id == put_off.id
    store.put_off(claimed, "away", "wait", 60.0)
    waiting = store.submit("prelabel", {}, "now")
    store.submit("frames", {}, "frames")
    with store.database.write() as session:
        session.execute(text("UPDATE jobs SET created = created - 100 WHERE id = :id"), {"id": waiting.id})
    model, light, training, _ = store.lanes()
    assert (model.waiting, model.retrying, model.running, light.waiting) == (1, 1, 1, 1)
    assert 100 <= model.oldest_s < 160
    assert training.oldest_s == 0.0
