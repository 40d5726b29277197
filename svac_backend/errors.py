"""The one exception that users see."""

from __future__ import annotations

from typing import Any


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
        self.temporary = temporary

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way between processes, whatever arguments a subclass takes."""
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[SvacError], state: dict[str, Any]) -> SvacError:
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error


class SettingsError(SvacError):
    """A setting is wrong: to start again without a change helps nobody. Processes end with exit status 78 by it."""


class JobCancelled(SvacError):
    """A person cancelled the job while it ran."""

    def __init__(self) -> None:
        super().__init__("The job was cancelled.", "Send the task again to start it anew.")
