"""One forward pass through a file: exact frames by index, converted to RGB in one way only."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video.container import REENCODE, opened, signature_of
from svac_backend.video.probe import Probe

_log = logging.getLogger(__name__)

# A seek opens the file anew, which costs about as much as decoding this many frames.
_SEEK_GAIN = 32


class RgbConverter:
    """Turns stored frames into RGB pictures in display orientation.

    Every path of the project converts here, so a frame has the same pixels however it was asked for. One
    thread converts: the result must not depend on the number of cores, and for one picture it is the fastest.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._reformatter = VideoReformatter()

    def convert(self, frame: VideoFrame, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Return u8 [H, W, 3] RGB, owned by the caller, scaled to `size` (width, height) if that is given."""
        turned = self._probe.orientation.transposed
        width, height = size[:: -1 if turned else 1] if size else (frame.width, frame.height)
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        return self._probe.orientation.apply(np.asarray(rgb.to_ndarray(), dtype=np.uint8))


class FramePass:
    """Decodes forward; goes back, or far ahead, by starting anew at a frame that resets the decoder.

    Every decoded frame's timestamp is compared with the index. After a seek that does not land where it
    should, the file is decoded from its start instead, and no other seek is tried.

    The same index always gives the same pixels, except on a frame that is damaged but still decoded: what
    FFmpeg puts in place of the damage may depend on the frames that it decoded before.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._seek_points = probe.seek_points
        self._stack = ExitStack()
        self._frames: Iterator[VideoFrame] = iter(())
        self._next = len(probe.decoded_pts)  # index of the frame that `_frames` gives next; none yet

    def frame(self, index: int) -> VideoFrame:
        """Return the decoded frame of a 0-based index that exists.

        Raises:
            SvacError: the file is damaged there, or changed since it was opened.
        """
        point = self._seek_points[bisect_right(self._seek_points, index) - 1]
        if index < self._next or point - self._next >= _SEEK_GAIN:
            self._start_at(point)
        while True:
            frame = self._decode()
            if self._next - 1 == index:
                return frame

    def close(self) -> None:
        """Close the file; a later `frame` opens it again."""
        self._stack.close()
        self._frames = iter(())
        self._next = len(self._probe.decoded_pts)

    def _start_at(self, point: int) -> None:
        wanted = self._probe.decoded_pts[point]
        if point and wanted is not None:
            self._open(seek_to=wanted)
            try:
                # Frames of an earlier key frame may come first.
                frame = next((f for f in self._frames if f.pts is not None and f.pts >= wanted), None)
            except av.FFmpegError:
                frame = None
            if frame is not None and frame.pts == wanted:
                self._frames = _chain(frame, self._frames)
                self._next = point
                return
            self._seek_points = (0,)
        self._open(seek_to=None)
        self._next = 0

    def _open(self, seek_to: int | None) -> None:
        self.close()
        if signature_of(self._probe.path) != self._probe.signature:
            raise SvacError(
                f"{self._probe.path.name} was changed while it was read.",
                "Run again when nothing writes to it.",
            )
        container, stream = self._stack.enter_context(opened(self._probe.path))
        if seek_to is not None:
            try:
                container.seek(seek_to, stream=stream)
            except av.FFmpegError:  # the container cannot seek: `_start_at` sees that no frame comes
                return
        self._frames = container.decode(stream)

    def _decode(self) -> VideoFrame:
        expected = self._probe.decoded_pts[self._next]
        try:
            frame = next(self._frames, None)
        except av.FFmpegError as error:
            raise self._damaged() from error
        if frame is None or frame.pts != expected:
            raise self._damaged()
        if (frame.width, frame.height) != self._probe.stored_size:
            raise SvacError(
                f"{self._probe.path.name} changes its picture size at frame {self._next}.", REENCODE
            )
        if frame.is_corrupt:  # a player would show it too, so it stays a frame
            _log.warning("Frame %d of %s is damaged; FFmpeg repaired it.", self._next, self._probe.path.name)
        self._next += 1
        return frame

    def _damaged(self) -> SvacError:
        return SvacError(
            f"{self._probe.path.name} is damaged: its frame {self._next} of {len(self._probe.decoded_pts)} "
            f"cannot be decoded, only the {self._next} frames before it.",
            REENCODE,
        )


def _chain(first: VideoFrame, rest: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield first
    yield from rest
