"""The page of storage and health: what /ready, /metrics and `svac-backend storage` know."""

from __future__ import annotations

import shutil
import threading
import time

from flask import Blueprint, Response

from svac_backend.jobs.engine import LEASE_S
from svac_backend.jobs.retention import kept, measure
from svac_backend.jobs.services import reasons_not_ready
from svac_backend.server.ui.frame import Frame

# Measuring a large data folder takes a while, so the sizes are kept for so many seconds.
MEASURED_S = 300.0


def add(routes: Blueprint, frame: Frame) -> None:
    """Add the route /health."""
    backend = frame.backend
    settings, lock = backend.settings, threading.Lock()
    found: dict[str, tuple[int, int]] = {}
    when = 0.0

    def measured() -> dict[str, tuple[int, int]]:
        nonlocal found, when
        with lock:
            if time.monotonic() - when > MEASURED_S or not found:
                found, when = measure(settings, backend.database), time.monotonic()
            return found

    @routes.get("/health")
    def health() -> Response:
        reasons, workers = reasons_not_ready(backend), backend.workers.alive(LEASE_S)
        disk = shutil.disk_usage(settings.data_dir)
        return frame.page(
            "health",
            live=True,
            summary="ready" if not reasons else "not ready",
            reasons=reasons,
            workers=workers,
            lanes=backend.jobs.lanes(),
            free=disk.free,
            total=disk.total,
            events=sum(backend.events.counts().values()),
            rows=[(name, *of, kept(settings, name)) for name, of in measured().items()],
            folder=str(settings.data_dir.absolute()),
        )
