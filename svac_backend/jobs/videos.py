"""Finds the videos of corrections. Free of torch."""

from __future__ import annotations

from pathlib import Path

from svac_backend.errors import SvacError
from svac_backend.jobs.label_studio import LabelStudioAccess, task_number
from svac_backend.settings import Settings
from svac_backend.store.connections import ConnectionStore
from svac_backend.store.corrections import Correction
from svac_backend.store.database import Database


class Videos:
    """Finds the videos of corrections, as the worker finds those of tasks."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._access = LabelStudioAccess(settings, ConnectionStore(database))
        self._found: dict[str, Path] = {}

    def find(self, one: Correction) -> Path:
        """Return the file of a correction's video.

        Raises:
            SvacError: it cannot be read; the message names the task.
        """
        if one.video_path is not None:
            return one.video_path
        known = self._found.get(one.annotation.video)
        if known is None:
            try:
                known = self._access.fetch(
                    one.project_id, one.hostname, one.video_url, task_number(one.task_id)
                )
            except SvacError as error:
                raise SvacError(
                    f"The video of task {one.task_id} cannot be learned from: {error.message}",
                    f"{error.hint} Or delete the task's annotation.",
                ) from error
            self._found[one.annotation.video] = known
        return known
