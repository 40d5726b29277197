"""What a video is to the rest of the project: its facts, its index, and frames by 0-based index.

The one place that converts between frame index and Label Studio's frame and time. Inside this project a frame is a
0-based index in display order. There are two other ways to count:

* the timestamp (pts) of the file, in ticks of its time base, with an arbitrary start;
* Label Studio's `VideoRectangle`: frames are 1-based and `time = frame / framerate`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from operator import index as as_integer

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from svac_backend.errors import SvacError


@dataclass(frozen=True)
class FrameIndex:
    """The timestamps of every frame of a video.

    Attributes:
        pts: timestamp of frame 0, 1, 2, ..., in ticks of `time_base`, strictly ascending, at least one.
        time_base: length of one tick in seconds.
    """

    pts: tuple[int, ...]
    time_base: Fraction

    def __post_init__(self) -> None:
        if not self.pts:
            raise SvacError("The video has no frames.", "Give a video with at least one frame.")
        if self.time_base <= 0 or any(b <= a for a, b in pairwise(self.pts)):
            raise SvacError(
                "The video's timestamps do not ascend.",
                "Re-encode it, e.g. `ffmpeg -i in.mp4 -r 25 out.mp4`.",
            )

    def __len__(self) -> int:
        return len(self.pts)

    def check(self, index: int) -> int:
        """Return `index` as an int.

        Raises:
            SvacError: it is no whole number, negative, or behind the last frame.
        """
        try:
            value = as_integer(index)
        except TypeError as error:
            raise SvacError(
                f"A frame index must be a whole number, not {index!r}.", self._range_hint()
            ) from error
        if not 0 <= value < len(self.pts):
            raise SvacError(f"The video has no frame {value}.", self._range_hint())
        return value

    def to_label_studio(self, index: int, fps: float) -> tuple[int, float]:
        """Return Label Studio's (1-based frame, time in seconds) of a 0-based frame index.

        Args:
            index: 0-based frame index.
            fps: the frame rate that the labelling config gives its `<Video framerate>` tag.

        Raises:
            SvacError: no such frame, or a frame rate that is not positive.
        """
        if not math.isfinite(fps) or fps <= 0:
            raise SvacError(f"{fps} is no frame rate.", "Give the video's true frame rate, e.g. 29.97.")
        frame = self.check(index) + 1
        return frame, frame / fps

    def from_label_studio(self, frame: int) -> int:
        """Return the 0-based frame index of Label Studio's 1-based frame number.

        Raises:
            SvacError: no whole number, or the video has no such frame.
        """
        try:
            value = as_integer(frame)
        except TypeError as error:
            raise SvacError(
                f"A frame number must be a whole number, not {frame!r}.", self._range_hint()
            ) from error
        if not 1 <= value <= len(self.pts):
            raise SvacError(
                f"The video has no Label Studio frame {value}.",
                f"Label Studio counts this video's frames from 1 to {len(self.pts)}.",
            )
        return value - 1

    def _range_hint(self) -> str:
        return f"Frames of this video are counted from 0 to {len(self.pts) - 1}."


def build_index(
    pts: Sequence[int | None], time_base: Fraction | None, declared_rate: Fraction | None
) -> FrameIndex:
    """Return the index of frames with the timestamps that a decoder gave, in the order it gave them.

    Args:
        pts: a timestamp per frame in ticks; None where the file has none.
        time_base: length of a tick in seconds.
        declared_rate: frames per second that the file declares.

    Frames without timestamps (a raw stream) follow each other at the declared rate, or 25 per second. Where
    timestamps jump back by more than a second, recordings were glued together: the later one is moved
    behind the earlier one. A smaller step back or a repeated timestamp is moved on by one tick, so that every
    frame keeps an index of its own.

    Raises:
        SvacError: no frames.
    """
    known = [p for p in pts if p is not None]
    if len(known) < len(pts) or not time_base:
        return FrameIndex(tuple(range(len(pts))), 1 / (declared_rate or Fraction(25)))
    moved = known[:1]
    offset, gap = 0, 1
    for before, value in pairwise(known):
        if (value - before) * time_base < -1:
            offset = moved[-1] + gap - value
        elif value > before:
            gap = value - before
        moved.append(max(value + offset, moved[-1] + 1))
    return FrameIndex(tuple(moved), time_base)


def playable_rate(fps: float | None) -> float | None:
    """Return a frame rate that `OverlayWriter` and players take, 0.001 to 1000 frames per second, or else None.

    Recordings with broken timestamps claim others, such as 10,227.
    """
    return fps if fps is not None and 0.001 <= fps <= 1000 else None


def average_rate(index: FrameIndex, declared_rate: Fraction | None) -> tuple[float, bool]:
    """Return (true average frames per second, whether the frames are unevenly spaced).

    The declared rate is believed only if it explains every timestamp to within one tick: coarse time bases
    (1 ms in Matroska) round them. One frame alone has the declared rate, or 25.
    """
    pts = index.pts
    if len(pts) == 1:
        return float(declared_rate or 25), False
    if declared_rate:
        step = 1 / (declared_rate * index.time_base)
        if all(abs(p - pts[0] - i * step) <= 1 for i, p in enumerate(pts)):
            return float(declared_rate), False
    mean = Fraction(pts[-1] - pts[0], len(pts) - 1)
    uneven = any(abs((b - a) - mean) > 1 + mean / 10 for a, b in pairwise(pts))
    return float(1 / (mean * index.time_base)), uneven


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


class VideoSource(ABC):
    """Frames u8 [H, W, 3] RGB in display orientation, counted from 0 in display order.

    Args:
        info: size, frame count, frame rate and so on.
        index: the timestamp of every frame.
    """

    def __init__(self, info: VideoInfo, index: FrameIndex) -> None:
        self.info, self.index = info, index

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Another string where the frames may be others."""

    def __len__(self) -> int:
        """Return the exact number of frames."""
        return len(self.index)

    def frame(self, i: int) -> NDArray[np.uint8]:
        """Return frame `i`, u8 [H, W, 3] RGB, owned by the caller.

        Raises:
            SvacError: no such frame, the file is damaged there, or the source is closed.
        """
        return self._read(self.index.check(i))

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
        self._check_open()
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise SvacError(f"{size} is no picture size.", "Give (width, height) in pixels, 1 or more.")
        return self._decode(check_indices(self.index, indices), size)

    def windows(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of its first frame, u8 [n, H, W, 3] RGB) for the frames `start` to `stop` - 1.

        n is `size`, or less in the last window. The source keeps no window: memory does not grow.

        Raises:
            SvacError: at the call: a size below 1, a range outside the video, a closed source;
                while iterating: the file is damaged.
        """
        self._check_open()
        end = len(self) if stop is None else stop
        if size < 1:
            raise SvacError(f"A window cannot hold {size} frames.", "Give a window of 1 frame or more.")
        if not 0 <= start <= end <= len(self):
            raise SvacError(
                f"The frames from {start} up to {end} are not a part of the video.",
                f"Give a start and a stop between 0 and {len(self)}.",
            )
        return self._windows(size, range(start, end))

    @abstractmethod
    def _read(self, i: int) -> NDArray[np.uint8]:
        """Return frame `i`, which exists; see `frame`."""

    def _decode(
        self, indices: Sequence[int], size: tuple[int, int] | None
    ) -> Generator[tuple[int, NDArray[np.uint8]]]:
        """Yield what `frames` promises, of indices and a size that were checked."""
        for i in indices:
            frame = self._read(i)
            if size is not None:
                scaled = VideoFrame.from_ndarray(frame).reformat(width=size[0], height=size[1], threads=1)
                frame = np.asarray(scaled.to_ndarray(), dtype=np.uint8)
            yield i, frame

    def _windows(self, size: int, chosen: range) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        with closing(self._decode(chosen, None)) as frames:
            for first in chosen[::size]:
                count = min(size, chosen.stop - first)
                window = np.empty((count, self.info.height, self.info.width, 3), np.uint8)
                for k, (_, frame) in enumerate(islice(frames, count)):
                    window[k] = frame
                yield first, window
                del window  # else two windows are held while the next one is decoded

    def _check_open(self) -> None:  # noqa: B027 (most sources are never closed)
        """Raise `SvacError` where the source was closed."""


def evenly_spaced(
    width: int, height: int, count: int, fps: float, codec: str
) -> tuple[VideoInfo, FrameIndex]:
    """Return what frames of their own are as a video, which no file tells: see `VideoInfo`.

    Raises:
        SvacError: no frames, or a frame rate that is not positive.
    """
    if not math.isfinite(fps) or fps <= 0:
        raise SvacError(f"{fps} is no frame rate.", "Give frames per second, e.g. 24.")
    index = FrameIndex(tuple(range(count)), 1 / Fraction(fps))
    return VideoInfo(width, height, count, float(fps), count / fps, 0, False, codec), index


def check_indices(index: FrameIndex, indices: Sequence[int]) -> list[int]:
    """Return frame indices as ints. Raises `SvacError` where one is out of range, or they do not ascend."""
    checked = [index.check(i) for i in indices]
    if any(b <= a for a, b in pairwise(checked)):
        raise SvacError("Frame indices must ascend and occur once.", "Give `sorted(set(indices))`.")
    return checked
