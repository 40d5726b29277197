"""What a check of the doctor found, and the client through which the doctor asks Label Studio."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient


class Status(Enum):
    """How it is; a failure is what keeps the backend from working."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table.

    Attributes:
        check: what was looked at, in a few words.
        status: how it is.
        detail: what was found; never a secret.
        fix: what to do, in one sentence; empty when there is nothing to do.
    """

    check: str
    status: Status
    detail: str
    fix: str = ""


def ok(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, Status.OK, detail)


def warning(check: str, detail: str, fix: str) -> Finding:
    """It works, but not as people expect, or not everything."""
    return Finding(check, Status.WARNING, detail, fix)


def failure(check: str, detail: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, Status.FAILURE, detail, fix)


def failed(check: str, error: SvacError) -> Finding:
    """It does not work, as an error says."""
    return Finding(check, Status.FAILURE, error.message, error.hint)


TITLE = "svac-backend doctor (temporary)"
CONFIG = """<View>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="object"/></BrushLabels>
  <Video name="video" value="$video" framerate="$fps"/>
</View>"""


class DoctorClient(LabelStudioClient):
    """Label Studio's API as the doctor uses it."""

    @contextmanager
    def temporary_project(self) -> Iterator[int]:
        """Make a project to try things in; it is deleted at the end, with its backends and storages."""
        project = self.create_project(f"{TITLE} {secrets.token_hex(3)}", CONFIG)
        try:
            yield project
        finally:
            self.delete_project(project)
