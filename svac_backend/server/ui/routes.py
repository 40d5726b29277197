"""The routes at and below /ui. Each module of pages adds its own."""

from __future__ import annotations

from flask import Blueprint, Flask

from svac_backend.jobs.services import Services
from svac_backend.server.security import Gate
from svac_backend.server.ui import health, jobs, learning, projects, task
from svac_backend.server.ui.frame import ROUTE, Frame, add_filters, guarded


def add_pages(app: Flask, backend: Services, gate: Gate) -> None:
    """Add the pages to the web process.

    Raises:
        SvacError: the data folder cannot be used.
    """
    routes = Blueprint("ui", __name__, url_prefix=ROUTE, template_folder="templates", static_folder="static")
    frame = Frame(backend)
    guarded(routes, frame, gate)
    for part in (projects, task, learning, health, jobs):
        part.add(routes, frame)
    add_filters(app)
    app.register_blueprint(routes)
