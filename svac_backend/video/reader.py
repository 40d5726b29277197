"""Video files as exact frames by 0-based index, and frames in memory as a video."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video.decode import FramePass, RgbConverter
from svac_backend.video.probe import probe
from svac_backend.video.source import VideoSource, evenly_spaced


class VideoReader(VideoSource):
    """A video file, opened and indexed; it keeps one decoded frame at most.

    `frame` decodes frames in ascending order only once. `frames` and `windows` decode on their own, so several may run
    at the same time and beside `frame`, also in several threads.

    Args:
        path: a video file.
        max_side: largest width or height in pixels.
        max_frames: largest number of frames.

    Raises:
        SvacError: no such file, not a video, no frames, cut off or damaged, too large, or too long.
    """

    def __init__(self, path: str | Path, *, max_side: int = 8192, max_frames: int = 20000) -> None:
        self._probe = probe(Path(path), max_side=max_side, max_frames=max_frames)
        super().__init__(self._probe.info, self._probe.index)
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
    def fingerprint(self) -> str:
        """The file's size and modification time, and its number of frames."""
        size, modified = self._probe.signature
        return f"file-{size}-{modified}-{len(self)}"

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

    def _read(self, i: int) -> NDArray[np.uint8]:
        with self._lock:
            self._check_open()
            if self._last is None or self._last[0] != i:
                self._last = (i, self._converter.convert(self._pass.frame(i)))
            return self._last[1].copy()

    def _decode(
        self, indices: Sequence[int], size: tuple[int, int] | None
    ) -> Generator[tuple[int, NDArray[np.uint8]]]:
        decoder, converter = FramePass(self._probe), RgbConverter(self._probe)
        try:
            for i in indices:
                yield i, converter.convert(decoder.frame(i), size)
        finally:
            decoder.close()


class ArrayVideo(VideoSource):
    """Frames in memory; it never changes them.

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
        count, height, width, _ = frames.shape
        super().__init__(*evenly_spaced(width, height, count, fps, "array"))
        self._frames = frames

    @property
    def fingerprint(self) -> str:
        """A hash of all pixels."""
        digest = hashlib.blake2b(digest_size=16)
        for frame in self._frames:
            digest.update(frame.tobytes())
        return f"array-{'x'.join(map(str, self._frames.shape))}-{digest.hexdigest()}"

    def _read(self, i: int) -> NDArray[np.uint8]:
        return self._frames[i].copy()


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
