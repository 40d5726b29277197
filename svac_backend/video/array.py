"""Frames that are already in memory, as a video."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video.index import FrameIndex
from svac_backend.video.source import VideoInfo, check_indices, check_size, check_windows


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
