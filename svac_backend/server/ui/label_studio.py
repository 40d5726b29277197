"""What Label Studio says about projects: title, tasks, whose predictions it shows. No page waits for it."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from svac_backend.errors import SvacError, split_address
from svac_backend.labelstudio.api.access import LabelStudioAccess, label_studio_name, task_number
from svac_backend.settings import Settings
from svac_backend.store.events import ConnectionStore

# Seconds until Label Studio is asked again.
FRESH_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """A project in Label Studio.

    Attributes:
        model_version: whose predictions its editor shows first: a version, a connected model's title, or "".
        tasks, submitted: how many tasks it has, and how many of them have a submitted annotation.
        problem: why nothing is known; the rest is then empty.
    """

    title: str = ""
    model_version: str = ""
    tasks: int | None = None
    submitted: int | None = None
    problem: str = ""


class ProjectFacts:
    """Facts about projects, fetched in the background and kept for a while.

    Args:
        settings: address and token of Label Studio.
        connections: the projects' connections.
    """

    def __init__(self, settings: Settings, connections: ConnectionStore) -> None:
        self._settings, self._connections = settings, connections
        self._access = LabelStudioAccess(settings, connections)
        self._known: dict[str, tuple[Facts | None, float]] = {}
        self._lock = threading.Lock()

    def get(self, project_id: str) -> Facts | None:
        """Return what is known about a project; None until Label Studio has answered once."""
        now = time.monotonic()
        with self._lock:
            found, asked = self._known.get(project_id, (None, -FRESH_S))
            if now - asked < FRESH_S:
                return found
            self._known[project_id] = found, now
        threading.Thread(target=self._ask, args=(project_id,), daemon=True).start()
        return found

    def title(self, project_id: str) -> str:
        """Return a project's title, or its number in words."""
        found = self.get(project_id)
        return found.title if found and found.title else f"Project {project_id}"

    def address(self, project_id: str, task_id: str = "") -> str | None:
        """Return the address of a project, or of one of its tasks, for browsers; None if it is unknown."""
        connection = self._connections.get(project_id)
        called = connection.hostname if connection else ""
        for base in (called, label_studio_name(self._settings, connection)):
            parts = split_address(base)
            if (
                parts is not None
                and parts.scheme in ("http", "https")
                and parts.hostname
                and project_id.isdigit()
            ):
                task = f"?task={task_id}" if task_id.isdigit() else ""
                return f"{base.rstrip('/')}/projects/{project_id}/data{task}"
        return None

    def _ask(self, project_id: str) -> None:
        try:
            found = self._access.client(project_id).get_project(task_number(project_id))
            facts = Facts(
                str(found.get("title") or ""),
                str(found.get("model_version") or ""),
                _count(found.get("task_number")),
                _count(found.get("num_tasks_with_annotations")),
            )
        except SvacError as error:
            log.info("the pages know nothing of project %s: %s", project_id, error)
            facts = Facts(problem=error.message)
        except Exception:
            log.exception("the pages know nothing of project %s", project_id)
            facts = Facts(problem="Label Studio gave an unexpected answer.")
        with self._lock:
            self._known[project_id] = facts, time.monotonic()


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
