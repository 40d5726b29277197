"""Whole projects: each task is predicted once, as one worker alone would, and people do not wait behind them."""

from __future__ import annotations

import math
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any, Literal

from lab.benchmarks.server import COMMAND
from lab.drill.cluster import ENVIRONMENT, caught
from lab.drill.outcome import Drill, Figure, Options, Outcome
from lab.drill.stage import Stage, clip, predict_body, task
from svac_backend.errors import SvacError
from svac_backend.jobs.bulk import bulk_work
from svac_backend.jobs.engine import JobEngine
from svac_backend.settings import Settings
from svac_backend.store.database import Database

Engine = Literal["local", "ray"]
ENGINES: dict[Engine, Mapping[str, str]] = {"local": {}, "ray": ENVIRONMENT}
FRAMES = 4
# Tasks of the project behind which a person must not wait, and how often they ask.
BEHIND, ASKED, TURNS = 500, 30, 3
# A person may wait this much longer than when nothing else is done, plus one frame window of the project: the time of a
# short task is taken for that.
FACTOR = 1.5


def add_tasks(stage: Stage, count: int) -> list[int]:
    """Add tasks with short clips, which differ, to the project."""
    here = stage.label_studio
    here.clip_of = partial(clip, frames=FRAMES)
    numbers = [here.add_task({}) for _ in range(count)]
    for number in numbers:
        here.tasks[number].update(short(number)["data"])
    return numbers


def short(number: int) -> dict[str, Any]:
    """Return a task with a short clip."""
    return task(number, frames=[f"/data/upload/1/{number}-{i}.jpg" for i in range(FRAMES)])


def predicted(
    stage: Stage, count: int, *, kill: bool, patience_s: float
) -> tuple[dict[int, list[Any]], float]:
    """Have a project predicted by the command; return the regions of each task's predictions, and the seconds.

    Args:
        count: how many tasks.
        kill: kill the worker's process when half of the tasks are done.
        patience_s: how long nothing may come.

    Raises:
        SvacError: the command fails, or does not end.
    """
    add_tasks(stage, count)
    here = stage.label_studio
    begun = time.monotonic()
    with (stage.root / "command.log").open("ab") as log:
        command = subprocess.Popen(
            [*COMMAND, "prelabel-project", "--project", "1", "--json"],
            env=stage.environment,
            cwd=stage.root,
            stdout=log,
            stderr=log,
        )
    had, since = 0, begun
    while command.poll() is None:
        now = len(here.counts())
        if now != had:
            had, since = now, time.monotonic()
        if kill and now >= count / 2:
            kill = False
            os.kill(caught(stage), signal.SIGKILL)
        if time.monotonic() - since > patience_s:
            command.kill()
            raise SvacError(f"Only {had} of {count} tasks were predicted.", stage.log("worker")[-1500:])
        time.sleep(0.2)
    if kill or command.returncode:
        raise SvacError(f"The command ended with {command.returncode}.", stage.log("command")[-1500:])
    seconds = time.monotonic() - begun
    found: dict[int, list[Any]] = {}
    for one in here.predictions.values():
        found.setdefault(one["task"], []).append((one["model_version"], one["score"], one["result"]))
    return found, seconds


def bulk(options: Options) -> Outcome:
    """Predict a project on Ray, whose worker is killed in the middle, and on a worker alone; compare all masks."""
    found: dict[Engine, dict[int, list[Any]]] = {}
    figures = [Figure("tasks", options.bulk)]
    for engine, environment in ENGINES.items():
        with (
            options.folder("bulk") as root,
            Stage(root, environment=environment, database=options.database, seed=options.seed) as stage,
        ):
            found[engine], seconds = predicted(
                stage, options.bulk, kill=engine == "ray", patience_s=options.patience_s
            )
            begun_again = stage.query("SELECT count(*) FROM jobs WHERE kind = 'prelabel' AND attempts > 1")
        figures.append(Figure(f"{engine}: {options.bulk} tasks", seconds, unit="s"))
        if engine == "ray":
            figures.append(Figure("jobs begun again", begun_again[0][0]))
    ray, local = found["ray"], found["local"]
    figures += [
        Figure("lost", options.bulk - len(ray), 0),
        Figure("doubled", sum(len(one) - 1 for one in ray.values()), 0),
        Figure("without a mask", sum(not one[0][2] for one in ray.values()), 0),
        Figure("other than on a worker alone", sum(ray.get(n) != one for n, one in local.items()), 0),
    ]
    return Outcome("bulk", figures, f"clips of {FRAMES} frames; the actor is killed when half are done")


