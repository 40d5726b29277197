"""What people read: the one exception that users see, addresses without their secrets, and log lines.

Much of what stands in messages comes from outside: ids, labels, addresses. It must not look like something else.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, urlsplit

_FULL = (errno.ENOSPC, errno.EDQUOT)


class SvacError(Exception):
    """Something a user can understand and mend.

    Args:
        message: one sentence on what is wrong.
        hint: one sentence on what to do about it.
        temporary: whether time may mend it, as when a server is away: a job that ends with it is tried again.
    """

    def __init__(self, message: str, hint: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self._temporary = temporary

    @property
    def temporary(self) -> bool:
        """Whether time may mend it. Room on a full disk is such a thing, whoever could not write."""
        return self._temporary or lacks_room(self.__cause__)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way between processes, whatever arguments a subclass takes."""
        return _rebuild, (type(self), dict(self.__dict__))


def lacks_room(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says in whatever words that a disk or a quota is full."""
    while error is not None:
        if getattr(error, "errno", None) in _FULL or any(os.strerror(code) in str(error) for code in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def no_room(error: BaseException) -> SvacError:
    """Return what is said of an error that nobody expected, and that `lacks_room`; time mends it."""
    name = getattr(error, "filename", None)
    return SvacError(
        f"There is no room left to write {name}." if name else "There is no room left on a disk.",
        "Make room, in SVAC_DATA_DIR above all; the job is tried again.",
        temporary=True,
    )


def _rebuild(kind: type[SvacError], state: dict[str, Any]) -> SvacError:
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error


class SettingsError(SvacError):
    """A setting is wrong: to start again without a change helps nobody. Processes end with exit status 78 by it."""


class NotEnoughData(SvacError):
    """There is nothing, or too little, to export or to learn from yet. Commands end with exit status 3 by it."""


class StoreError(SvacError):
    """The database cannot be used now: it is away, or locked for long, its disk is full, or it is damaged."""


class JobCancelled(SvacError):
    """A person cancelled the job while it ran."""

    def __init__(self) -> None:
        super().__init__("The job was cancelled.", "Send the task again to start it anew.")


_SCHEME = r"\b[A-Za-z][A-Za-z0-9+.-]*://"
_USER = re.compile(rf"({_SCHEME})[^\s/?#]*@")
_QUERY = re.compile(rf"({_SCHEME}[^\s?#'\"<>]*)[?#][^\s'\"<>]+")
# Control characters, separators of lines, and marks that turn the direction of writing.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def split_address(address: str) -> SplitResult | None:
    """Return the parts of an address, or None where it makes no sense, as `http://[host/x.mp4` does not."""
    try:
        parts = urlsplit(address)
        _ = parts.port, parts.hostname  # which are looked at only when they are asked for
    except ValueError:
        return None
    return parts


def without_secrets(text: str) -> str:
    """Return a text whose addresses have lost users, passwords and queries: a query may be a signature."""
    return _QUERY.sub(r"\1?...", _USER.sub(r"\1", text))


def one_line(text: str) -> str:
    """Return a text in which characters that nobody sees, or that begin a new line, are written as escapes."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class LogLine(logging.Formatter):
    """Writes a record as one line without secrets; the lines of a traceback after it are marked with a bar."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return one_line(without_secrets(super().formatMessage(record)))

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """See `logging.Formatter`."""
        lines = without_secrets(super().formatException(ei)).splitlines()
        return "\n".join(f"  | {one_line(line)}" for line in lines)


class LogJson(LogLine):
    """Writes a record as one JSON object: time (UTC), level, logger, message, traceback, and what `log_ids` names."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        content = {"time": moment, "level": record.levelname, "logger": record.name, **_log_ids.get()}
        content["message"] = one_line(without_secrets(record.getMessage()))
        if record.exc_info:
            content["traceback"] = without_secrets(logging.Formatter.formatException(self, record.exc_info))
        return json.dumps(content)


_log_ids: ContextVar[dict[str, str]] = ContextVar("log_ids", default={})  # noqa: B039 (never changed in place)


@contextmanager
def log_ids(**ids: str) -> Iterator[None]:
    """Within it, what this thread logs as JSON carries these ids, such as `job` and `request`."""
    before = _log_ids.set(_log_ids.get() | ids)
    try:
        yield
    finally:
        _log_ids.reset(before)


def start_logging(level: str, form: str = "text") -> None:
    """Have all that is logged written to standard error: `text` as `LogLine`, `json` as `LogJson` writes it."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogJson() if form == "json" else LogLine())
    logging.basicConfig(level=level, handlers=[handler])
