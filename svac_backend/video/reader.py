"""Videos as exact frames by 0-based index: from a file, or from an array."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video.decode import FramePass, RgbConverter
from svac_backend.video.index import FrameIndex
from svac_backend.video.probe import VideoInfo, probe

__all__ = ["ArrayVideo", "VideoInfo", "VideoReader", "VideoSource"]


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
        """Changes when the frames may have changed."""

    def __len__(self) -> int:
        """Return the exact number of frames."""

    def frame(self, i: int) -> NDArray[np.uint8]:
        """Return frame `i`, u8 [H, W, 3]."""

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index, frame) of ascending indices in one pass.

        `size` (width, height) scales while decoding: a fast preview, not input for the model.
        """

    def windows(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of its first frame, u8 [n, H, W, 3]); n is `size`, less in the last window."""


class VideoReader:
    """A video file, opened and indexed; it holds one decoded frame at most.

    `frames` and `windows` decode on their own, so several may run at the same time and beside `frame`.

    Args:
        path: a video file.
        max_side: largest width or height in pixels.
        max_frames: largest number of frames.

    Raises:
        SvacError: no such file, not a video, no frames, cut off or damaged, too large, or too long.
    """

    def __init__(self, path: str | Path, *, max_side: int = 8192, max_frames: int = 20000) -> None:
        self._probe = probe(Path(path), max_side=max_side, max_frames=max_frames)
        self._lock = Lock()
        self._pass = FramePass(self._probe)
        self._converter = RgbConverter(self._probe)
        self._last: tuple[int, NDArray[np.uint8]] | None = None
        self._closed = False

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self._probe.path

    @property
    def info(self) -> VideoInfo:
        """Size, frame count, frame rate and so on."""
        return self._probe.info

    @property
    def index(self) -> FrameIndex:
        """The timestamp of every frame."""
        return self._probe.index

    @property
    def fingerprint(self) -> str:
        """The file's size and modification time, and its number of frames."""
        size, modified = self._probe.signature
        return f"file-{size}-{modified}-{len(self)}"

    def __len__(self) -> int:
        """Return the exact number of frames."""
        return self._probe.info.frame_count

    def frame(self, i: int) -> NDArray[np.uint8]:
        """Return frame `i`, u8 [H, W, 3] RGB. Frames asked for in ascending order are decoded once.

        Raises:
            SvacError: no such frame, the file is damaged there, or the reader is closed.
        """
        i = self.index.check(i)
        with self._lock:
            self._check_open()
            if self._last is None or self._last[0] != i:
                self._last = (i, self._converter.convert(self._pass.frame(i)))
            return self._last[1].copy()

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index, u8 [H, W, 3] RGB) of ascending, unique indices; decodes in one pass.

        Args:
            indices: 0-based frame indices.
            size: (width, height) to scale to by FFmpeg's bilinear filter: a fast preview, not model input.

        Raises:
            SvacError: at the call: an index out of range or out of order, a size below 1, a closed reader;
                while iterating: the file is damaged.
        """
        self._check_open()
        return self._decode(check_indices(self.index, indices), check_size(size))

    def windows(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of its first frame, u8 [n, H, W, 3] RGB) for the frames `start` to `stop` - 1.

        One window is held in memory at a time, if the caller drops the one before.

        Raises:
            SvacError: at the call: a size below 1, a range outside the video, a closed reader;
                while iterating: the file is damaged.
        """
        self._check_open()
        starts = check_windows(len(self), size, start, stop)
        end = len(self) if stop is None else stop
        return self._windows(starts, size, end)

    def close(self) -> None:
        """Close the file and drop the decoded frame; iterators that run go on."""
        with self._lock:
            self._closed = True
            self._last = None
            self._pass.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise SvacError(f"{self.path.name} is closed.", "Open a new VideoReader.")

    def _decode(
        self, indices: Sequence[int], size: tuple[int, int] | None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        decoder, converter = FramePass(self._probe), RgbConverter(self._probe)
        try:
            for i in indices:
                yield i, converter.convert(decoder.frame(i), size)
        finally:
            decoder.close()

    def _windows(self, starts: Sequence[int], size: int, end: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        decoded = self._decode(range(starts[0], end) if starts else (), None)
        for first in starts:
            count = min(size, end - first)
            window = np.empty((count, self.info.height, self.info.width, 3), np.uint8)
            for slot in window:
                slot[:] = next(decoded)[1]
            yield first, window


class ArrayVideo:
    """Frames that are already in memory.

    Args:
        frames: u8 [T, H, W, 3] RGB, at least one frame.
        fps: frames per second.

    Raises:
        SvacError: another shape or type, no frames, or a frame rate that is not positive.
    """

    def __init__(self, frames: NDArray[np.uint8], fps: float = 24.0) -> None:
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            kind = getattr(frames, "dtype", type(frames).__name__)
            raise SvacError(f"Frames must be an array of uint8, not {kind}.", "Scale them to 0..255 and convert.")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise SvacError(
                f"Frames must have the shape [T, H, W, 3], not {list(frames.shape)}.", "Give RGB frames, one at least."
            )
        if not 0 < fps < float("inf"):
            raise SvacError(f"{fps} is no frame rate.", "Give frames per second, e.g. 24.")
        self._frames = frames
        count, height, width, _ = frames.shape
        rate = Fraction(fps).limit_denominator(1001)
        self._index = FrameIndex(tuple(range(count)), 1 / (rate or Fraction(fps)))
        self._info = VideoInfo(width, height, count, float(fps), count / fps, 0, False, "array")

    @property
    def info(self) -> VideoInfo:
        """Size, frame count, frame rate and so on."""
        return self._info

    @property
    def index(self) -> FrameIndex:
        """The timestamp of every frame."""
        return self._index

    @property
    def fingerprint(self) -> str:
        """A hash of all pixels."""
        digest = hashlib.blake2b(digest_size=16)
        for frame in self._frames:
            digest.update(np.ascontiguousarray(frame))
        return f"array-{'x'.join(map(str, self._frames.shape))}-{digest.hexdigest()}"

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    def frame(self, i: int) -> NDArray[np.uint8]:
        """Return a copy of frame `i`, u8 [H, W, 3]. Raises `SvacError` where there is none."""
        return self._frames[self._index.check(i)].copy()

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index, frame) as `VideoReader.frames` does."""
        chosen, size = check_indices(self._index, indices), check_size(size)
        return ((i, _scaled(self.frame(i), size)) for i in chosen)

    def windows(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of its first frame, frames) as `VideoReader.windows` does; the frames are copies."""
        starts = check_windows(len(self), size, start, stop)
        end = len(self) if stop is None else stop
        return ((first, self._frames[first : min(first + size, end)].copy()) for first in starts)


def check_indices(index: FrameIndex, indices: Sequence[int]) -> list[int]:
    """Return frame indices as ints. Raises `SvacError` where one is out of range, or they do not ascend."""
    checked = [index.check(i) for i in indices]
    if any(b <= a for a, b in zip(checked, checked[1:], strict=False)):
        raise SvacError("Frame indices must ascend and occur once.", "Give `sorted(set(indices))`.")
    return checked


def check_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return a (width, height) to scale to, or None. Raises `SvacError` where a side is below 1."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise SvacError(f"{size} is no picture size.", "Give (width, height) in pixels, 1 or more.")
    return size


def check_windows(count: int, size: int, start: int, stop: int | None) -> range:
    """Return the first frames of all windows. Raises `SvacError` where the range is not in the video."""
    end = count if stop is None else stop
    if size < 1:
        raise SvacError(f"A window cannot hold {size} frames.", "Give a window of 1 frame or more.")
    if not 0 <= start <= end <= count:
        raise SvacError(
            f"The frames {start} to {end} are not a range of the video.", f"The video's frames end before {count}."
        )
    return range(start, end, size)


def _scaled(frame: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    if size is None:
        return frame
    return av.VideoFrame.from_ndarray(frame).reformat(width=size[0], height=size[1], threads=1).to_ndarray()
