"""`svac-backend prelabel-project`: the workers predict all tasks of a project; what is least certain is told first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import typer

from svac_backend.cli.terminal import answer, bar, console
from svac_backend.errors import SvacError
from svac_backend.jobs.bulk import bulk_work
from svac_backend.jobs.engine import LEASE_S, Job, JobEngine, JobState
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.tasks import TaskFilter, TaskLine, TaskStore

_LOOK_S = 0.5
# How often it is said how far the work is where no bar can be shown, in seconds.
_SAY_S = 30.0
_PAGE = 500


def run(settings: Settings, project: str, ahead: int, *, wait: bool, as_json: bool) -> None:
    """Submit the work, or find it under way; wait for its end and print the tasks that nobody has submitted.

    Raises:
        SvacError: the project cannot be read.
        typer.Exit: with status 1 where tasks failed or the work was cancelled, with 130 after Ctrl-C.
    """
    with closing(Database.from_settings(settings)) as database:
        engine = JobEngine(database)
        (job,) = engine.submit_many([bulk_work(project, ahead)])
        if not engine.workers.alive(LEASE_S):
            console.print("[yellow]No worker is running: start `svac-backend worker`.[/]")
        if not wait:
            answer({"job": job.id}, [job.id], as_json=as_json)
            return
        try:
            job = _watched(engine, job)
        except KeyboardInterrupt:
            console.print("The work goes on. The same command shows it again; this ends it:")
            console.print(f"  svac-backend jobs cancel {job.id[:8]}")
            raise typer.Exit(130) from None
        lines = list(_open_tasks(TaskStore(database), project))
    if job.state is JobState.FAILED:
        raise SvacError(job.error or "The work failed.", job.hint or "See the log of `svac-backend worker`.")
    result = job.result or {}
    content = {
        "project": project,
        "job": job.id,
        "state": job.state.value,
        **{name: result.get(name) for name in ("tasks", "had", "predicted", "failed")},
        "open": [{"task": line.task.task_id, "score": round(line.task.score, 4)} for line in lines],
    }
    answer(content, [line.task.task_id for line in lines], as_json=as_json)
    console.print(job.message)
    if result.get("failed"):
        console.print("`svac-backend jobs list --state failed` says why; the same command tries these again.")
    if job.state is not JobState.DONE or result.get("failed"):
        raise typer.Exit(1)


def _watched(engine: JobEngine, job: Job) -> Job:
    """Return the job once it has ended; show how far it is."""
    said, due = "", 0.0
    with bar("pre-labelling") as progress:
        while job.active:
            progress(job.progress)
            now = time.monotonic()
            if not console.is_terminal and job.message != said and now >= due:
                said, due = job.message, now + _SAY_S
                console.print(said)
            time.sleep(_LOOK_S)
            job = engine.get(job.id)
    return job


def _open_tasks(tasks: TaskStore, project: str) -> Iterator[TaskLine]:
    """Yield the predicted tasks that nobody has submitted, the least certain first."""
    after: tuple[float, str] | None = None
    while lines := tasks.page(project, TaskFilter.OPEN, after=after, limit=_PAGE):
        yield from lines
        after = lines[-1].task.score, lines[-1].task.task_id
