"""Faults: tasks are submitted, something breaks and is mended, and what became of the tasks is counted."""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.drill.label_studio import Mood
from lab.drill.outcome import Database, Drill, Figure, Options, Outcome
from lab.drill.stage import FINAL, Stage
from svac_backend.errors import SvacError
from svac_backend.jobs.engine import LEASE_S
from svac_backend.store.database import FILE_NAME

Submit = Callable[[], list[int]]
# Has tasks submitted, breaks something, mends it, and returns: recovery counts from then.
Strike = Callable[[Stage, Submit, Options], None]

DISK_MB = 48
_HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""
_HOLD_TABLES = """
import psycopg, sys, time
connection = psycopg.connect(sys.argv[1])
connection.execute("LOCK TABLE jobs, events, workers, predictions IN EXCLUSIVE MODE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@dataclass(frozen=True)
class Round:
    """What became of the tasks of a round.

    Attributes:
        lost: without a prediction, and nothing is left that would make one.
        doubled: predictions beyond one for each task.
        changed: annotations that are not as they were, and calls that would have changed one.
        failed: tasks without a prediction whose job has failed for good.
        late: tasks whose job still waits or runs when patience has ended.
        seconds: from the end of the fault until all was done.
        errors: what failed jobs say.
    """

    lost: int
    doubled: int
    changed: int
    failed: int
    late: int
    seconds: float
    errors: frozenset[str] = frozenset()


def count(stage: Stage, numbers: list[int], seconds: float) -> Round:
    """Count what became of some tasks."""
    here, jobs = stage.label_studio, stage.jobs(numbers)
    sent = here.counts()
    bare = {str(number) for number in numbers if not sent[number]}
    active = {job["task_id"] for job in jobs if job["state"] not in FINAL}
    failed = {job["task_id"] for job in jobs if job["state"] == "failed"} & bare - active
    changed = sum(
        here.annotations[n] != [{"id": 1000 + n, "task": n, "result": [{"id": "by-hand"}]}] for n in numbers
    )
    return Round(
        lost=len(bare - failed - active),
        doubled=sum(max(0, sent[number] - 1) for number in numbers),
        changed=changed + len(here.writes),
        failed=len(failed),
        late=len(active),
        seconds=seconds,
        errors=frozenset(str(job["error"]) for job in jobs if job["state"] == "failed"),
    )


def play(stage: Stage, strike: Strike, options: Options) -> Round:
    """Play one round."""
    numbers: list[int] = []

    def submit() -> list[int]:
        numbers.extend(stage.submit(options.tasks))
        return numbers

    strike(stage, submit, options)

    def ended() -> bool:
        return all(job["state"] in FINAL for job in stage.jobs(numbers))

    try:
        seconds = stage.until(ended, "an end of all jobs", options.patience_s)
    except SvacError:
        seconds = options.patience_s
    time.sleep(1.0)  # what comes twice comes late
    return count(stage, numbers, seconds)


def summary(name: str, rounds: list[Round], note: str = "") -> Outcome:
    """Return what rounds come to: counts are added up, seconds are the median and the worst."""
    total: Counter[str] = Counter()
    for one in rounds:
        total.update(
            lost=one.lost, doubled=one.doubled, changed=one.changed, failed=one.failed, late=one.late
        )
    wanted = ("lost", "doubled", "changed", "failed", "late")
    figures = [Figure("rounds", len(rounds)), *(Figure(what, total[what], 0) for what in wanted)]
    seconds = [one.seconds for one in rounds]
    figures += [
        Figure("median", statistics.median(seconds), unit="s"),
        Figure("worst", max(seconds), unit="s"),
    ]
    errors = sorted({error for one in rounds for error in one.errors})
    return Outcome(name, figures, " ".join([note, *errors]).strip())


def kill(victims: tuple[str, ...], stage: Stage, submit: Submit, options: Options) -> None:
    """Kill processes at any moment of the work, and start them again."""
    stage.at_work(submit())
    time.sleep(stage.random.uniform(0.0, 3.0))
    for name in victims:
        stage.kill(name)
    for name in victims:
        stage.start(name)


def away(stage: Stage, submit: Submit, options: Options) -> None:
    """Label Studio refuses connections."""
    stage.label_studio.leave()
    try:
        submit()
        time.sleep(options.away_s)
    finally:
        stage.label_studio.come_back()


def moody(mood: Mood, stage: Stage, submit: Submit, options: Options) -> None:
    """Label Studio answers, but not as it should."""
    stage.label_studio.mood = mood
    try:
        submit()
        time.sleep(options.away_s)
    finally:
        stage.label_studio.mood = "well"


def full(stage: Stage, submit: Submit, options: Options) -> None:
    """The disk of the data folder is full: a file takes all that is left; without a disk of its own, a limit does."""
    stage.at_work(submit())
    ballast = stage.data / "ballast"
    try:
        if os.path.ismount(stage.data):
            with ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        _limit(stage, 4096)
    except OSError:
        pass  # it is full now
    time.sleep(options.away_s)
    ballast.unlink(missing_ok=True)
    _limit(stage, resource.RLIM_INFINITY)


def _limit(stage: Stage, size: int) -> None:
    for name in stage.processes:
        for pid in stage._members(name):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def locked(stage: Stage, submit: Submit, options: Options) -> None:
    """Another program holds the database's write lock."""
    stage.at_work(submit())
    command = [sys.executable, "-c", _HOLD, str(stage.data / FILE_NAME), str(options.away_s)]
    if stage.database_url:
        command = [sys.executable, "-c", _HOLD_TABLES, stage.database_url, str(options.away_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.wait()


def kill_database(stage: Stage, submit: Submit, options: Options) -> None:
    """PostgreSQL dies at any moment of the work, and comes back a while later."""
    assert stage.postgresql is not None
    stage.at_work(submit())
    time.sleep(stage.random.uniform(0.0, 3.0))
    stage.postgresql.kill()
    time.sleep(stage.random.uniform(0.0, min(30.0, options.away_s)))
    stage.postgresql.start()


def clock_back(stage: Stage, submit: Submit, options: Options) -> None:
    """The clock goes back two hours, and the worker dies."""
    _set_clock(stage, 0)
    stage.at_work(submit())
    _set_clock(stage, -7200)
    stage.kill("worker")
    stage.start("worker")


def clock_forth(stage: Stage, submit: Submit, options: Options) -> None:
    """The clock goes forward two hours while a worker works."""
    _set_clock(stage, -7200)
    stage.at_work(submit())
    _set_clock(stage, 0)


def _set_clock(stage: Stage, seconds: int) -> None:
    (stage.root / "clock").write_text(str(seconds))


def frozen(stage: Stage, submit: Submit, options: Options) -> None:
    """A worker is frozen between "is there a prediction?" and "create one", and thaws when another had its job."""
    caught: list[str] = []

    def freeze() -> None:
        if not caught:
            caught.append("worker")
            stage.pause("worker", signal.SIGSTOP)

    stage.label_studio.on_listed = freeze
    submit()
    stage.until(lambda: bool(caught), "a look for predictions")
    stage.start("worker", "other")
    time.sleep(LEASE_S + 15)
    stage.pause("worker", signal.SIGCONT)
    time.sleep(5)
    stage.kill("other", signal.SIGTERM)
    stage.label_studio.on_listed = lambda: None


@contextmanager
def _scene(name: str, options: Options) -> Iterator[tuple[Stage, str]]:
    """Yield where a fault takes place, and how it is done there."""
    with ExitStack() as stack:
        root, note, environment = stack.enter_context(options.folder(name)), "", {}
        if name == "disk-full":
            note = (
                f"a tmpfs of {DISK_MB} MB" if _mount(root / "data", stack) else "RLIMIT_FSIZE of 4096 bytes"
            )
        if name.startswith("clock"):
            environment, note = _clock(root), "a library in front of the C library's clock"
        # The one fault that the file cannot have has a server on its own.
        database: Database = "postgresql" if name == "kill-postgresql" else options.database
        stage = Stage(root, environment=environment, database=database, seed=options.seed)
        yield stack.enter_context(stage), note


def _clock(root: Path) -> dict[str, str]:
    """Return the environment of processes whose time of day can be set.

    Not by libfaketime: 0.9.10 makes every `time.sleep` of Python fail when the monotonic clock is to be left alone.
    """
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-O2",
        "-o",
        str(root / "clock.so"),
        str(Path(__file__).with_name("clock.c")),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SvacError(f"The clock cannot be set: {error}.", "Install a C compiler, `cc`.") from error
    return {"LD_PRELOAD": str(root / "clock.so"), "DRILL_CLOCK": str(root / "clock")}


def _mount(folder: Path, stack: ExitStack) -> bool:
    """Put a small disk there; False where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)
    return True


def _drill(name: str, strike: Strike, options: Options) -> Outcome:
    with _scene(name, options) as (stage, note):
        return summary(name, [play(stage, strike, options) for _ in range(options.rounds)], note)


_STRIKES: dict[str, tuple[str, Strike]] = {
    "kill-worker": ("kill -9 of the worker during work", partial(kill, ("worker",))),
    "kill-server": ("kill -9 of the web process during work", partial(kill, ("serve",))),
    "kill-both": ("kill -9 of both", partial(kill, ("serve", "worker"))),
    "kill-postgresql": ("kill -9 of PostgreSQL during work", kill_database),
    "away": ("Label Studio refuses connections", away),
    "answers-500": ("Label Studio answers 500", partial(moody, "500")),
    "answers-403": ("Label Studio answers 403", partial(moody, "403")),
    "answers-slowly": ("Label Studio does what it is asked late, and answers later", partial(moody, "slow")),
    "answers-half": ("Label Studio does what it is asked, and breaks off its answer", partial(moody, "half")),
    "disk-full": ("the data folder's disk is full", full),
    "clock-back": ("the clock goes back 2 h, and the worker dies", clock_back),
    "clock-forth": ("the clock goes forward 2 h during work", clock_forth),
    "locked": ("another program holds the database", locked),
    "frozen-worker": ("a worker freezes between looking and pushing, beyond its lease", frozen),
}

# Seconds of a round, besides those that the fault lasts: what was put off is tried again up to a minute later.
_ROUND_S = {"kill-worker": 25, "kill-server": 15, "kill-both": 30, "kill-postgresql": 45, "frozen-worker": 75}
_LASTING = frozenset(
    {"away", "answers-500", "answers-403", "answers-slowly", "answers-half", "disk-full", "locked"}
)


def _seconds(name: str, options: Options) -> float:
    lasts = options.away_s if name in _LASTING else 0.0
    return 30 + options.rounds * (lasts + _ROUND_S.get(name, 35))


FAULTS = [
    Drill(name, what, partial(_drill, name, strike), partial(_seconds, name))
    for name, (what, strike) in _STRIKES.items()
]
