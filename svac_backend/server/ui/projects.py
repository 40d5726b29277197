"""The project pages, with each project's tasks."""

from __future__ import annotations

from flask import Blueprint, Response, request
from werkzeug.wrappers import Response as AnyResponse

from svac_backend.jobs.bulk import bulk_work
from svac_backend.server.bodies import BadRequest
from svac_backend.server.jobs_api import NotFound
from svac_backend.server.ui.frame import ROWS, Frame, key_of_page
from svac_backend.store.tasks import DOUBTFUL, TaskFilter


def add(routes: Blueprint, frame: Frame) -> None:
    """Add the routes /, /projects/<id>, and that of its button."""
    tasks = frame.backend.tasks

    @routes.get("/")
    def projects() -> Response:
        found = tasks.projects()
        rows = [(one, frame.facts.get(one.project_id)) for one in found]
        summary = f"{sum(one.doubtful for one in found)} doubtful tasks in {len(found)} projects"
        return frame.page("projects", live=True, summary=summary, rows=rows, doubtful=DOUBTFUL)

    @routes.get("/projects/<project>")
    def project(project: str) -> Response:
        known = next((one for one in tasks.projects() if one.project_id == project), None)
        if known is None:
            raise NotFound("There is no such project here.", "Connect the model in the project's settings.")
        which = _filter()
        lines = tasks.page(project, which, after=key_of_page(), limit=ROWS + 1)
        last = lines[ROWS - 1].task if len(lines) > ROWS else None
        return frame.page(
            "project",
            counts=known,
            facts=frame.facts.get(project),
            lines=lines[:ROWS],
            which=which,
            filters=list(TaskFilter),
            following=None if last is None else f"{last.score!r}_{last.task_id}",
            doubtful=DOUBTFUL,
        )

    @routes.post("/projects/<project>/prelabel")
    def prelabel(project: str) -> AnyResponse:
        if all(one.project_id != project for one in tasks.projects()):
            raise NotFound("There is no such project here.", "Connect the model in the project's settings.")
        (job,) = frame.backend.engine.submit_many([bulk_work(project)])
        return frame.done(
            "Tasks without a prediction get one, after what people ask for.", "ui.job", job_id=job.id
        )


def _filter() -> TaskFilter:
    try:
        return TaskFilter(request.args.get("show", TaskFilter.ALL.value))
    except ValueError as error:
        raise BadRequest(
            "There is no such list.", f"Show one of {', '.join(one.value for one in TaskFilter)}."
        ) from error
