"""How an import shows a video: in one task, or in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from svac_backend.commands.sources import SourceVideo
from svac_backend.exporting.split import DEFAULT_WINDOW, plan_windows
from svac_backend.jobs.rendering import BRUSH_FRAMES
from svac_backend.labelstudio.windows import Window


@dataclass(frozen=True)
class Windowing:
    """What `--window`, `--overlap` and `--stride` say; see `plan_windows`."""

    size: int = DEFAULT_WINDOW
    overlap: int | None = None
    stride: int = 1

    def of(self, source: SourceVideo) -> list[Window]:
        """Return a video's windows.

        Raises:
            SvacError: the numbers are not possible.
        """
        return plan_windows(source.info.frame_count, self.size, self.overlap, self.stride)

    def config_kind(self, sources: Sequence[SourceVideo]) -> str:
        """Return which shipped config a new project gets: `polygon` where a task shows more than 100 frames."""
        longest = max((window.count for source in sources for window in self.of(source)), default=0)
        return "polygon" if longest > BRUSH_FRAMES else "brush"


def whole(windows: Sequence[Window], source: SourceVideo) -> bool:
    """Tell whether one task shows every frame of a video: such a task needs no window in its data."""
    return list(windows) == [Window(0, source.info.frame_count)]
