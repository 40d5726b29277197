"""Whether the backend can serve now, and if not, why: `GET /ready`, and `svac-backend ready` for health checks."""

from __future__ import annotations

import shutil
import socket

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import LEASE_S
from svac_backend.jobs.services import Services


def reasons_not_ready(services: Services) -> list[str]:
    """Return a sentence for each thing that keeps jobs from being done; none: tasks that are sent now get masks.

    The database, the model, a worker that serves it, and free disk. That the database can be written is seen by its
    worker: each heartbeat is a write.
    """
    reasons = _disk(services)
    try:
        workers = services.workers.alive(LEASE_S)
    except SvacError as error:
        return [str(error), *reasons]
    try:
        base = services.registry.base
    except SvacError as error:
        return [str(error), *reasons]
    # A version that was promoted just now serves from the worker's next job on: the weights must be the same.
    if not workers:
        reasons.append("No worker is running: start `svac-backend worker`.")
    elif not any(worker.device for worker in workers):
        reasons.append("The worker is loading its model.")
    elif not any(worker.device and worker.model_version.startswith(base) for worker in workers):
        others = ", ".join(sorted({worker.model_version for worker in workers if worker.device}))
        reasons.append(
            f"The worker serves {others}, the settings name {base}: start both with the same settings."
        )
    return reasons


def reasons_worker_not_ready(services: Services) -> list[str]:
    """Return why the worker of this host cannot do jobs; one that is loading its model is well."""
    host = socket.gethostname()[:60]
    try:
        workers = services.workers.alive(LEASE_S)
    except SvacError as error:
        return [str(error)]
    if any(worker.id.startswith(f"{host}:") for worker in workers):
        return _disk(services)
    return [f"No worker of {host} was heard of in the last {LEASE_S:.0f} s.", *_disk(services)]


def _disk(services: Services) -> list[str]:
    settings = services.settings
    free_mb = shutil.disk_usage(settings.data_dir).free / 1e6
    if free_mb >= settings.min_free_mb:
        return []
    return [
        f"{free_mb:.0f} MB are free where {settings.data_dir} lies, {settings.min_free_mb} are wanted: make room, "
        "or set SVAC_MIN_FREE_MB."
    ]
