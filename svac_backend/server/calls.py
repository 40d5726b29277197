"""One /predict of one task: what is common to tasks that are predicted in bulk and to an annotator's requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.jobs.payloads import TaskPayload, video_url
from svac_backend.jobs.rendering import cached_config


@dataclass(frozen=True)
class Call:
    """What the tasks of one /predict share, and the task's id.

    Attributes:
        context: `params.context` of an annotator's request, or None.
        begun, deadline: of the monotonic clock, in seconds.
    """

    project_id: str
    task_id: str
    hostname: str
    version: str
    context: Mapping[str, Any] | None
    begun: float
    deadline: float


def task_payload(task: Mapping[str, Any], label_config: str, call: Call) -> TaskPayload:
    """Return what jobs are told of a task.

    Raises:
        SvacError: it has no id, no data or no video.
    """
    if not call.task_id:
        raise SvacError("The task has no id.", "Send tasks as Label Studio does.")
    data = task.get("data")
    if not isinstance(data, dict):
        raise SvacError("The task has no data.", "Send tasks as Label Studio does.")
    return TaskPayload(
        project_id=call.project_id,
        task_id=call.task_id,
        task_data=data,
        label_config=label_config,
        hostname=call.hostname,
        video_url=video_url(data, cached_config(label_config)),
    )
