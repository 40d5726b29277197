"""Windows: a task that shows some of a video's frames, and the one place where its frames are renumbered.

A long video becomes several tasks. Each keeps the whole video in its data, so that one prediction serves them all, and
says under `svac_window` which frames it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from svac_backend.errors import SvacError

WINDOW_KEY = "svac_window"


@dataclass(frozen=True)
class Window:
    """The frames start, start + stride, ... of a video, `count` of them; `item_index` numbers them from 0.

    Attributes:
        start: first frame, 0-based.
        count: number of frames shown.
        stride: distance between two shown frames.

    Raises:
        SvacError: a number is out of range.
    """

    start: int
    count: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.count < 1 or self.stride < 1:
            raise SvacError(
                f"A window of {self.count} frames from {self.start} in steps of {self.stride} is not possible.",
                f"Correct '{WINDOW_KEY}' in the task's data, or import the video again.",
            )

    def frame(self, item: int) -> int:
        """Return the video's 0-based frame that the task shows as `item_index` `item`."""
        return self.start + item * self.stride

    def item(self, frame: int) -> int | None:
        """Return the `item_index` of a video's frame, or None when the task does not show it."""
        item, rest = divmod(frame - self.start, self.stride)
        return item if rest == 0 and 0 <= item < self.count else None

    def to_json(self) -> dict[str, int]:
        """Return what stands in the task's data."""
        return {"start": self.start, "count": self.count, "stride": self.stride}


def window_of(task_data: Mapping[str, Any]) -> Window | None:
    """Return a task's window, or None when it shows the whole video.

    Raises:
        SvacError: `svac_window` is malformed.
    """
    value = task_data.get(WINDOW_KEY)
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(
        isinstance(value.get(key, 1), int) and not isinstance(value.get(key, 1), bool)
        for key in ("start", "count", "stride")
    ):
        raise SvacError(
            f"'{WINDOW_KEY}' in the task's data is malformed.",
            'Write {"start": 0, "count": 100, "stride": 1}, or import the video again.',
        )
    if "start" not in value or "count" not in value:
        raise SvacError(
            f"'{WINDOW_KEY}' in the task's data says no start or count.",
            'Write {"start": 0, "count": 100, "stride": 1}, or import the video again.',
        )
    return Window(value["start"], value["count"], value.get("stride", 1))
