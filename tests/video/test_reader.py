from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video import decode
from svac_backend.video.reader import VideoReader

Sequential = Callable[[Path], list[NDArray[np.uint8]]]
NumberOf = Callable[[NDArray[np.uint8]], int]

# Every way in which packets and frames may differ: reordering, hidden frames, open groups, refresh without
# key frames, two fields, no timestamps, formats of every chroma layout, sizes that no block size divides.
VIDEOS = {
    "mp4": {},
    "b-frames, short groups": {"options": {"g": "12", "bf": "3"}, "count": 100},
    "long groups": {"options": {"g": "40", "sc_threshold": "0"}, "count": 100},
    "open groups": {"options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}, "count": 60},
    "intra refresh": {"options": {"x264-params": "intra-refresh=1:keyint=12:scenecut=0"}, "count": 60},
    "intra refresh, mkv": {
        "name": "v.mkv",
        "options": {"x264-params": "intra-refresh=1:keyint=12"},
        "count": 60,
    },
    "interlaced": {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}},
    "fragments": {"options": {"g": "10"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "one frame": {"count": 1},
    "two frames": {"count": 2},
    "63x47 yuv444p": {"size": (63, 47), "pix_fmt": "yuv444p"},
    "62x46 lossless rgb": {"name": "v.mkv", "size": (62, 46), "pix_fmt": "bgra", "codec": "ffv1"},
    "10 bit": {"name": "v.mov", "codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "h265": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=10"}, "count": 50},
    "mpeg4 with b-frames": {"name": "v.avi", "codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "motion jpeg": {"name": "v.avi", "codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp8 with hidden frames": {
        "name": "v.webm",
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    },
    "vp9": {"name": "v.webm", "codec": "libvpx-vp9", "options": {"g": "10", "cpu-used": "8"}, "count": 50},
    "transport stream": {"name": "v.ts", "options": {"g": "40", "sc_threshold": "0"}, "count": 100},
    "raw stream": {"name": "v.h264"},
    "gif": {"name": "v.gif", "codec": "gif", "pix_fmt": "rgb8"},
    "variable rate": {"pts_ms": [i * 40 + 90 * (i // 7) for i in range(30)]},
    "rotated": {"rotation": 90, "size": (128, 64)},
}


@pytest.fixture(params=VIDEOS, ids=lambda name: name.replace(" ", "_"))
def video_path(request: pytest.FixtureRequest, make_video: Callable[..., Path]) -> Path:
    return make_video(**VIDEOS[request.param])


def test_frames_are_those_of_a_sequential_decode(
    request: pytest.FixtureRequest, video_path: Path, sequential: Sequential, number_of: NumberOf
) -> None:
    expected = sequential(video_path)
    upright = [np.rot90(image, -1) for image in expected] if "rotated" in request.node.name else expected
    assert [number_of(image) for image in upright] == list(range(len(expected)))
    with VideoReader(video_path) as video:
        assert len(video) == video.info.frame_count == len(video.index) == len(expected)
        assert expected[0].shape == (video.info.height, video.info.width, 3)
        _assert_same_everywhere(video, expected)


@pytest.mark.parametrize(
    "name", ["01_dog.mp4", "03_blocks.mp4", "bedroom.mp4", "no_valid_keyframes.mp4", "rotated_90.mp4"]
)
def test_frames_of_real_videos(real_videos: Path, name: str) -> None:
    with VideoReader(real_videos / name) as video, av.open(str(real_videos / name)) as container:
        last = len(video) - 1
        singles = {i: video.frame(i) for i in sorted({last, 0, min(255, last), 13, 14}, reverse=True)}
        container.streams.video[0].thread_type = "AUTO"
        images = (image for _, window in video.windows(16) for image in window)
        seen = 0
        for i, (image, frame) in enumerate(zip(images, container.decode(video=0), strict=True)):
            expected = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            assert np.array_equal(image, expected), i
            assert i not in singles or np.array_equal(singles[i], expected), i
            seen += 1
        assert seen == len(video)


def _assert_same_everywhere(video: VideoReader, expected: list[NDArray[np.uint8]]) -> None:
    count = len(expected)
    order = [*random.Random(7).sample(range(count), min(count, 12)), count - 1, 0, count - 1]
    for i in order:
        assert np.array_equal(video.frame(i), expected[i]), f"frame({i})"
    for step in (1, 7, 45):
        indices = range(step // 2 % count, count, step)
        found = list(video.frames(indices))
        assert [i for i, _ in found] == list(indices)
        assert all(np.array_equal(image, expected[i]) for i, image in found), f"frames in steps of {step}"
    for size, start, stop in ((1, 0, None), (4, count // 3, None), (count + 5, 0, None), (3, 0, count - 1)):
        end = count if stop is None else stop
        windows = list(video.windows(size, start, stop))
        assert [first for first, _ in windows] == list(range(start, end, size))
        images = [image for _, window in windows for image in window]
        assert len(images) == end - start
        assert all(np.array_equal(a, b) for a, b in zip(images, expected[start:end], strict=True))


def test_the_real_rotated_video_is_what_opencv_shows(real_videos: Path) -> None:
    path = real_videos / "rotated_90.mp4"
    shown = cv2.VideoCapture(str(path))
    with VideoReader(path) as video:
        assert (video.info.width, video.info.height, video.info.rotation) == (100, 200, 270)
        for i in range(len(video)):
            assert np.array_equal(video.frame(i), cv2.cvtColor(shown.read()[1], cv2.COLOR_BGR2RGB))


def test_scaled_frames_are_in_display_orientation(
    make_video: Callable[..., Path], number_of: NumberOf
) -> None:
    path = make_video(rotation=90, size=(128, 64))
    with VideoReader(path) as video:
        assert (video.info.width, video.info.height) == (64, 128)
        for i, small in video.frames([0, 11, 29], size=(32, 60)):
            assert small.shape == (60, 32, 3)
            assert number_of(np.rot90(small, -1)) == i


def test_sparse_frames_are_found_by_seeking(make_video: Callable[..., Path], number_of: NumberOf) -> None:
    path = make_video(count=400, options={"g": "40", "sc_threshold": "0"})
    with VideoReader(path) as video:
        decoded = _count_decoded(video)
        assert [number_of(image) for _, image in video.frames([0, 200, 399])] == [0, 200, 399]
        assert number_of(video.frame(321)) == 321
        assert decoded() < 50


def _count_decoded(video: VideoReader) -> Callable[[], int]:
    count = 0
    original = decode.FramePass._decode

    def counting(self: decode.FramePass) -> object:
        nonlocal count
        count += 1
        return original(self)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(decode.FramePass, "_decode", counting)

    def result() -> int:
        monkeypatch.undo()
        return count

    return result


def test_ascending_frames_are_decoded_once(make_video: Callable[..., Path]) -> None:
    with VideoReader(make_video()) as video:
        decoded = _count_decoded(video)
        for i in (0, 0, 1, 2, 2, 20, 29):
            video.frame(i)
        assert decoded() == 30


def test_a_frame_belongs_to_the_caller(make_video: Callable[..., Path]) -> None:
    with VideoReader(make_video()) as video:
        before = video.frame(3).copy()
        video.frame(3)[:] = 0
        assert np.array_equal(video.frame(3), before)


def test_iterators_and_threads_do_not_disturb_each_other(
    make_video: Callable[..., Path], sequential: Sequential
) -> None:
    path = make_video(count=60, options={"g": "10"})
    expected = sequential(path)
    with VideoReader(path) as video:
        one, two = video.frames(range(0, 60, 2)), video.windows(5)
        for (i, image), (first, window) in zip(one, two, strict=False):
            assert np.array_equal(image, expected[i])
            assert np.array_equal(window[-1], expected[first + 4])
            assert np.array_equal(video.frame(59 - i), expected[59 - i])
        order = random.Random(3).choices(range(60), k=80)
        with ThreadPoolExecutor(4) as pool:
            assert all(map(np.array_equal, pool.map(video.frame, order), (expected[i] for i in order)))


def test_memory_does_not_grow_with_length(make_video: Callable[..., Path]) -> None:
    path = make_video(count=300, options={"preset": "ultrafast"})
    window_bytes = 10 * 128 * 96 * 3
    with VideoReader(path) as video:
        tracemalloc.start()
        try:
            windows = video.windows(10)
            while next(windows, None) is not None:
                pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert window_bytes < peak < 1.5 * window_bytes  # all frames would be 30 windows


def test_bad_requests(make_video: Callable[..., Path]) -> None:
    with VideoReader(make_video(count=5)) as video:
        for request in (
            lambda: video.frame(5),
            lambda: video.frame(-1),
            lambda: video.frame(1.5),  # type: ignore[arg-type]
            lambda: video.frames([0, 5]),
            lambda: video.frames([-1]),
            lambda: video.frames([2, 1]),
            lambda: video.frames([1, 1]),
            lambda: video.frames([0], size=(10, 0)),
            lambda: video.windows(0),
            lambda: video.windows(2, start=6),
            lambda: video.windows(2, start=-1),
            lambda: video.windows(2, start=3, stop=1),
            lambda: video.windows(2, stop=6),
        ):
            with pytest.raises(SvacError) as caught:
                request()
            assert caught.value.hint
        assert list(video.frames([])) == []
        assert list(video.windows(2, start=5)) == []


def test_numpy_indices_are_indices(make_video: Callable[..., Path], number_of: NumberOf) -> None:
    with VideoReader(make_video(count=5)) as video:
        assert number_of(video.frame(np.int64(3))) == 3  # type: ignore[arg-type]
        assert [i for i, _ in video.frames(np.array([1, 4]))] == [1, 4]  # type: ignore[arg-type]


def test_a_closed_reader_says_so(make_video: Callable[..., Path]) -> None:
    video = VideoReader(make_video(count=5))
    running = video.frames(range(5))
    next(running)
    video.close()
    video.close()
    for request in (lambda: video.frame(0), lambda: video.frames([0]), lambda: video.windows(2)):
        with pytest.raises(SvacError, match="closed"):
            request()
    assert len(list(running)) == 4


def test_fingerprint_is_of_the_file(make_video: Callable[..., Path]) -> None:
    path = make_video("a.mp4", count=5)
    assert VideoReader(path).fingerprint == VideoReader(str(path)).fingerprint
    assert VideoReader(path).fingerprint != VideoReader(make_video("b.mp4", count=6)).fingerprint