def waits(stage: Stage, count: int) -> list[float]:
    """Ask for new tasks as a person does in the editor, one after the other; return how long each took, in seconds.

    Raises:
        SvacError: an answer has no masks.
    """
    found = []
    for _ in range(count):
        (number,) = add_tasks(stage, 1)
        typed = {"value": {"text": ["the red square"]}, "from_name": "prompt", "to_name": "frames"}
        context = {"result": [{"id": "typed", "type": "textarea", **typed}]}
        begun = time.monotonic()
        answer = stage.post("/predict", predict_body([short(number)], context)).raise_for_status().json()
        found.append(time.monotonic() - begun)
        (item,) = answer["results"]
        if not any("rle" in region["value"] for region in item["result"]):
            raise SvacError("A person was answered without masks.", str(item)[:500])
        stage.label_studio.store(number, item)  # so that the project's work does not do it, too
        time.sleep(stage.random.uniform(0.0, 1.0))
    return found


def _times_of_tasks(stage: Stage, since: float) -> list[float]:
    """Wait for three tasks of the project; return the seconds that each took."""
    text = (
        "SELECT finished - started FROM jobs WHERE kind = 'prelabel' AND priority < 0 AND state = 'done' "
        f"AND created >= {since!r}"
    )
    stage.until(lambda: len(stage.query(text)) >= 3, "three tasks of the project", 120)
    return [seconds for (seconds,) in stage.query(text)]


def p95(values: list[float]) -> float:
    """Return what 95 of 100 values do not exceed."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def annotator(engine: Engine, options: Options) -> Outcome:
    """A person asks while a project of 500 tasks is predicted, against when nothing else is done."""
    name = f"annotator-{engine}"
    environment = {**ENGINES[engine], "SVAC_PREDICT_WAIT_S": "50"}
    with (
        options.folder(name) as root,
        Stage(root, environment=environment, database=options.database, seed=options.seed) as stage,
    ):
        waits(stage, 3)  # the model warms up
        idle: list[float] = []
        meanwhile: list[float] = []
        own: list[float] = []
        settings = Settings(_env_file=None, data_dir=stage.data, database_url=stage.database_url or None)
        with closing(Database.from_settings(settings)) as database:
            jobs = JobEngine(database)
            # In turns, since other work on this machine comes and goes.
            for _ in range(TURNS):
                idle += waits(stage, ASKED // TURNS)
                add_tasks(stage, BEHIND)
                (job,) = jobs.submit_many([bulk_work("1")])
                own += _times_of_tasks(stage, job.started or job.created)
                meanwhile += waits(stage, ASKED // TURNS)
                if not jobs.get(job.id).active:
                    raise SvacError("The project was predicted too soon.", "It needs more tasks.")
                jobs.cancel(job.id)
                stage.until(lambda: not any(jobs.active()), "an end of the project's work", 120)
    window = statistics.median(own)
    figures = [
        Figure("median, idle", 1000 * statistics.median(idle), unit="ms"),
        Figure("p95, idle", 1000 * p95(idle), unit="ms"),
        Figure("a task of the project", 1000 * window, unit="ms"),
        Figure("median, meanwhile", 1000 * statistics.median(meanwhile), unit="ms"),
        Figure("p95, meanwhile", 1000 * p95(meanwhile), 1000 * (FACTOR * p95(idle) + window), "ms"),
    ]
    return Outcome(
        name, figures, f"{ASKED} requests each; a project of {BEHIND} tasks, clips of {FRAMES} frames"
    )


BULK = [
    Drill(
        "bulk",
        "a whole project on Ray, its worker killed in the middle; masks against those of a worker alone",
        bulk,
        lambda o: 120 + 2 * o.bulk,
    ),
    *(
        Drill(
            f"annotator-{engine}",
            f"a person asks while a project of {BEHIND} tasks is predicted, engine {engine}",
            partial(annotator, engine),
            lambda _: 180,
        )
        for engine in ENGINES
    ),
]
