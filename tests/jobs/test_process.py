"""Real worker processes: killed, stopped, working side by side."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from svac_backend.jobs.engine import INTERACTIVE, Job, JobEngine, JobState
from svac_backend.settings import Settings
from svac_backend.store.database import Database

LEASE_S = 1.0
LONG = 10_000  # steps of 20 ms: it never ends by itself within a test

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts workers on the settings' data folder; what is left of them is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("slow_worker.py")
        command = [sys.executable, str(script), str(settings.data_dir), str(LEASE_S)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


@pytest.fixture
def engine(settings: Settings, database: Database) -> JobEngine:
    return JobEngine(database)


def until(engine: JobEngine, job: Job, condition: Callable[[Job], bool], seconds: float = 20) -> Job:
    """Return the job once the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition(now := engine.get(job.id)):
        assert time.monotonic() < deadline, f"still {now}"
        time.sleep(0.02)
    return now


def test_a_job_whose_worker_is_killed_runs_again_elsewhere(engine: JobEngine, start: Start) -> None:
    job = engine.submit("prelabel", {"to": 40}, "k")
    victim = start()
    until(engine, job, lambda now: now.progress > 0.1)
    victim.send_signal(signal.SIGKILL)
    victim.wait(timeout=10)
    assert engine.get(job.id).state is JobState.RUNNING  # nobody noticed yet

    heir = start()
    done = until(engine, job, lambda now: not now.active)
    assert (done.state, done.attempts) == (JobState.DONE, 2)
    assert done.result is not None
    assert done.result["counted"] == 40
    assert f":{heir.pid}:" in done.result["by"]


@pytest.mark.parametrize("jump", [-7200, 7200])
def test_a_dead_workers_job_is_taken_over_within_seconds_whatever_the_clock_says(
    engine: JobEngine, start: Start, database: Database, jump: float
) -> None:
    job = engine.submit("prelabel", {"to": 40}, "k")
    victim = start()
    until(engine, job, lambda now: now.progress > 0.1)
    victim.kill()
    victim.wait(timeout=10)
    with database.write() as session:  # as it is when the clock was set after its death
        session.execute(text("UPDATE jobs SET heartbeat = heartbeat - :s"), {"s": jump})
        session.execute(text("UPDATE workers SET heartbeat = heartbeat - :s"), {"s": jump})
    start()
    begun = time.monotonic()
    done = until(engine, job, lambda now: now.attempts == 2)
    assert time.monotonic() - begun < 15
    assert len(engine.workers.alive(30)) == 1
    assert done.attempts == 2


def test_sigterm_puts_the_job_back_at_once_and_ends_with_status_0(engine: JobEngine, start: Start) -> None:
    job = engine.submit("prelabel", {"to": LONG}, "k")
    worker = start()
    until(engine, job, lambda now: now.state is JobState.RUNNING and now.progress > 0)
    begun = time.monotonic()
    worker.terminate()
    assert worker.wait(timeout=10) == 0
    assert time.monotonic() - begun < 5
    now = engine.get(job.id)
    assert (now.state, now.attempts) == (JobState.QUEUED, 0)
    assert engine.workers.alive(60) == []


def test_a_living_worker_keeps_a_job_that_reports_nothing(engine: JobEngine, start: Start) -> None:
    """Longer than the lease, without a word: the heartbeat alone must hold it, though another worker looks for it."""
    job = engine.submit("prelabel", {"to": 110, "deaf": True}, "k")
    start()
    until(engine, job, lambda now: now.state is JobState.RUNNING)
    start()
    done = until(engine, job, lambda now: not now.active)
    assert (done.state, done.attempts) == (JobState.DONE, 1)


def test_cancel_priority_and_lanes(engine: JobEngine, start: Start) -> None:
    running = engine.submit("prelabel", {"to": LONG}, "running")
    start()
    until(engine, running, lambda now: now.state is JobState.RUNNING)
    assert len(engine.workers.alive(60)) == 1
    batch = engine.submit("prelabel", {"to": 1}, "batch")
    urgent = engine.submit("prelabel", {"to": 1}, "urgent", priority=INTERACTIVE)
    frames = engine.submit("frames", {"to": 1}, "frames")

    # Frames do not wait for the model.
    assert until(engine, frames, lambda now: not now.active).state is JobState.DONE
    assert engine.get(running.id).state is JobState.RUNNING

    engine.cancel(running.id)
    assert until(engine, running, lambda now: not now.active).state is JobState.CANCELLED
    until(engine, batch, lambda now: not now.active)
    first, last = engine.get(urgent.id).finished, engine.get(batch.id).started
    assert first is not None
    assert last is not None
    assert first <= last
