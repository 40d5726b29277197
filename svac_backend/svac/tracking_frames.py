"""The frames of a sweep: windows of a video in either direction, never too many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import Future

import numpy as np

from svac_backend.svac import resizing
from svac_backend.svac.streaming import HELD_BYTES, Image, prefetch
from svac_backend.video.reader import VideoSource

# Frames that wait for their resize, and windows or blocks that wait for the model.
_PENDING, _AHEAD = 8, 1


class SweepFrames:
    """Chosen frames of one video at SAM-2's size, in windows, forwards and backwards.

    What fits into `held_bytes` is decoded once and held. Else each sweep decodes what it needs: forwards in one pass,
    backwards in blocks, since a video is decoded forwards only.

    Args:
        video: where the frames come from.
        size: S, the side of the model's pictures.
        chosen: all frames that will be asked for.
        held_bytes: most that is held of the resized frames, in bytes.
    """

    def __init__(
        self, video: VideoSource, size: int, chosen: Collection[int], *, held_bytes: int = HELD_BYTES
    ) -> None:
        self.video, self.size = video, size
        self._chosen = sorted(set(chosen))
        self._frames_held = max(1, held_bytes // (size * size * 3))
        self._held: dict[int, Image] | None = None

    def windows(
        self, indices: Sequence[int], window: int, *, reverse: bool = False
    ) -> Generator[tuple[list[int], Image]]:
        """Yield windows of some of the chosen frames: their indices and u8 [n, S, S, 3], n <= `window`.

        Args:
            indices: ascending, unique.
            window: most frames of a window.
            reverse: from the last frame to the first, within the windows too.
        """
        if not indices:
            return
        if len(self._chosen) <= self._frames_held:
            if self._held is None:
                self._held = dict(self._resized(self._chosen))
            ordered = list(reversed(indices)) if reverse else list(indices)
            for start in range(0, len(ordered), window):
                part = ordered[start : start + window]
                yield part, np.stack([self._held[i] for i in part])
            return
        made = self._backwards(indices, window) if reverse else self._forwards(indices, window)
        yield from prefetch(made, _AHEAD)

    def _forwards(self, indices: Sequence[int], window: int) -> Generator[tuple[list[int], Image]]:
        part: list[tuple[int, Image]] = []
        for item in self._resized(indices):
            part.append(item)
            if len(part) == window or item[0] == indices[-1]:
                yield [i for i, _ in part], np.stack([small for _, small in part])
                part = []

    def _backwards(self, indices: Sequence[int], window: int) -> Generator[tuple[list[int], Image]]:
        # A block in work, one being cut into windows, and windows that wait: together they stay within the bound.
        size = max(window, self._frames_held // 2 // window * window)
        for stop in range(len(indices), 0, -size):
            block = list(self._resized(indices[max(0, stop - size) : stop]))[::-1]
            for start in range(0, len(block), window):
                part = block[start : start + window]
                yield [i for i, _ in part], np.stack([small for _, small in part])

    def _resized(self, indices: Sequence[int]) -> Iterator[tuple[int, Image]]:
        pending: deque[tuple[int, Future[Image]]] = deque()
        frames = prefetch(self.video.frames(indices), _PENDING)
        try:
            for index, frame in frames:
                pending.append((index, resizing.submit(resizing.resize, frame, self.size)))
                if len(pending) >= _PENDING:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            frames.close()
