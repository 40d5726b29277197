"""Fine-tuning as a job: in a process of its own, resumed after any kill. The training is a stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from svac_backend.jobs import learn as module
from svac_backend.jobs.engine import Job, JobEngine, JobState
from svac_backend.jobs.learn import FinetuneHandler, settings_to_json
from svac_backend.jobs.process import WorkerProcess
from svac_backend.learning.collect import Collector
from svac_backend.learning.triggers import FINETUNE, Trigger
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.database import Database
from svac_backend.versions import Registry

ROOT = Path(__file__).resolve().parents[2]
TRAINING = Path(__file__).with_name("slow_training.py")
LEASE_S = 1.0

Command = Callable[[Path], list[str]]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins import from `tests`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """With SQLite; on both databases in tests that use `open_database`."""
    given: dict[str, Any] = {"model": "svac-tiny", "data_dir": tmp_path / "data"}
    if "open_database" in request.fixturenames:
        given["database_url"] = SecretStr(request.getfixturevalue("open_database").url(tmp_path))
    return Settings(_env_file=None, **given)


def command(steps: int, seconds: float, fault: str = "") -> Command:
    return lambda folder: [sys.executable, str(TRAINING), str(folder), str(steps), str(seconds), fault]


def correct(database: Database, task: int = 7) -> None:
    about = Annotation(
        "38",
        str(task),
        task,
        str(task),
        AnnotationState.USED,
        video="v",
        who="ann",
        saved=1.0,
        video_url="/v.mp4",
    )
    track = Track("obj1", "dog", "the dog", {2: CocoRle(size=[4, 5], counts="04d0")}, {2: 1.0})
    CorrectionStore(database).put(about, [Correction(about, track, frozenset({2}), frozenset({3}))])


@pytest.fixture
def worker(settings: Settings, database: Database) -> Iterator[Callable[[Command], JobEngine]]:
    """Starts a worker on threads of this process."""
    started: list[WorkerProcess] = []

    def start(what: Command) -> JobEngine:
        engine = JobEngine(database)
        handler = FinetuneHandler(settings, database, Collector(settings, database), what)
        started.append(WorkerProcess(engine, {FINETUNE: handler, "prelabel": lambda _: {}}))
        started[-1].start()
        return engine

    yield start
    for one in started:
        one.stop()


def until(engine: JobEngine, job: Job, condition: Callable[[Job], bool], seconds: float = 30) -> Job:
    deadline = time.monotonic() + seconds
    while not condition(now := engine.get(job.id)):
        assert time.monotonic() < deadline, f"still {now}"
        time.sleep(0.02)
    return now


def ask(settings: Settings, database: Database, engine: JobEngine) -> Job:
    return Trigger(settings, database, engine.submit_many).request("a test").job


def diary(settings: Settings, job: Job) -> list[tuple[int, int]]:
    """(process id, first step) of each process that trained."""
    lines = (settings.data_dir / Kind.RUNS.value / job.id / "diary.txt").read_text().splitlines()
    return [(int(line.split()[0]), int(line.split()[2])) for line in lines]


@pytest.mark.usefixtures("open_database")
def test_a_better_version_is_taken_in_and_promoted(
    settings: Settings, database: Database, worker: Callable[[Command], JobEngine]
) -> None:
    correct(database)
    engine = worker(command(3, 0.01))
    job = engine.wait(ask(settings, database, engine).id, timeout=60)
    assert job.state is JobState.DONE, job.error
    registry = Registry(settings, database)
    version = registry.serving(verify=True)
    assert version is not None
    assert job.result is not None
    assert (job.result["version"], job.result["promoted"], job.result["corrections"]) == (
        version.name,
        True,
        1,
    )
    assert job.message == f"{version.name}: Promoted. J&F rose by 30."
    assert (version.job_id, version.parent, version.figures) == (job.id, "", {"gain": 30.0})
    assert version.data["expressions"] == ["the dog"]
    assert (version.data["people"], version.data["drawn_frames"], version.data["tasks"]) == (
        ["ann"],
        1,
        ["38/7"],
    )
    assert not (settings.data_dir / Kind.RUNS.value / job.id / "out" / "checkpoints").exists()

    again = engine.wait(ask(settings, database, engine).id, timeout=60)
    second = registry.serving(verify=True)
    assert again.state is JobState.DONE
    assert second is not None
    assert second.parent == version.id  # it goes on from the one that served


def test_too_few_corrections_are_said(
    settings: Settings, database: Database, worker: Callable[[Command], JobEngine]
) -> None:
    engine = worker(command(1, 0.01))
    job = engine.wait(ask(settings, database, engine).id, timeout=60)
    assert (job.state, job.message) == (JobState.DONE, "8 corrected videos are missing.")
    assert Registry(settings, database).store.all() == []


def test_a_process_that_is_killed_goes_on_where_it_was(
    settings: Settings, database: Database, worker: Callable[[Command], JobEngine]
) -> None:
    correct(database)
    engine = worker(command(30, 0.05))
    job = ask(settings, database, engine)
    until(engine, job, lambda now: now.progress > 0.2)
    ((pid, _),) = diary(settings, job)
    os.kill(pid, signal.SIGKILL)
    done = until(engine, job, lambda now: not now.active)
    assert done.state is JobState.DONE, done.error
    assert done.attempts == 1
    assert done.result is not None
    assert done.result["steps"] == 30
    (_, first), (_, second) = diary(settings, job)
    assert (first, second > 5) == (0, True)


def test_a_process_that_dies_each_time_is_given_up(
    settings: Settings,
    database: Database,
    worker: Callable[[Command], JobEngine],
) -> None:
    correct(database)
    engine = worker(lambda folder: [sys.executable, "-c", "import os; os._exit(9)"])
    job = engine.wait(ask(settings, database, engine).id, timeout=60)
    assert job.state is JobState.FAILED
    assert job.error == f"The training process died {module.MAX_DEATHS} times (status 9)."
    assert "memory" in str(job.hint)


def test_what_the_process_says_is_the_jobs_error(
    settings: Settings, database: Database, worker: Callable[[Command], JobEngine]
) -> None:
    correct(database)
    engine = worker(command(3, 0.01, "refuse"))
    job = engine.wait(ask(settings, database, engine).id, timeout=60)
    assert (job.state, job.error, job.hint) == (JobState.FAILED, "Memory ran out.", "Train a smaller model.")


def test_a_cancelled_training_ends_its_process_and_leaves_nothing(
    settings: Settings, database: Database, worker: Callable[[Command], JobEngine]
) -> None:
    correct(database)
    engine = worker(command(10_000, 0.02))
    job = ask(settings, database, engine)
    until(engine, job, lambda now: now.progress > 0)
    ((pid, _),) = diary(settings, job)
    engine.cancel(job.id)
    assert until(engine, job, lambda now: not now.active).state is JobState.CANCELLED
    assert not psutil.pid_exists(pid)
    assert not (settings.data_dir / Kind.RUNS.value / job.id).exists()


def test_predictions_go_on_meanwhile_and_a_second_request_starts_no_second_run(
    settings: Settings, database: Database, worker: Callable[[Command], JobEngine]
) -> None:
    correct(database)
    engine = worker(command(10_000, 0.02))
    job = ask(settings, database, engine)
    until(engine, job, lambda now: now.progress > 0)
    for number in range(3):
        prelabel = engine.wait(engine.submit("prelabel", {}, f"k{number}").id, timeout=10)
        assert prelabel.state is JobState.DONE
    assert ask(settings, database, engine).id == job.id
    assert len(engine.find(kind=FINETUNE)) == 1
    assert len(diary(settings, job)) == 1
    engine.cancel(job.id)
    until(engine, job, lambda now: not now.active)


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts real workers; what is left of them is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("training_worker.py")
        arguments = [str(settings.data_dir), str(LEASE_S), "40", "0.05"]
        started.append(subprocess.Popen([sys.executable, str(script), *arguments], stderr=subprocess.DEVNULL))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=20)


def test_after_kill_9_of_the_worker_the_run_goes_on_with_the_same_data(
    settings: Settings, database: Database, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    correct(database)
    engine = JobEngine(database)
    job = ask(settings, database, engine)
    victim = start()
    until(engine, job, lambda now: now.progress > 0.2)
    ((pid, _),) = diary(settings, job)
    victim.kill()
    victim.wait(timeout=10)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid):  # the process that trained ends by itself
        assert time.monotonic() < deadline
        time.sleep(0.05)
    correct(database, task=8)  # comes too late for this run

    start()
    done = until(engine, job, lambda now: not now.active)
    assert done.state is JobState.DONE, done.error
    assert done.attempts == 2
    assert done.result is not None
    assert (done.result["steps"], done.result["corrections"]) == (40, 1)
    (_, first), (_, second) = diary(settings, job)
    assert (first, second > 5) == (0, True)


def test_a_worker_that_is_stopped_gives_the_run_back(
    settings: Settings, database: Database, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    correct(database)
    engine = JobEngine(database)
    job = ask(settings, database, engine)
    worker = start()
    until(engine, job, lambda now: now.progress > 0.1)
    ((pid, _),) = diary(settings, job)
    worker.terminate()
    assert worker.wait(timeout=15) == 0
    assert not psutil.pid_exists(pid)
    now = engine.get(job.id)
    assert (now.state, now.attempts) == (JobState.QUEUED, 0)


def test_secrets_go_to_the_process_that_trains_and_to_no_file(settings: Settings) -> None:
    given = settings.model_copy(update={"label_studio_api_key": SecretStr("ab" * 20), "preset": "sa2va"})
    sent = settings_to_json(given)
    assert sent["label_studio_api_key"] == "ab" * 20
    assert Settings(_env_file=None, **sent) == given


def test_versions_that_train_at_once_take_turns(settings: Settings, database: Database) -> None:
    """Two workers on one machine: the real process that trains waits for the lock."""
    from svac_backend.learning.process import _alone

    told: list[str] = []
    stop = threading.Event()

    def tell(_: float, message: str) -> None:
        told.append(message)
        stop.set()

    with _alone(settings, tell, stop.is_set):
        assert told == []
        with pytest.raises(module.SvacError, match="stopped"), _alone(settings, tell, stop.is_set):
            pass
    assert told == ["Waiting for another fine-tuning on this machine"]
    with _alone(settings, tell, stop.is_set):
        assert len(told) == 1
