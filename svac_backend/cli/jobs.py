"""`svac-backend jobs list | watch | cancel | retry`: what waits, what runs, what is done and what went wrong.

It reads and writes the job table, which is the queue, so it works while the web process is down.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from svac_backend.cli.terminal import answer, console
from svac_backend.errors import SvacError, without_secrets
from svac_backend.jobs.engine import Job, JobEngine, JobState
from svac_backend.jobs.payloads import describe
from svac_backend.settings import Settings
from svac_backend.store.database import Database

# Digits of an id that are enough to tell jobs apart, and few enough to type.
SHORT = 8
# How many jobs are searched for the beginning of an id.
_LOOKED_THROUGH = 100_000
_LOOK_S = 1.0


def run_list(settings: Settings, states: list[str], kind: str | None, limit: int, *, as_json: bool) -> None:
    """Print jobs, the newest first.

    Raises:
        SvacError: there is no such state.
    """
    wanted = tuple(_state(name) for name in states)
    with _engine(settings) as engine:
        found = engine.find(states=wanted, kind=kind, limit=limit)
        answer([_about(job) for job in found], _table(found), as_json=as_json)
        counts = engine.store.counts()
    if not as_json:
        console.print(
            ", ".join(f"{number} {state.value}" for state, number in counts.items() if number) or "no jobs"
        )


def run_watch(settings: Settings, job_id: str | None, *, as_json: bool) -> None:
    """Show a job, or without an id all active jobs, until they have ended; then print them.

    Raises:
        SvacError: there is no such job.
        typer.Exit: with status 1 if one of them failed or was cancelled.
    """
    with _engine(settings) as engine:
        if job_id is not None:
            watched = [_find(engine, job_id)]
        else:
            watched = engine.find(states=(JobState.QUEUED, JobState.RUNNING), limit=1000)
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while any(job.active for job in watched):
                shown = [job for job in watched if job.active]
                if console.is_terminal:
                    live.update(_table(shown[: max(1, console.height - 4)]))
                time.sleep(_LOOK_S)
                watched = [engine.get(job.id) if job.active else job for job in watched]
    answer([_about(job) for job in watched], _table(watched), as_json=as_json)
    bad = [job for job in watched if job.state is not JobState.DONE]
    if bad:
        for job in bad:
            console.print(f"[bold]{job.id[:SHORT]}[/] {job.state.value}. {_why(job)}")
        raise typer.Exit(1)


def run_cancel(settings: Settings, job_ids: list[str], *, as_json: bool) -> None:
    """Cancel jobs: waiting ones at once, running ones at their next report.

    Raises:
        SvacError: there is no such job; none is cancelled then.
    """
    with _engine(settings) as engine:
        wanted = [_find(engine, one) for one in job_ids]
        done = [engine.cancel(job.id) for job in wanted]
        for job in wanted:
            if not job.active:
                console.print(f"[yellow]{job.id[:SHORT]} had ended already ({job.state.value}).[/]")
    answer([_about(job) for job in done], (job.id for job in done), as_json=as_json)


def run_retry(settings: Settings, job_ids: list[str], *, as_json: bool) -> None:
    """Redo the work of failed or cancelled jobs; print the ids of the jobs that do it.

    Raises:
        SvacError: there is no such job, or it cannot be redone.
    """
    with _engine(settings) as engine:
        done = [engine.retry(_find(engine, one).id) for one in job_ids]
        if not engine.workers.alive(30.0):
            console.print("[yellow]No worker is running: start `svac-backend worker`.[/]")
    answer([_about(job) for job in done], (job.id for job in done), as_json=as_json)


@contextmanager
def _engine(settings: Settings) -> Iterator[JobEngine]:
    with closing(Database.from_settings(settings)) as database:
        yield JobEngine(database)


def _find(engine: JobEngine, name: str) -> Job:
    """Return the job with an id, or with an id that begins so if there is only one."""
    exact = engine.store.get(name)
    if exact is not None:
        return exact
    found = [job for job in engine.find(limit=_LOOKED_THROUGH) if name and job.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(job.id[: len(name) + 4] for job in found[:5])
        raise SvacError(
            f"{len(found)} jobs have an id that begins with {name[:40]}.", f"Give more digits: {ids}."
        )
    raise SvacError(f"There is no job {name[:40]!r}.", "See `svac-backend jobs list`.")


def _state(name: str) -> JobState:
    try:
        return JobState(name)
    except ValueError as error:
        known = ", ".join(state.value for state in JobState)
        raise SvacError(f"There is no state {name[:40]!r}.", f"Use one of {known}.") from error


def _table(jobs: list[Job]) -> Table:
    table = Table("job", "kind", "state", "done", "project/task", "since", "what", box=None)
    for job in jobs:
        about = describe(job.payload)
        place = "/".join(str(about[key]) for key in ("project_id", "task_id") if about.get(key))
        state = f"{job.state.value} (again at {_clock(job.due)})" if job.due is not None else job.state.value
        done = f"{100 * job.progress:.0f} %" if job.state is JobState.RUNNING else ""
        table.add_row(
            job.id[:SHORT], job.kind, state, done, escape(place), _clock(job.created), escape(_why(job))
        )
    return table


def _why(job: Job) -> str:
    text = f"{job.error} {job.hint or ''}" if job.error else job.message
    return without_secrets(text or "").strip()


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _about(job: Job) -> dict[str, Any]:
    times = {
        name: None
        if value is None
        else datetime.fromtimestamp(value, tz=UTC).isoformat(timespec="milliseconds")
        for name, value in (
            ("created", job.created),
            ("started", job.started),
            ("finished", job.finished),
            ("next_try", job.due),
        )
    }
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state.value,
        "progress": round(job.progress, 4),
        "message": without_secrets(job.message or ""),
        "error": None if job.error is None else without_secrets(job.error),
        "hint": None if job.hint is None else without_secrets(job.hint),
        **describe(job.payload),
        "result": job.result,
        **times,
    }
