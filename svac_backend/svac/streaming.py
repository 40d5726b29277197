"""Frames on their way to the model: decoded in a thread of their own, resized in others, never too many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from svac_backend.svac.astc import ClipPlan, clip_images
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.cpu import resampling
from svac_backend.svac.families.registry import family_of
from svac_backend.svac.sam.grounding import FrameEncoder, Then
from svac_backend.video.source import VideoSource

T = TypeVar("T")
Image = NDArray[np.uint8]

# A video that is smaller than this, decoded, is decoded once; a larger one once for its clips and once more in order.
HELD_BYTES = 320 << 20
# Frames that wait for their resize, and windows that wait for the model.
PENDING, AHEAD = 8, 1


def prefetch(items: Iterable[T], depth: int) -> Generator[T]:
    """Yield items that a thread makes, at most `depth` of them ahead.

    An exception of the thread is raised here. Closing this generator early ends the thread and closes `items`.
    """
    queue: Queue[tuple[T] | BaseException | None] = Queue(depth)
    stop = Event()

    def put(item: tuple[T] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                queue.put(item, timeout=0.1)
                return
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((item,))
                if stop.is_set():
                    break
                del item  # else it is held while the next one is made
        except BaseException as error:  # noqa: BLE001 (raised again by the consumer)
            put(error)
        else:
            put(None)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
            del item
    finally:
        stop.set()
        while True:  # a thread that waits for room in the queue goes on at once
            try:
                queue.get_nowait()
            except Empty:
                break
        thread.join()


def resized(frames: Iterable[tuple[int, Image]], size: int) -> Iterator[tuple[int, Image]]:
    """Yield frames (index, u8 [H, W, 3]) in order as u8 [size, size, 3]; `PENDING` of them are resized at a time."""
    pending: deque[tuple[int, Future[Image]]] = deque()
    for index, frame in frames:
        pending.append((index, resampling.submit(resampling.resize, frame, size)))
        if len(pending) >= PENDING:
            first, future = pending.popleft()
            yield first, future.result()
    while pending:
        first, future = pending.popleft()
        yield first, future.result()


@dataclass
class FrameFeed:
    """The frames of one video in the two sizes that the model needs.

    Call `clip_pixels` first, or `keep_pixels`, then `windows`. A small video is decoded once, for both.

    Attributes:
        video: where the frames come from.
        clips: which frames the MLLM sees.
        config: sizes, and how clips become images.
        keep: frames whose SAM-2 pixels `kept` gives after `clip_pixels`, even of a large video.
        window: frames that are encoded at a time.
        encoder: makes their features; without one there are pixels only.
    """

    video: VideoSource
    clips: ClipPlan
    config: SvacConfig
    keep: frozenset[int] = frozenset()
    window: int = 16
    encoder: FrameEncoder | None = None
    _small: dict[int, Image] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether the video is decoded only once, its resized frames being held."""
        info, side = self.video.info, self.config.sam.image_size
        return len(self.video) * max(info.width * info.height, side * side) * 3 <= HELD_BYTES

    def clip_pixels(self) -> list[Image]:
        """Return what the MLLM sees, clip after clip: u8 [h, w, 3] each, of the size that the family gives them."""
        return self._read(range(self.clips.num_clips), set(self.clips.selected))

    def keep_pixels(self) -> None:
        """Read what `kept` gives where the MLLM's images are made by another feed."""
        self._read(range(0), set())

    def _read(self, numbers: range, selected: set[int]) -> list[Image]:
        """Return the images of these clips, whose frames are `selected`, and keep frames at SAM-2's size."""
        sam_size = self.config.sam.image_size
        keep = frozenset(range(len(self.video))) if self.held else self.keep
        # A clip's images are made as soon as its last frame is there, and its frames dropped.
        ends = {number: self.clips.clip(number)[-1] for number in numbers}
        next_clip = 0
        around: dict[int, Image] = {}
        images: list[Future[list[Image]]] = []
        small: dict[int, Future[Image]] = {}
        pending: deque[Future[Image] | Future[list[Image]]] = deque()
        frames = prefetch(self.video.frames(sorted(selected | keep)), PENDING)
        try:
            for index, frame in frames:
                if index in keep:
                    small[index] = resampling.submit(resampling.resize, frame, sam_size)
                    pending.append(small[index])
                if index in selected:
                    around[index] = frame
                while next_clip in ends and ends[next_clip] == index:
                    clip = [around[i] for i in self.clips.clip(next_clip)]
                    images.append(resampling.submit(self._images, clip))
                    pending.append(images[-1])
                    next_clip += 1
                    if next_clip in ends:
                        first = self.clips.clip(next_clip)[0]
                        around = {i: held for i, held in around.items() if i >= first}
                while len(pending) > PENDING:
                    pending.popleft().result()
        finally:
            frames.close()
        self._small = {index: future.result() for index, future in small.items()}
        return [image for future in images for image in future.result()]

    def _images(self, clip: Sequence[Image]) -> list[Image]:
        method = self.config.method
        fitted = family_of(self.config).fitted(self.config)
        frame = (clip[0].shape[0], clip[0].shape[1])
        return [fitted(image, frame) for image in clip_images(clip, method.grid, compress=method.astc)]

    def kept(self, indices: Sequence[int]) -> Image:
        """Return the SAM-2 pixels of frames of `keep`, u8 [k, S, S, 3]."""
        return np.stack([self._small[i] for i in indices])

    def features(self, then: Then[T]) -> Generator[list[T]]:
        """Yield what `then` makes of the parts of each window of the video; see `FrameEncoder.start`.

        Windows are encoded, and handed to `then`, one ahead.
        """
        if self.encoder is None:
            raise ValueError("A feed without an encoder has no features.")
        begun: deque[Callable[[], list[T]]] = deque()
        with closing(self.windows(self.window)) as windows:
            for start, pixels in windows:
                begun.append(self.encoder.start(start, pixels, then))
                if len(begun) > self.encoder.ahead:
                    yield begun.popleft()()
            for wait in begun:
                yield wait()

    def windows(self, size: int) -> Generator[tuple[int, Image]]:
        """Yield (index of its first frame, u8 [n, S, S, 3] for SAM-2) over the whole video, n <= `size`."""
        count = len(self.video)
        if self.held:
            for start in range(0, count, size):
                yield start, self.kept(range(start, min(start + size, count)))
            return
        yield from prefetch(self._decoded_windows(size), AHEAD)

    def _decoded_windows(self, size: int) -> Generator[tuple[int, Image]]:
        count, start = len(self.video), 0
        window: list[Image] = []
        for _, small in resized(self.video.frames(range(count)), self.config.sam.image_size):
            window.append(small)
            if len(window) == size or start + len(window) == count:
                yield start, np.stack(window)
                start += len(window)
                window = []
