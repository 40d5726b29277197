"""The result of a check of the doctor, and the doctor's client for Label Studio."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import ParamSpec

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient

Looked = ParamSpec("Looked")


class Status(Enum):
    """The status of a check; a failure keeps the backend from working."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table.

    Attributes:
        check: what was checked, in a few words.
        status: the result.
        detail: what was found; never a secret.
        fix: what to do, in one sentence; empty if there is nothing to do.
    """

    check: str
    status: Status
    detail: str
    fix: str = ""


class DoctorWarning(SvacError):
    """Something works only in part, or not as people expect."""


def failed(name: str, error: SvacError) -> Finding:
    """Return an error as a finding: a warning or a failure."""
    status = Status.WARNING if isinstance(error, DoctorWarning) else Status.FAILURE
    return Finding(name, status, error.message, error.hint)


def check(name: str) -> Callable[[Callable[Looked, str]], Callable[Looked, Finding]]:
    """Turn a function into a check: it returns what is fine, and raises an error for what is not."""

    def made(look: Callable[Looked, str]) -> Callable[Looked, Finding]:
        @wraps(look)
        def found(*args: Looked.args, **kwargs: Looked.kwargs) -> Finding:
            try:
                return Finding(name, Status.OK, look(*args, **kwargs))
            except SvacError as error:
                return failed(name, error)

        return found

    return made


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
        """Make a project to try things in, and delete it at the end with its backends and storages."""
        project = self.create_project(f"{TITLE} {secrets.token_hex(3)}", CONFIG)
        try:
            yield project
        finally:
            self.delete_project(project)
