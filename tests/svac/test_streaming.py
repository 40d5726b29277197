"""Frames reach the model in order, all of them, never too many at a time, and errors reach the caller."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.svac import astc, streaming
from svac_backend.svac.astc import clip_images, plan
from svac_backend.svac.config import MethodConfig, SamConfig, SvacConfig, VisionConfig
from svac_backend.svac.streaming import FrameFeed, prefetch
from svac_backend.video.reader import ArrayVideo

CONFIG = SvacConfig(
    vision=VisionConfig(image_size=16, patch_size=8),
    sam=SamConfig(image_size=24),
    method=MethodConfig(num_clips=4, frames_per_clip=5, grid=(2, 2)),
)


class Counted(ArrayVideo):
    """Counts the frames that were decoded, and fails at one of them."""

    def __init__(self, frames: np.ndarray, fail_at: int | None = None) -> None:
        super().__init__(frames)
        self.decoded: list[int] = []
        self.fail_at = fail_at

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        for index, frame in super().frames(indices, size):
            if index == self.fail_at:
                raise SvacError("The file is damaged.", "Make it again.")
            self.decoded.append(index)
            yield index, frame


def video(count: int, **options: int) -> Counted:
    rng = np.random.default_rng(count)
    return Counted(rng.integers(0, 255, (count, 20, 30, 3), np.uint8), **options)


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@given(items=st.lists(st.integers(), max_size=40), depth=st.integers(1, 5))
@settings(max_examples=25)
def test_prefetch_keeps_order_and_count(items: list[int], depth: int) -> None:
    assert list(prefetch(iter(items), depth)) == items
    assert not prefetch_threads()


def test_prefetch_raises_what_the_thread_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise SvacError("The file is damaged.", "Make it again.")

    stream = prefetch(items(), 2)
    assert next(stream) == 1
    with pytest.raises(SvacError, match="damaged"):
        next(stream)
    assert not prefetch_threads()


def test_prefetch_is_bounded_and_ends_its_thread_when_closed_early() -> None:
    made, closed = [], threading.Event()

    def items() -> Iterator[int]:
        try:
            for number in range(1000):
                made.append(number)
                yield number
        finally:
            closed.set()

    stream = prefetch(items(), 3)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(made) <= 5  # the one given, three that wait, one in hand
    stream.close()
    assert closed.is_set()
    assert not prefetch_threads()


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("count", "window"), [(1, 4), (7, 3), (23, 8), (40, 16), (41, 1)])
def test_windows_hold_every_frame_once_in_order(
    count: int, window: int, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HELD_BYTES", 1 << 30 if held else 0)
    source = video(count)
    clips = plan(count, CONFIG.method)
    feed = FrameFeed(source, clips, CONFIG)
    images = feed.clip_pixels()
    plain = [
        astc.resize(image, 16)
        for number in range(4)
        for image in clip_images([source.frame(i) for i in clips.clip(number)], (2, 2))
    ]
    assert np.array_equal(images, np.stack(plain))
    windows = list(feed.windows(window))
    assert [start for start, _ in windows] == list(range(0, count, window))
    pixels = np.concatenate([pixels for _, pixels in windows])
    assert np.array_equal(pixels, np.stack([astc.resize(source.frame(i), 24) for i in range(count)]))
    assert len(source.decoded) == (count if held else count + len(set(clips.selected)))
    assert not prefetch_threads()


def test_frames_that_are_asked_for_are_kept_of_a_large_video_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HELD_BYTES", 0)
    source = video(30)
    feed = FrameFeed(source, plan(30, CONFIG.method), CONFIG, frozenset({0, 29}))
    feed.clip_pixels()
    assert np.array_equal(feed.kept([29])[0], astc.resize(source.frame(29), 24))
    assert len(feed._small) == 2


def test_a_large_video_is_never_decoded_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HELD_BYTES", 0)
    source = video(400)
    feed = FrameFeed(source, plan(400, CONFIG.method), CONFIG)
    feed.clip_pixels()
    source.decoded.clear()
    windows = feed.windows(8)
    next(windows)
    time.sleep(0.3)
    # One window given, one that waits, one in the making, and the frames that wait for their resize.
    assert len(source.decoded) <= 3 * 8 + 2 * streaming.PENDING
    windows.close()
    assert not prefetch_threads()


def test_a_damaged_frame_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HELD_BYTES", 0)
    feed = FrameFeed(video(40, fail_at=33), plan(40, CONFIG.method), CONFIG)
    feed.clip_pixels()
    windows = feed.windows(8)
    assert [start for start, _ in itertools.islice(windows, 3)] == [0, 8, 16]
    with pytest.raises(SvacError, match="damaged"):
        list(windows)
    assert not prefetch_threads()
