"""A week of use: tasks are predicted, corrected and predicted again; then months pass, and what is old goes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from lab.drill.outcome import Drill, Figure, Options, Outcome
from lab.drill.stage import CONFIG, FINAL, HEIGHT, WIDTH, Stage, task
from svac_backend.jobs.retention import measure
from svac_backend.masks.brush import encode_brush
from svac_backend.settings import Settings
from svac_backend.store.database import Database

PORTION = 20
LATER_DAYS = 120.0
# What a person made; none of it may go.
KEPT = ("corrections",)
_TIMES = {
    "jobs": ("created", "started", "finished", "heartbeat"),
    "events": ("received",),
    "predictions": ("created",),
    "renderings": ("created",),
    "parts": ("updated",),
}


def corrected(stage: Stage, number: int) -> dict[str, Any]:
    """Return the webhook of a person who submits a task after they painted one of its masks anew."""
    found = [one for one in stage.label_studio.predictions.values() if one["task"] == number]
    regions = deepcopy(found[-1]["result"])
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[16:48, 8 : 40 + number % 40] = True
    for region in [one for one in regions if "rle" in one.get("value", {})][:1]:
        region["value"]["rle"] = encode_brush(mask)
        region["origin"] = "manual"
    annotation = {
        "id": 5000 + number,
        "task": number,
        "completed_by": 1,
        "result": regions,
        "created_at": "2026-01-01T00:00:00Z",
    }
    return {
        "action": "ANNOTATION_CREATED",
        "project": {"id": 1, "title": "drill", "label_config": CONFIG},
        "task": task(number),
        "annotation": annotation,
    }


def use(stage: Stage, count: int, patience_s: float) -> None:
    """Have tasks predicted, corrected, and predicted again."""
    for start in range(0, count, PORTION):
        numbers = stage.submit(min(PORTION, count - start))
        _ended(stage, numbers, patience_s)
        for number in numbers:
            stage.post("/webhook", corrected(stage, number)).raise_for_status()
        stage.until(lambda: stage.behind() <= 0, "the corrections", patience_s)
        _ended(stage, numbers, patience_s)


def _ended(stage: Stage, numbers: list[int], patience_s: float) -> None:
    wanted = {str(number) for number in numbers}

    def ended() -> bool:
        mine = [job for job in stage.jobs() if job.get("task_id") in wanted]
        return {job["task_id"] for job in mine} == wanted and all(job["state"] in FINAL for job in mine)

    stage.until(ended, "an end of all jobs", patience_s)


def months_pass(stage: Stage) -> None:
    """Make all that is there older."""
    seconds = LATER_DAYS * 86_400
    stage.change(
        *(
            f"UPDATE {table} SET {', '.join(f'{name} = {name} - {seconds}' for name in columns)}"
            for table, columns in _TIMES.items()
        )
    )
    then = time.time() - seconds
    for path in [*Path(stage.data).glob("media/*"), *Path(stage.data).glob("served/**/*")]:
        os.utime(path, (then, then))


def sizes(stage: Stage) -> dict[str, tuple[int, int]]:
    """Return the number and bytes of each kind."""
    settings = Settings(_env_file=None, data_dir=stage.data)
    with closing(Database(stage.data, stage.database_url)) as database:
        return measure(settings, database)


def week_on(stage: Stage, options: Options) -> Outcome:
    """Use it for a week, let months pass, and have the worker's daily job look."""
    begun = time.monotonic()
    use(stage, options.week, options.patience_s)
    used = time.monotonic() - begun
    failed = stage.query("SELECT count(*) FROM jobs WHERE state = 'failed'")[0][0]
    before = sizes(stage)
    stage.kill("worker", signal.SIGTERM)
    months_pass(stage)
    stage.start("worker")
    retained = "SELECT count(*) FROM jobs WHERE kind = 'retain' AND state = 'done' AND finished > "
    stage.until(lambda: stage.query(f"{retained}{time.time() - 3600}")[0][0] > 0, "the daily job", 300)
    after = sizes(stage)
    figures = [
        Figure("tasks", options.week),
        Figure("took", used, unit="s"),
        Figure("jobs failed", failed, 0),
    ]
    for name in dict.fromkeys([*before, *after]):
        (many, size), (few, rest) = before.get(name, (0, 0)), after.get(name, (0, 0))
        figures.append(Figure(f"{name} ({many}) before", size / 1e3, unit="kB"))
        figures.append(Figure(f"{name} ({few}) {LATER_DAYS:.0f} days later", rest / 1e3, unit="kB"))
        if name in KEPT:
            figures.append(Figure(f"{name} lost", many - few + (many == 0), 0))
    return Outcome("week", figures, "with the settings' own limits; videos of 8 frames of 96x64 pixels")


def week(options: Options) -> Outcome:
    """Use a backend of its own for a week."""
    environment = {"SVAC_PROPAGATE_ON_SUBMIT": "all", "SVAC_KEEP_MEDIA_GB": "0.001"}
    with (
        options.folder("week") as root,
        Stage(root, environment=environment, database=options.database, seed=options.seed) as stage,
    ):
        return week_on(stage, options)


WEEK = [Drill("week", "a week of use, and what is left of it months later", week, lambda o: 60 + 3 * o.week)]
