"""Windows of chosen frames: the same pixels in every order, and never more frames in memory than allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.svac import astc
from svac_backend.svac.sam import tracking
from svac_backend.svac.sam.tracking import SweepFrames
from svac_backend.svac.streaming import PENDING
from svac_backend.synthetic.video import write_mp4
from svac_backend.video.reader import ArrayVideo, VideoReader

SIZE = 32
ONE = SIZE * SIZE * 3
CHOSEN = [0, 1, 2, 5, 6, 7, 8, 9, 20, 33, 34, 35, 36, 39]


class CountingVideo(ArrayVideo):
    """Counts which frames are read."""

    def __init__(self, frames: NDArray[np.uint8]) -> None:
        super().__init__(frames)
        self.read: list[int] = []

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for index, frame in super().frames(indices, size):
            self.read.append(index)
            yield index, frame


@pytest.fixture
def video() -> CountingVideo:
    return CountingVideo(np.random.default_rng(1).integers(0, 255, (40, 24, 40, 3), np.uint8))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("window", [1, 3, 50])
@pytest.mark.parametrize("held_bytes", [1 << 20, 6 * ONE, 1])
def test_every_chosen_frame_once_in_order(
    video: CountingVideo, window: int, held_bytes: int, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "HELD_BYTES", held_bytes)
    source = SweepFrames(video, SIZE, CHOSEN)
    windows = list(source.windows(CHOSEN, window, reverse=reverse))
    assert [i for indices, _ in windows for i in indices] == (CHOSEN[::-1] if reverse else CHOSEN)
    for indices, pixels in windows:
        assert len(indices) <= window
        for index, small in zip(indices, pixels, strict=True):
            assert np.array_equal(small, astc.resize(video.frame(index), SIZE))
    assert sorted(video.read) == CHOSEN  # nothing else is touched, nothing is read twice in a sweep


def test_a_small_video_is_decoded_once(video: CountingVideo) -> None:
    source = SweepFrames(video, SIZE, CHOSEN)
    for reverse in (False, True):
        assert sum(len(pixels) for _, pixels in source.windows(CHOSEN[3:], 4, reverse=reverse)) == 11
    assert sorted(video.read) == CHOSEN


def test_backwards_holds_no_more_than_it_may(video: CountingVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that are read and not yet given, with what the thread has ready: within the bound of 12 frames."""
    monkeypatch.setattr(tracking, "HELD_BYTES", 12 * ONE)
    source = SweepFrames(video, SIZE, range(40))
    given, ahead = 0, []
    for indices, _ in source.windows(range(40), 2, reverse=True):
        given += len(indices)
        ahead.append(len(video.read) - given)
    assert given == 40
    # Blocks of 6; the decoder may be `PENDING` frames into the next one, which are not resized yet.
    assert max(ahead) <= 12 + 2 * PENDING


def test_no_frames_no_windows(video: CountingVideo) -> None:
    assert list(SweepFrames(video, SIZE, CHOSEN).windows([], 4, reverse=True)) == []
    assert video.read == []


def test_a_damaged_video_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.mp4"
    write_mp4(np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8), path, 12.0)
    with VideoReader(path) as reader:
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle:] = bytes(len(data) - middle)
        path.write_bytes(bytes(data))
        monkeypatch.setattr(tracking, "HELD_BYTES", 1)
        source = SweepFrames(reader, SIZE, range(30))
        with pytest.raises(SvacError):
            list(source.windows(range(30), 4, reverse=True))
