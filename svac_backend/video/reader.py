"""Video files as exact frames by 0-based index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video.array import ArrayVideo
from svac_backend.video.decode import FramePass, RgbConverter
from svac_backend.video.index import FrameIndex
from svac_backend.video.probe import probe
from svac_backend.video.source import VideoInfo, VideoSource, check_indices, check_size, check_windows

__all__ = ["ArrayVideo", "VideoInfo", "VideoReader", "VideoSource"]


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
