"""What happens when an annotation is submitted in a project that asks for propagation: a job, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import BATCH
from svac_backend.jobs.payloads import PROPAGATE, PropagatePayload, label_studio_name, video_url
from svac_backend.jobs.rendering import cached_config
from svac_backend.server.backend import Backend
from svac_backend.store.database import StoreError

SUBMITTED = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED"})

log = logging.getLogger(__name__)


def on_webhook(backend: Backend, action: str, project_id: str, body: Mapping[str, Any], event: int) -> None:
    """Queue the propagation of a submitted annotation's corrections, when its project asks for it.

    The job reads the annotation from the stored event, and pushes a prediction: the annotation is never changed. A
    webhook that cannot be used is recorded all the same, as a failed job.

    Args:
        backend: state and engine.
        action: of the webhook.
        project_id: of the webhook.
        body: of the webhook.
        event: the number under which it is stored.
    """
    if action not in SUBMITTED or not wanted(backend.settings.propagate_on_submit, project_id):
        return
    task = body.get("task")
    number = str(task.get("id") or "") if isinstance(task, Mapping) else ""
    try:
        payload = _payload(backend, project_id, body, event)
        work = (PROPAGATE, payload.to_json(), payload.job_key(""))
        job = backend.engine.submit(*work, priority=BATCH)
        log.info("task %s: job %s looks for corrections to propagate", payload.task_id, job.id)
    except StoreError:
        raise
    except SvacError as error:
        log.warning("webhook %d is not propagated: %s", event, error)
        named = {"project_id": project_id, "task_id": number[:32]}
        key = f"{PROPAGATE}:{project_id}:{number[:32]}:rejected"
        backend.engine.reject(PROPAGATE, named, key, error.message, error.hint)


def wanted(projects: str, project_id: str) -> bool:
    """Tell whether a project is among those of the setting `propagate_on_submit`."""
    named = {name.strip().casefold() for name in projects.split(",")} - {""}
    return "all" in named or project_id in named


def _payload(backend: Backend, project_id: str, body: Mapping[str, Any], event: int) -> PropagatePayload:
    task = body.get("task")
    data = task.get("data") if isinstance(task, Mapping) else None
    if not isinstance(task, Mapping) or not isinstance(data, dict) or task.get("id") is None:
        raise SvacError("The webhook does not say which task was annotated.", "Have its payload sent along.")
    connection = backend.connections.get(project_id)
    project = body.get("project")
    config = project.get("label_config") if isinstance(project, Mapping) else None
    if not isinstance(config, str) or not config:
        config = connection.label_config if connection else ""
    return PropagatePayload(
        project_id=project_id,
        task_id=str(task["id"])[:32],
        task_data=data,
        label_config=config,
        hostname=label_studio_name(backend.settings, connection),
        video_url=video_url(data, cached_config(config)),
        push=True,
        event=event,
    )
