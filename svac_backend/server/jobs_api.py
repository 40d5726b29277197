"""The routes for jobs: list them, look at one, cancel one."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, Response, jsonify, request

from svac_backend.errors import SvacError, without_secrets
from svac_backend.jobs.engine import Job, JobState
from svac_backend.jobs.payloads import describe
from svac_backend.jobs.services import Services
from svac_backend.server.bodies import BadRequest
from svac_backend.server.security import Gate

MAX_JOBS = 1000


class NotFound(SvacError):
    """There is no such thing; answered with status 404."""


def create_blueprint(backend: Services, gate: Gate) -> Blueprint:
    """Return the routes GET /jobs, GET /jobs/<id>, POST /jobs/<id>/cancel."""
    routes = Blueprint("jobs", __name__)

    @routes.before_request
    def check_caller() -> None:
        gate.check(request)

    @routes.get("/jobs")
    def jobs() -> Response:
        state, kind = request.args.get("state"), request.args.get("kind")
        found = backend.engine.find(states=() if not state else (state_of(state),), kind=kind, limit=_limit())
        counts = {state.value: count for state, count in backend.jobs.counts().items()}
        return jsonify({"jobs": [job_to_json(job) for job in found], "counts": counts})

    @routes.get("/jobs/<job_id>")
    def one_job(job_id: str) -> Response:
        _check(job_id)
        return jsonify(job_to_json(backend.engine.get(job_id)))

    @routes.post("/jobs/<job_id>/cancel")
    def cancel(job_id: str) -> Response:
        _check(job_id)
        return jsonify(job_to_json(backend.engine.cancel(job_id)))

    def _check(job_id: str) -> None:
        if backend.jobs.get(job_id) is None:
            raise NotFound("There is no job of that id.", "GET /jobs lists them.")

    return routes


def job_to_json(job: Job) -> dict[str, Any]:
    """Return what people may see of a job; times are ISO 8601 in UTC."""
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state.value,
        "progress": round(job.progress, 4),
        "message": _shown(job.message),
        "error": _shown(job.error),
        "hint": _shown(job.hint),
        "attempts": job.attempts,
        "retries": job.tries,
        "next_try": _time(job.due),
        "priority": job.priority,
        **describe(job.payload),
        "result": job.result,
        "created": _time(job.created),
        "started": _time(job.started),
        "finished": _time(job.finished),
    }


def _shown(text: str | None) -> str | None:
    return None if text is None else without_secrets(text)


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, tz=timezone.utc).isoformat(timespec="milliseconds")


def state_of(name: str) -> JobState:
    """Return the state of that name.

    Raises:
        BadRequest: there is none.
    """
    try:
        return JobState(name)
    except ValueError as error:
        known = ", ".join(state.value for state in JobState)
        raise BadRequest("There is no such state.", f"Use one of {known}.") from error


def _limit() -> int:
    raw = request.args.get("limit", "100")
    if not raw.isascii() or not raw.isdigit() or not 1 <= int(raw[:9]) <= MAX_JOBS:
        raise BadRequest("The limit is not a number that can be used.", f"Use 1 to {MAX_JOBS}.")
    return int(raw)
