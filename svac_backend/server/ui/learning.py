"""The learning pages: training live with curves and report, versions side by side, promote, roll back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from flask import Blueprint, Response, request, send_file
from werkzeug.wrappers import Response as AnyResponse

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import Job
from svac_backend.learning.curves import FILE, drawn_curves, seconds_left
from svac_backend.learning.freeze import OUT
from svac_backend.learning.triggers import FINETUNE
from svac_backend.server.jobs_api import NotFound
from svac_backend.server.ui.frame import Frame
from svac_backend.server.ui.jobs import job_line
from svac_backend.storage.folder import Kind
from svac_backend.storage.published import open_storage
from svac_backend.store.corrections import CorrectionStore
from svac_backend.store.versions import BASE, TrainingStore, Version, VersionState
from svac_backend.versions import change, compared

RUNS = 20
# The report has inline styles and embedded pictures; a sandbox keeps it from everything else.
REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def add(routes: Blueprint, frame: Frame) -> None:
    """Add the routes of training and of versions."""
    backend, registry = frame.backend, frame.backend.registry
    storage = open_storage(backend.settings)
    corrections, trainings = CorrectionStore(backend.database), TrainingStore(backend.database)

    def out(job_id: str) -> Path:
        return storage.folder(Kind.RUNS, job_id).absolute() / OUT

    def curves(job_id: str) -> Path:
        with suppress(SvacError):  # before the first checkpoint a bucket has none
            storage.fetch_file(Kind.RUNS, job_id, f"{OUT}/{FILE}")
        return out(job_id) / FILE

    def report(job_id: str) -> Path | None:
        path = out(job_id) / "report.html"
        if storage.remote and not path.is_file():
            with suppress(SvacError):  # not every run has one
                storage.fetch_file(Kind.RUNS, job_id, f"{OUT}/{path.name}")
        return path if path.is_file() else None

    @routes.get("/training")
    def training() -> Response:
        runs = backend.engine.find(kind=FINETUNE, limit=RUNS)
        new = corrections.corrected_tasks(after=trainings.last_event(registry.base))
        now = [run for run in runs if run.active]
        rows = [
            (job_line(frame, run), drawn_curves(curves(run.id)), seconds_left(curves(run.id))) for run in now
        ]
        ended = [(job_line(frame, run), report(run.id)) for run in runs if not run.active]
        summary = (
            ", ".join(f"{line.state} {100 * line.job.progress:.0f} %" for line, _, _ in rows) or "no training"
        )
        return frame.page(
            "training",
            live=True,
            summary=summary,
            rows=rows,
            ended=ended,
            new=new,
            least=backend.settings.finetune_min_videos,
        )

    @routes.post("/training/start")
    def start() -> AnyResponse:
        asked = backend.trigger.request("It was asked for on the pages")
        return frame.done(asked.message, "ui.training")

    @routes.get("/training/<job_id>/report")
    def training_report(job_id: str) -> AnyResponse:
        found = report(_run(job_id).id)
        if found is None:
            raise NotFound("This training has no report.", "It has one when it has ended.")
        answer = send_file(found, mimetype="text/html")
        answer.headers["Content-Security-Policy"] = REPORT_POLICY
        answer.headers["Cache-Control"] = "private, max-age=60"
        return answer

    def _run(job_id: str) -> Job:
        job = backend.jobs.get(job_id)
        if job is None or job.kind != FINETUNE:
            raise NotFound("There is no training of that id.", "See the trainings.")
        return job

    @routes.get("/versions")
    def versions() -> Response:
        found, serving = registry.store.all(registry.base), registry.serving()
        names = [one.id for one in found]
        a, b = request.args.get("a"), request.args.get("b")
        pair = None
        if a in names and (b == BASE or b in names):
            pair = compared(registry.store.find(a), None if b == BASE else registry.store.find(str(b)))
        projects = [(one.project_id, frame.facts.get(one.project_id)) for one in backend.tasks.projects()]
        return frame.page(
            "versions",
            base=registry.base,
            found=found,
            serving=serving,
            can_roll_back=serving is not None,
            served=registry.name(),
            problem=registry.problem(),
            change=change,
            report=lambda version: report(version.job_id) if version.job_id else None,
            pair=None if pair is None else list(pair),
            a=a,
            b=b,
            projects=projects,
            own_names=[registry.base, *(one.name for one in found)],
        )

    @routes.post("/versions/<version_id>/promote")
    def promote(version_id: str) -> AnyResponse:
        version = _version(version_id)
        if request.form.get("sure") != "yes":
            serving = registry.serving()
            return frame.page(
                "promote", version=version, serving=serving, good=_passed(version), change=change
            )
        told = [f"{version.name} serves from now on."]
        registry.promote(version.id, told.append)
        return frame.done(" ".join(told), "ui.versions")

    @routes.post("/versions/rollback")
    def roll_back() -> AnyResponse:
        if request.form.get("sure") != "yes":
            return frame.page("rollback", serving=registry.serving())
        told: list[str] = []
        registry.roll_back(tell=told.append)
        return frame.done(" ".join([f"{registry.name()} serves again.", *told]), "ui.versions")

    def _version(version_id: str) -> Version:
        if registry.store.get(version_id) is None:
            raise NotFound("There is no such version.", "See the versions.")
        return registry.find(version_id)


def _passed(version: Version) -> bool:
    """Whether a version passed the gate."""
    return version.state in (VersionState.PROMOTED, VersionState.CANDIDATE)
