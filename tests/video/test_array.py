from __future__ import annotations

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.video.reader import ArrayVideo
from svac_backend.video.source import VideoSource

FRAMES = np.random.default_rng(0).integers(0, 256, (7, 6, 9, 3), dtype=np.uint8)


def test_it_is_a_video_source() -> None:
    video: VideoSource = ArrayVideo(FRAMES, fps=12.5)
    assert (video.info.width, video.info.height, video.info.frame_count, len(video)) == (9, 6, 7, 7)
    assert (video.info.fps, video.info.duration) == (12.5, 0.56)
    assert (video.index.pts, float(video.index.time_base)) == (tuple(range(7)), 0.08)


def test_frames_and_windows_are_the_array() -> None:
    video = ArrayVideo(FRAMES)
    assert np.array_equal(video.frame(6), FRAMES[6])
    assert [i for i, _ in video.frames([0, 3, 6])] == [0, 3, 6]
    assert all(np.array_equal(frame, FRAMES[i]) for i, frame in video.frames([0, 3, 6]))
    windows = list(video.windows(3, start=1))
    assert [(first, len(frames)) for first, frames in windows] == [(1, 3), (4, 3)]
    assert np.array_equal(np.concatenate([frames for _, frames in windows]), FRAMES[1:])


def test_nobody_can_change_the_array_through_it() -> None:
    frames = FRAMES.copy()
    video = ArrayVideo(frames)
    video.frame(0)[:] = 0
    next(video.windows(2))[1][:] = 0
    next(video.frames([0]))[1][:] = 0
    assert np.array_equal(frames, FRAMES)


def test_scaled() -> None:
    flat = np.full((2, 40, 60, 3), (200, 100, 50), np.uint8)
    (_, small), (_, other) = ArrayVideo(flat).frames([0, 1], size=(30, 20))
    assert small.shape == other.shape == (20, 30, 3)
    assert np.abs(small.astype(int) - (200, 100, 50)).max() <= 2


def test_fingerprint_tells_pixels_apart() -> None:
    other = FRAMES.copy()
    other[3, 2, 2, 0] ^= 1
    assert ArrayVideo(FRAMES).fingerprint == ArrayVideo(FRAMES.copy()).fingerprint
    assert ArrayVideo(FRAMES).fingerprint != ArrayVideo(other).fingerprint


@pytest.mark.parametrize(
    "frames",
    [FRAMES.astype(np.float32), FRAMES[0], FRAMES[:0], FRAMES[..., :2], FRAMES[:, :0], FRAMES.tolist()],
)
def test_other_arrays_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(SvacError, match="Frames must"):
        ArrayVideo(frames)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_other_rates_are_refused(fps: float) -> None:
    with pytest.raises(SvacError, match="no frame rate"):
        ArrayVideo(FRAMES, fps=fps)


def test_bad_requests() -> None:
    video = ArrayVideo(FRAMES)
    for request in (
        lambda: video.frame(7),
        lambda: video.frame(-1),
        lambda: video.frames([0, 7]),
        lambda: video.frames([1, 0]),
        lambda: video.frames([1, 1]),
        lambda: video.frames([0], size=(0, 5)),
        lambda: video.windows(0),
        lambda: video.windows(2, start=8),
        lambda: video.windows(2, start=-1),
        lambda: video.windows(2, start=3, stop=2),
        lambda: video.windows(2, stop=8),
    ):
        with pytest.raises(SvacError):
            request()
    assert list(video.windows(2, start=7)) == []
