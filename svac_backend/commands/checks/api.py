"""What the doctor asks of Label Studio beyond the backend's own needs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from svac_backend.labelstudio.client import LabelStudioClient

TITLE = "svac-backend doctor (temporary)"
CONFIG = """<View>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="object"/></BrushLabels>
  <Video name="video" value="$video" framerate="$fps"/>
</View>"""


class DoctorClient(LabelStudioClient):
    """Label Studio's API as the doctor uses it."""

    def list_webhooks(self, project: int) -> list[dict[str, Any]]:
        """Return the webhooks of a project and of its organization: `url`, `is_active`, `headers`, ..."""
        with self._doing(f"list the webhooks of project {project}"):
            return [item.dict() for item in self._sdk.webhooks.list(project=str(project))]

    @contextmanager
    def temporary_project(self) -> Iterator[int]:
        """Make a project to try things in; it is deleted at the end, with its backends and storages."""
        project = self.create_project(f"{TITLE} {secrets.token_hex(3)}", CONFIG)
        try:
            yield project
        finally:
            self.delete_project(project)
