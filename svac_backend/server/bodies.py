"""Reading request bodies, and refusing bad ones with a message that says what is wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from flask import g, request
from pydantic_core import from_json

from svac_backend.errors import SvacError

# Bytes of memory that a body may take, estimated before it is parsed: `[[],[],...]` takes thirty times its text.
MAX_UNFOLDED = 400_000_000
# Shorter bodies are parsed without an estimate.
_SMALL = 4_000_000
MAX_DEPTH = 200
MAX_CONFIG_CHARS = 1_000_000
_CHUNK = 1 << 22


# Bytes of memory that all bodies together may take at a time, and seconds that a request waits for its share. Nearly
# all bodies are small and need no share; a larger one is counted as the worst case for text of its length.
MAX_TOGETHER, PATIENCE_S = 500_000_000, 15.0
_TINY, _WORST = 100_000, 30


class Together:
    """Bounds the memory of all large bodies that are read at the same time."""

    def __init__(self, most: int = MAX_TOGETHER) -> None:
        self._most, self._taken = most, 0
        self._changed = threading.Condition()

    def take(self, length: int) -> int:
        """Wait until a body of `length` bytes has room; return its share in bytes, which must be given back.

        Raises:
            SvacError: the requests before it did not finish in time.
        """
        part = min(_WORST * length, MAX_UNFOLDED) if length > _TINY else 0
        if part:
            with self._changed:
                if not self._changed.wait_for(lambda: self._taken + part <= self._most, PATIENCE_S):
                    raise SvacError(
                        "The backend reads other large requests.",
                        "Send it again in a moment.",
                        temporary=True,
                    )
                self._taken += part
        return part

    def give_back(self, part: int) -> None:
        """Return to the others what `take` reserved."""
        with self._changed:
            self._taken -= part
            self._changed.notify_all()


TOGETHER = Together()


class BadRequest(SvacError):
    """The request itself is wrong; answered with status 400."""


def read_json() -> dict[str, Any]:
    """Return the request's body, which must be a JSON object. Its text stays available as `request.get_data()`.

    Raises:
        BadRequest: it is not a JSON object.
        SvacError: other large bodies are being read.
        werkzeug.exceptions.RequestEntityTooLarge: it is larger than the settings allow.
    """
    # Reserved before it is read; `app` gives it back when the request has ended.
    g.body_part = g.get("body_part", 0) + TOGETHER.take(request.content_length or 0)
    raw = request.get_data()
    if not raw:
        raise BadRequest("The request has no body.", "Send a JSON object, as Label Studio does.")
    if len(raw) > _SMALL and unfolded(raw) > MAX_UNFOLDED:
        raise BadRequest("The body holds more values than can be read.", "Send fewer tasks at a time.")
    try:
        body = _parsed(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            f"The body is not JSON ({_reason(error)}).", "Send a JSON object in UTF-8."
        ) from error
    if not isinstance(body, dict):
        raise BadRequest("The body is not a JSON object.", "Send an object, as Label Studio does.")
    return body


def text(body: Mapping[str, Any], name: str, *, default: str | None = None, most: int = 4096) -> str:
    """Return a field that must be text; `default` stands in for a missing or null one.

    Raises:
        BadRequest: it is missing and there is no default, it is not text, it holds a lone surrogate, or it is longer
            than `most` characters.
    """
    value = body.get(name)
    if value is None:
        value = default
    if not isinstance(value, str):
        raise BadRequest(f"The body's {name!r} is missing or no text.", f"Send {name!r} as a string.")
    if len(value) > most:
        raise BadRequest(f"The body's {name!r} has {len(value)} characters.", f"Send {most} at most.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"The body's {name!r} holds characters that are not valid Unicode.", "Send valid UTF-8."
        ) from error
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
        # The standard library says what is wrong. NaN and the like are not JSON, and the database would not keep them.
        found = json.loads(raw, parse_constant=_refuse)
    if _is_deeper(found, MAX_DEPTH):
        raise RecursionError
    return found


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def unfolded(raw: bytes) -> int:
    """Return about how many bytes of memory JSON text takes once parsed, and never much less.

    A place in a list takes 16 bytes while the list grows, a text 60 plus its length, a list 64, an object 240, and a
    number with a fraction or above 256 another 32. Smaller numbers, of which brush masks are made, exist only once.
    """
    places, lists, objects = (raw.count(sign) for sign in (b",", b"[", b"{"))
    texts, fractions = raw.count(b'"') // 2, raw.count(b".") + raw.count(b"e") + raw.count(b"E")
    least = len(raw) + 16 * places + 64 * lists + 240 * objects + 60 * texts + 32 * fractions
    if least > MAX_UNFOLDED or least + 32 * places <= MAX_UNFOLDED:
        return least + 32 * places
    return least + 32 * sum(_large(raw[start : start + _CHUNK]) for start in range(0, len(raw), _CHUNK))


def _large(raw: bytes) -> int:
    """Count the runs of digits that are a number above 256."""
    digits = np.frombuffer(raw, np.uint8) - np.uint8(ord("0"))
    is_digit = np.pad(digits < 10, 1)
    starts = np.flatnonzero(is_digit[1:] & ~is_digit[:-1])
    lengths = np.flatnonzero(is_digit[:-1] & ~is_digit[1:]) - starts
    three = starts[lengths == 3]
    values = digits[three] * np.int64(100) + digits[three + 1] * np.int64(10) + digits[three + 2]
    return int((lengths > 3).sum() + (values > 256).sum())


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
