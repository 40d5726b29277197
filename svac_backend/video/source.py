"""What a video is to the rest of the project: its facts, its index, and frames by 0-based index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video.index import FrameIndex


@dataclass(frozen=True)
class VideoInfo:
    """What a video is.

    Attributes:
        width, height: display size in pixels, after rotation.
        frame_count: exact number of frames.
        fps: true average frame rate, frames per second.
        duration: seconds from the first frame to the end of the last.
        rotation: clockwise degrees that turn the stored picture into the shown one: 0, 90, 180 or 270.
        variable_frame_rate: the frames are not evenly spaced.
        codec: FFmpeg's name of the codec, e.g. `h264`; `array` for frames that came as an array.
    """

    width: int
    height: int
    frame_count: int
    fps: float
    duration: float
    rotation: int
    variable_frame_rate: bool
    codec: str


class VideoSource(Protocol):
    """Frames u8 [H, W, 3] RGB in display orientation, counted from 0 in display order."""

    @property
    def info(self) -> VideoInfo:
        """Size, frame count, frame rate and so on."""

    @property
    def index(self) -> FrameIndex:
        """The timestamp of every frame."""

    @property
    def fingerprint(self) -> str:
        """Another string where the frames may be others."""

    def __len__(self) -> int:
        """Return the exact number of frames."""

    def frame(self, i: int) -> NDArray[np.uint8]:
        """Return frame `i`, u8 [H, W, 3] RGB, owned by the caller.

        Raises:
            SvacError: no such frame, the file is damaged there, or the source is closed.
        """

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index, u8 [H, W, 3] RGB) of ascending, unique indices, decoded in one pass.

        Args:
            indices: 0-based frame indices.
            size: (width, height) to scale to by FFmpeg's bilinear filter: a fast preview, not model input.

        Raises:
            SvacError: at the call: an index out of range or out of order, a size below 1, a closed source;
                while iterating: the file is damaged.
        """

    def windows(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of its first frame, u8 [n, H, W, 3] RGB) for the frames `start` to `stop` - 1.

        n is `size`, or less in the last window. The source keeps no window: memory does not grow.

        Raises:
            SvacError: at the call: a size below 1, a range outside the video, a closed source;
                while iterating: the file is damaged.
        """


def check_indices(index: FrameIndex, indices: Sequence[int]) -> list[int]:
    """Return frame indices as ints. Raises `SvacError` where one is out of range, or they do not ascend."""
    checked = [index.check(i) for i in indices]
    if any(b <= a for a, b in pairwise(checked)):
        raise SvacError("Frame indices must ascend and occur once.", "Give `sorted(set(indices))`.")
    return checked


def check_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return a (width, height) to scale to, or None. Raises `SvacError` where a side is below 1."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise SvacError(f"{size} is no picture size.", "Give (width, height) in pixels, 1 or more.")
    return size


def check_windows(count: int, size: int, start: int, stop: int | None) -> list[range]:
    """Return the frames of each window. Raises `SvacError` where the range is not in the video."""
    end = count if stop is None else stop
    if size < 1:
        raise SvacError(f"A window cannot hold {size} frames.", "Give a window of 1 frame or more.")
    if not 0 <= start <= end <= count:
        raise SvacError(
            f"The frames from {start} up to {end} are not a part of the video.",
            f"Give a start and a stop between 0 and {count}.",
        )
    return [range(first, min(first + size, end)) for first in range(start, end, size)]
