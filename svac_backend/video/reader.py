"""Video files as exact frames by 0-based index.

Frames that are already in memory, as a video.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video.decode import FramePass, RgbConverter
from svac_backend.video.probe import probe
from svac_backend.video.source import (
    FrameIndex,
    VideoInfo,
    VideoSource,
    check_indices,
    check_size,
    check_windows,
)


class ArrayVideo:
    """A `VideoSource` over frames in memory; it never changes them.

    Args:
        frames: u8 [T, H, W, 3] RGB, at least one frame.
        fps: frames per second.

    Raises:
        SvacError: another shape or type, no frames, or a frame rate that is not positive.
    """

    def __init__(self, frames: NDArray[np.uint8], fps: float = 24.0) -> None:
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            kind = getattr(frames, "dtype", type(frames).__name__)
            raise SvacError(f"Frames must be an array of uint8, not {kind}.", "Scale to 0..255 and convert.")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise SvacError(
                f"Frames must have the shape [T, H, W, 3], not {list(frames.shape)}.",
                "Give RGB frames, at least one.",
            )
        if not math.isfinite(fps) or fps <= 0:
            raise SvacError(f"{fps} is no frame rate.", "Give frames per second, e.g. 24.")
        count, height, width, _ = frames.shape
        self._frames = frames
        self._index = FrameIndex(tuple(range(count)), 1 / Fraction(fps))
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
            digest.update(frame.tobytes())
        return f"array-{'x'.join(map(str, self._frames.shape))}-{digest.hexdigest()}"

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    def frame(self, i: int) -> NDArray[np.uint8]:
        """Return a copy of frame `i`; see `VideoSource.frame`."""
        return self._frames[self._index.check(i)].copy()

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index, copy of the frame); see `VideoSource.frames`."""
        chosen, size = check_indices(self._index, indices), check_size(size)
        return ((i, _scaled(self.frame(i), size)) for i in chosen)

    def windows(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of its first frame, copy of the frames); see `VideoSource.windows`."""
        windows = check_windows(len(self), size, start, stop)
        return ((w.start, self._frames[w.start : w.stop].copy()) for w in windows)


def _scaled(frame: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    if size is None:
        return frame
    scaled = VideoFrame.from_ndarray(frame).reformat(width=size[0], height=size[1], threads=1)
    return np.asarray(scaled.to_ndarray(), dtype=np.uint8)


class VideoReader:
    """A `VideoSource` over a video file, opened and indexed; it keeps one decoded frame at most.

    `frames` and `windows` decode on their own, so several may run at the same time and beside `frame`,
    also in several threads.

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
        """Return frame `i`; see `VideoSource.frame`. Frames in ascending order are decoded only once."""
        i = self.index.check(i)
        with self._lock:
            self._check_open()
            if self._last is None or self._last[0] != i:
                self._last = (i, self._converter.convert(self._pass.frame(i)))
            return self._last[1].copy()

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index, frame) of ascending, unique indices; see `VideoSource.frames`."""
        self._check_open()
        return self._decode(check_indices(self.index, indices), check_size(size))

    def windows(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of its first frame, frames); see `VideoSource.windows`."""
        self._check_open()
        return self._windows(check_windows(len(self), size, start, stop))

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

    def _windows(self, windows: Sequence[range]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        decoder, converter = FramePass(self._probe), RgbConverter(self._probe)
        try:
            for window in windows:
                frames = np.empty((len(window), self.info.height, self.info.width, 3), np.uint8)
                for i in window:
                    frames[i - window.start] = converter.convert(decoder.frame(i))
                yield window.start, frames
                del frames  # else two windows are held while the next one is decoded
        finally:
            decoder.close()


@contextmanager
def as_video(video: VideoSource | NDArray[np.uint8] | str | Path) -> Iterator[VideoSource]:
    """Yield what was given as a video; only a file that was opened here is closed at the end.

    Args:
        video: a video, frames u8 [T, H, W, 3] RGB, or the path of a video file.

    Raises:
        SvacError: see `VideoReader` and `ArrayVideo`.
    """
    if isinstance(video, str | Path):
        with VideoReader(video) as reader:
            yield reader
    elif isinstance(video, np.ndarray):
        yield ArrayVideo(video)
    else:
        yield video
