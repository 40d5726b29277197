"""Growth: how a large database answers beside an empty one, and how fast jobs of the dead are put back there."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

from lab.benchmarks.server import post
from lab.drill.outcome import Drill, Figure, Options, Outcome
from lab.drill.stage import Stage, predict_body, task
from svac_backend.store.tables import Base

ASKED = 150
WAITING, RUNNING = 20_000, 3
_RECOVER = """
import resource, sys, time
from pathlib import Path
from svac_backend.jobs.engine import JobEngine, JobState
from svac_backend.store.database import Database
engine = JobEngine(Database(Path(sys.argv[1]), sys.argv[2]))
before, seconds, running = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0, 1
for _ in range(20):  # silence is measured from the first look on
    begun = time.monotonic()
    engine.recover(1.0)
    seconds = max(seconds, time.monotonic() - begun)
    running = engine.store.counts()[JobState.RUNNING]
    if not running:
        break
    time.sleep(0.3)
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, running)
"""


def copies(stage: Stage, table: str, count: int, **changes: str) -> None:
    """Multiply the first row of a table, whatever its columns are; `changes` are SQL in terms of `n`, from 1 on."""
    names = [name for name in Base.metadata.tables[table].columns.keys() if (table, name) != ("events", "id")]  # noqa: SIM118
    values = [changes.get(name, name) for name in names]
    stage.change(
        f"WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {count}) "
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
        f"FROM counted, (SELECT * FROM {table} LIMIT 1) AS first"
    )


def _id(stage: Stage, letter: str) -> str:
    """Return SQL of an id of 32 characters, different for each `n`."""
    if stage.database_url:
        return f"'{letter}' || lpad(to_hex(n), {32 - len(letter)}, '0')"
    return f"printf('{letter}%0{32 - len(letter)}x', n)"


def _sample(stage: Stage, path: str, body: Any) -> float:
    took, status = post(("127.0.0.1", stage.port), path, json.dumps(body).encode())
    assert status < 300, f"{path} answered {status}"
    return took * 1000


def growth(options: Options) -> Outcome:
    """Fill one of two databases, ask both in turns, then have jobs of a dead worker put back."""
    hook = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "task": task(1), "annotation": {"id": 1}}
    with ExitStack() as stack:
        empty, grown = (
            stack.enter_context(
                Stage(stack.enter_context(options.folder(name)), database=options.database, worker=False)
            )
            for name in ("empty", "grown")
        )
        for stage in (empty, grown):
            _sample(stage, "/webhook", hook)
            stage.submit(1)
        begun = time.monotonic()
        copies(grown, "events", options.events)
        ended = {"state": "'done'", "finished": "created + n", "created": "created - n", "started": "created"}
        copies(grown, "jobs", options.jobs, id=_id(grown, ""), key="key || n", **ended)
        filled = time.monotonic() - begun
        milliseconds: dict[tuple[str, str], list[float]] = {}
        for turn in range(ASKED):
            for name, stage in (("empty", empty), ("grown", grown)):
                asked = predict_body([task(1000 + turn)])
                for path, body in (("/predict", asked), ("/webhook", hook)):
                    milliseconds.setdefault((name, path), []).append(_sample(stage, path, body))
        figures = [Figure("filled in", filled, unit="s")]
        for path in ("/predict", "/webhook"):
            p95 = [statistics.quantiles(milliseconds[name, path], n=20)[18] for name in ("empty", "grown")]
            figures.append(Figure(f"{path} p95 empty", p95[0], unit="ms"))
            figures.append(Figure(f"{path} p95 grown", p95[1], 2 * p95[0], "ms"))
        again = {"key": "key || state || n", "finished": "NULL", "created": "created - n"}
        copies(grown, "jobs", WAITING, id=_id(grown, "q"), state="'queued'", **again)
        dead = {"state": "'running'", "worker_id": "'dead'", "heartbeat": "created - 3600", "attempts": "1"}
        copies(grown, "jobs", RUNNING, id=_id(grown, "r"), **{**again, "key": "key || 'r' || n", **dead})
        command = [sys.executable, "-c", _RECOVER, str(grown.data), grown.database_url]
        done = subprocess.run(command, env=grown.environment, capture_output=True, text=True, check=True)
        seconds, megabytes, left = map(float, done.stdout.split()[-3:])
        figures.append(Figure(f"longest look beside {WAITING} waiting jobs", seconds, 1.0, "s"))
        figures.append(Figure("its memory", megabytes, 100, "MB"))
        figures.append(Figure("jobs of the dead not put back", left, 0))
    return Outcome("growth", figures, f"{options.events} webhooks, {options.jobs} finished jobs")


GROWTH = [
    Drill("growth", "a large database beside an empty one; recovery of many jobs", growth, lambda _: 240)
]
