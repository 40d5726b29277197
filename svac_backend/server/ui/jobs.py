"""The job pages: what runs, what waits and where in the queue, what failed, why, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, abort, request
from werkzeug.wrappers import Response as AnyResponse

from svac_backend.jobs.bulk import PROJECT
from svac_backend.jobs.engine import REJECTED, Job, JobState
from svac_backend.jobs.payloads import FRAMES, PRELABEL, PROPAGATE, describe
from svac_backend.learning.triggers import FINETUNE
from svac_backend.server.jobs_api import NotFound, state_of
from svac_backend.server.ui.frame import ROWS, Frame, key_of_page
from svac_backend.store.lanes import LANE_OF, MODEL_LANE

# What people call the kinds of jobs.
KINDS = {
    PRELABEL: "Find objects",
    PROPAGATE: "Propagate corrections",
    FRAMES: "Cut frames",
    FINETUNE: "Fine-tune",
    PROJECT: "Pre-label a project",
    "collect": "Collect corrections",
    "renew": "Renew links to frames",
    "retain": "Delete what is old",
}
# Counting the jobs ahead of a job stops here.
MOST_AHEAD = 1000
# How many running jobs are listed before all others.
RUNNING = 10


@dataclass(frozen=True)
class JobLine:
    """A job as a page shows it.

    Attributes:
        title: what it does, in words.
        state: `waiting`, `retrying` (it waits for a temporary fault to pass), `running`, `stopping`, or how it ended.
        project, task: ids, or empty.
        prompts: the sentences that it looks for.
        ahead: how many jobs go first; None if it does not wait.
        can_stop, can_retry: what a person may do.
    """

    job: Job
    title: str
    state: str
    project: str
    task: str
    prompts: list[str]
    ahead: int | None
    can_stop: bool
    can_retry: bool


def add(routes: Blueprint, frame: Frame) -> None:
    """Add the routes /jobs, /jobs/<id>, and those of their buttons."""
    engine = frame.backend.engine

    @routes.get("/jobs")
    def jobs() -> Response:
        state, kind = request.args.get("state", ""), request.args.get("kind", "")
        states = (state_of(state),) if state else ()
        found = engine.find(states=states, kind=kind or None, before=key_of_page(), limit=ROWS + 1)
        last = found[ROWS - 1] if len(found) > ROWS else None
        counts, retrying = frame.backend.jobs.counts(), frame.backend.jobs.count_retrying()
        # Running jobs are often older than a whole page of waiting ones.
        first = not (state or kind or request.args.get("from"))
        running = engine.find(states=(JobState.RUNNING,), limit=RUNNING) if first else []
        waiting = counts[JobState.QUEUED] - retrying
        summary = f"{counts[JobState.RUNNING]} running, {waiting} waiting, {counts[JobState.FAILED]} failed"
        return frame.page(
            "jobs",
            live=True,
            summary=summary,
            running=[job_line(frame, job) for job in running],
            lines=_lines(frame, found[:ROWS]),
            counts={one.value: count for one, count in counts.items()},
            retrying=retrying,
            waiting=waiting,
            state=state,
            kind=kind,
            kinds=KINDS,
            following=None if last is None else f"{last.created!r}_{last.id}",
        )

    @routes.get("/jobs/<job_id>")
    def job(job_id: str) -> Response:
        line = job_line(frame, _job(job_id))
        return frame.page("job", live=True, summary=line.state, line=line)

    @routes.post("/jobs/<job_id>/<any(stop, retry):act>")
    def act(job_id: str, act: str) -> AnyResponse:
        _job(job_id)
        done = engine.cancel(job_id) if act == "stop" else engine.retry(job_id)
        words = "The job stops." if act == "stop" else "The job is on its way."
        return frame.done(words, "ui.job", job_id=done.id)

    @routes.post("/jobs/cancel")
    def cancel_all() -> AnyResponse:
        project = request.form.get("project") or None
        if request.form.get("sure") == "yes":
            count = engine.cancel_all(project)
            words = (
                f"{count} {'job is' if count == 1 else 'jobs are'} cancelled; what runs stops within seconds."
            )
            return frame.done(words, "ui.jobs")
        counts = Counter((job.kind, job.state.value) for found in engine.active(project) for job in found)
        rows = [(KINDS.get(kind, kind), state, count) for (kind, state), count in sorted(counts.items())]
        return frame.page("cancel", project=project, rows=rows)

    def _job(job_id: str) -> Job:
        found = frame.backend.jobs.get(job_id)
        if found is None:
            raise NotFound("There is no job of that id.", "It may have been deleted since: see the jobs.")
        return found

    @routes.get("/<path:_>")
    def nothing(_: str) -> Response:
        abort(404)


def _lines(frame: Frame, jobs: Sequence[Job]) -> list[JobLine]:
    """Return what a page shows of jobs. After a job with `MOST_AHEAD` jobs ahead, no more are counted."""
    full: set[str] = set()
    lines = {}
    for job in sorted(jobs, key=lambda job: (-job.priority, job.created, job.id)):
        lane = LANE_OF.get(job.kind, MODEL_LANE)
        line = lines[job.id] = job_line(frame, job, MOST_AHEAD if lane in full else None)
        if line.ahead == MOST_AHEAD:
            full.add(lane)
    return [lines[job.id] for job in jobs]


def job_line(frame: Frame, job: Job, ahead: int | None = None) -> JobLine:
    """Return what a page shows of a job; `ahead` is counted here if None."""
    about = describe(job.payload)
    state = job.state.value
    if job.state is JobState.QUEUED:
        state = "waiting" if job.due is None else "retrying"
    elif job.state is JobState.RUNNING and job.cancel_requested:
        state = "stopping"
    if state != "waiting":
        ahead = None
    elif ahead is None:
        ahead = frame.backend.jobs.ahead(job, MOST_AHEAD)
    return JobLine(
        job,
        KINDS.get(job.kind, job.kind),
        state,
        str(about["project_id"] or ""),
        str(about["task_id"] or ""),
        [prompt["expression"] for prompt in about["prompts"]],
        ahead,
        can_stop=job.active and not job.cancel_requested,
        can_retry=state in ("failed", "cancelled", "retrying") and not job.key.endswith(REJECTED),
    )
