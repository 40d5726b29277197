"""Request bodies: read, and refused in words when they are not what they should be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import request
from pydantic_core import from_json

from svac_backend.errors import SvacError


class BadRequest(SvacError):
    """The request itself is wrong; answered with status 400."""


def read_json() -> dict[str, Any]:
    """Return the request's body, which must be a JSON object. Its text stays available as `request.get_data()`.

    Raises:
        BadRequest: it is none.
        werkzeug.exceptions.RequestEntityTooLarge: it is larger than the settings allow.
    """
    raw = request.get_data()
    if not raw:
        raise BadRequest("The request has no body.", "Send a JSON object, as Label Studio does.")
    try:
        body = _parsed(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            f"The body is not JSON ({_reason(error)}).", "Send a JSON object in UTF-8."
        ) from error
    if not isinstance(body, dict):
        raise BadRequest("The body is not a JSON object.", "Send an object, as Label Studio does.")
    return body


def text(body: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    """Return a field that must be text; `default` stands in for a missing or null one.

    Raises:
        BadRequest: it is missing without default, or no text.
    """
    value = body.get(name)
    if value is None:
        value = default
    if not isinstance(value, str):
        raise BadRequest(f"The body's {name!r} is missing or no text.", f"Send {name!r} as a string.")
    return value


def project_id(body: Mapping[str, Any]) -> str:
    """Return the id of the project a body names, `"38"` of `"38.1795331614"`, `38` or `{"id": 38}`, or ""."""
    project = body.get("project")
    if isinstance(project, Mapping):
        project = project.get("id")
    if isinstance(project, bool) or not isinstance(project, str | int):
        return ""
    return str(project).split(".", 1)[0][:32]


def _parsed(raw: bytes) -> Any:
    try:
        # An annotation of 100 masks is 1.3 MB, which the standard library reads in three times the time.
        return from_json(raw, allow_inf_nan=False)
    except ValueError:
        # It says what is wrong. A number like NaN is no JSON, and would not survive in the database either.
        return json.loads(raw, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
