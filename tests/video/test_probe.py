from __future__ import annotations

import os
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.video import probe as probe_module
from svac_backend.video.reader import VideoReader

MakeVideo = Callable[..., Path]


def refused(path: Path, *words: str, **limits: int) -> None:
    """Check that opening is refused at once, with all words in the message and a hint."""
    started = time.monotonic()
    with pytest.raises(SvacError) as caught:
        VideoReader(path, **limits)
    assert time.monotonic() - started < 5
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), 25, Fraction(30000, 1001), 30, 60])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.avi"])
def test_constant_rate(make_video: MakeVideo, name: str, rate: Fraction | int) -> None:
    info = VideoReader(make_video(name, count=40, rate=rate, size=(64, 48))).info
    assert info.fps == pytest.approx(float(rate), rel=1e-6)
    assert info.duration == pytest.approx(40 / float(rate), rel=1e-6)
    assert (info.width, info.height, info.frame_count) == (64, 48, 40)
    assert (info.variable_frame_rate, info.rotation, info.codec) == (False, 0, "h264")


def test_variable_rate(make_video: MakeVideo) -> None:
    pts = [0, 40, 80, 200, 210, 300, 340, 380, 500, 510]
    video = VideoReader(make_video(count=10, pts_ms=pts))
    assert video.info.variable_frame_rate
    assert video.info.fps == pytest.approx(9 / 0.51)
    ticks = [p - video.index.pts[0] for p in video.index.pts]
    assert [tick * video.index.time_base for tick in ticks] == [Fraction(p, 1000) for p in pts]


@pytest.mark.parametrize(("turn", "clockwise"), [(0, 0), (90, 270), (180, 180), (270, 90)])
def test_rotation_is_told_clockwise(make_video: MakeVideo, turn: int, clockwise: int) -> None:
    # FFmpeg counts the display matrix counterclockwise.
    info = VideoReader(make_video(count=2, size=(64, 48), rotation=turn)).info
    assert info.rotation == clockwise
    assert (info.width, info.height) == ((48, 64) if turn in (90, 270) else (64, 48))


def test_one_frame_has_the_declared_rate(make_video: MakeVideo) -> None:
    info = VideoReader(make_video(count=1, rate=50)).info
    assert (info.frame_count, info.fps, info.duration) == (1, 50, 0.02)


def test_opening_reads_packets_only(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "_decoded_pts", lambda *_: pytest.fail("decoded the whole file"))
    for options in ({"bf": "3"}, {"x264-params": "open-gop=1:keyint=12"}):
        assert len(VideoReader(make_video(count=40, options=options))) == 40


def test_opening_a_real_video_is_cheap(real_videos: Path) -> None:
    started = time.process_time()
    assert len(VideoReader(real_videos / "01_dog.mp4")) == 289
    assert time.process_time() - started < 0.4  # measured: 0.05; decoding it takes 0.9


def test_an_edit_list_hides_frames(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "_decoded_pts", lambda *_: pytest.fail("decoded the whole file"))
    whole = make_video(count=60, options={"g": "10", "bf": "2"})
    path = tmp_path / "edited.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts -= 25 * 512
                packet.dts -= 25 * 512
                packet.stream = stream
                target.mux(packet)
    with VideoReader(path) as video, av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(video) == len(expected) == 35
        assert all(np.array_equal(image, expected[i]) for i, image in video.frames(range(35)))
        assert np.array_equal(video.frame(34), expected[34])


def test_glued_recordings(make_video: MakeVideo, tmp_path: Path) -> None:
    path = tmp_path / "glued.ts"
    path.write_bytes(make_video("v.ts", count=50).read_bytes() * 2)
    with VideoReader(path) as video:
        assert (len(video), video.info.fps, video.info.variable_frame_rate) == (100, 25, False)
        assert np.array_equal(video.frame(70), video.frame(20))


def test_a_cover_picture_is_no_video(make_video: MakeVideo, tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    picture = av.VideoFrame(32, 32, "yuvj420p")
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(picture))
        _silence(container, sound)
    refused(path, "song.m4a", "only has sound")


def test_only_sound(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        _silence(container, container.add_stream("aac", rate=44100, layout="mono"))
    refused(path, "song.mp4", "only has sound")


def _silence(container: av.container.OutputContainer, stream: av.AudioStream) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 44100
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def test_no_such_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.mp4", "none.mp4", "No such file")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", "not a plain file")


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    refused(path, "empty.mp4", "0 bytes")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.avi", "a"])
@pytest.mark.parametrize(
    "content",
    [
        "Not a video, only words.\n" * 200,
        "ffconcat version 1.0\nfile video.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nvideo.mp4\n#EXT-X-ENDLIST\n",
    ],
    ids=["words", "concat list", "playlist"],
)
def test_a_text_file(make_video: MakeVideo, tmp_path: Path, name: str, content: str) -> None:
    make_video("video.mp4", count=2)  # FFmpeg would follow the lists to it
    (tmp_path / name).write_text(content)
    refused(tmp_path / name, "not a video")


def test_a_name_is_no_protocol(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video("video.mp4", count=2).rename(tmp_path / "concat:a|b.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(VideoReader("concat:a|b.mp4")) == 2


def test_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
    refused(path, "none.avi", "no frames that can be read")


@pytest.mark.parametrize(
    ("name", "options", "promise"),
    [
        ("v.mp4", {"movflags": "faststart"}, "promises 60"),
        ("v.mp4", {"movflags": "frag_keyframe+empty_moov"}, ""),
        ("v.avi", {}, "promises 60"),
        ("v.mkv", {}, ""),
        ("v.webm", {}, ""),
    ],
)
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_cut_file_tells_how_many_frames_are_left(
    make_video: MakeVideo, name: str, options: dict[str, str], promise: str, kept: float
) -> None:
    codec = "libvpx-vp9" if name == "v.webm" else "libx264"
    path = make_video(name, 60, codec=codec, container_options=options, options={"g": "12", "cpu-used": "8"})
    data = path.read_bytes()
    # AVI and fragmented MP4 end with an index that is not needed.
    data = data[: data.rfind(b"idx1")] if b"idx1" in data else data
    data = data[: data.rfind(b"mfra")] if b"mfra" in data else data
    path.write_bytes(data[: int(len(data) * kept)])
    readable = _readable(path)
    assert (50 if kept > 0.9 else 10) < readable < (60 if kept > 0.9 else 31)
    refused(path, "cut off", promise, f"only {readable} frames could be read")


def _readable(path: Path) -> int:
    count = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        try:
            for packet in container.demux(stream):
                count += len(packet.decode())
        except av.FFmpegError:
            count += len(stream.decode(None))
    return count


def test_a_cut_file_without_its_table(make_video: MakeVideo) -> None:
    path = make_video("v.mp4", 60)
    data = path.read_bytes()
    path.write_bytes(data[:-100])  # the table is at the end
    refused(path, "no frames that can be read")
    path.write_bytes(data[: len(data) // 2])
    refused(path, "not a video that can be opened")


def test_too_wide_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wide.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 20000, 16, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame(20000, 16, "yuvj420p")))
        container.mux(stream.encode())
    assert VideoReader(path, max_side=20000).info.width == 20000
    monkeypatch.setattr(probe_module, "_first_frame", lambda _: pytest.fail("decoded"))
    refused(path, "20000x16", "8192")


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "libx264"), ("v.avi", "mpeg4"), ("v.mkv", "libvpx")])
def test_too_many_frames(make_video: MakeVideo, name: str, codec: str) -> None:
    path = make_video(name, 31, codec=codec)
    assert len(VideoReader(path, max_frames=31)) == 31
    refused(path, "more than 30 frames", max_frames=30)


def test_damaged_bytes_are_an_error_or_a_video(make_video: MakeVideo, tmp_path: Path) -> None:
    """Whatever the damage: a `SvacError`, or as many frames as promised; never a hang, never another error."""
    random = np.random.default_rng(5)
    outcomes = set()
    for name in ("v.mp4", "v.mkv", "v.ts", "v.avi"):
        source = make_video(name, 30, options={"g": "10"}).read_bytes()
        for trial in range(12):
            data = bytearray(source)
            reach = len(data) if trial % 2 else 600
            for at in random.integers(0, min(reach, len(data)), size=1 + trial):
                data[at] = random.integers(256)
            path = tmp_path / f"damaged{Path(name).suffix}"
            path.write_bytes(data)
            try:
                video = VideoReader(path, max_frames=1000)
                assert sum(len(window) for _, window in video.windows(8)) == len(video)
                outcomes.add("video")
            except SvacError:
                outcomes.add("error")
    assert outcomes == {"video", "error"}


def _remux(source: Path, target: Path, keep: Callable[[int, av.Packet], bool]) -> None:
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = (packet for packet in old.demux(video=0) if packet.size)
        for position, packet in enumerate(packets):
            if keep(position, packet):
                packet.stream = stream
                new.mux(packet)


def test_leading_frames_that_nothing_can_decode_are_no_frames(make_video: MakeVideo, tmp_path: Path) -> None:
    """A recording that was cut at an open group starts with frames whose references are gone."""
    options = {"x264-params": "open-gop=1:keyint=12:min-keyint=1:bframes=3:b-adapt=0:scenecut=0"}
    whole, path = make_video("whole.ts", 60, options=options), tmp_path / "cut.ts"
    keys = 0

    def from_second_key(_: int, packet: av.Packet) -> bool:
        nonlocal keys
        keys += packet.is_keyframe
        return keys > 1

    _remux(whole, path, from_second_key)
    with av.open(str(path)) as container:
        packets = sum(1 for packet in container.demux(video=0) if packet.size)
    with VideoReader(path) as video, av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(video) == len(expected) < packets
        assert all(np.array_equal(image, expected[i]) for i, image in video.frames(range(len(video))))


def test_a_cut_between_two_packets_is_noticed(make_video: MakeVideo) -> None:
    path = make_video("v.avi", 60, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        ends = [packet.pos + 8 + packet.size for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: ends[19]])
    refused(path, "cut off", "promises 60 frames, but only 20 frames")


def test_interlaced_video_is_decoded_once_at_opening(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
    monkeypatch.setattr(probe_module, "_decoded_pts", lambda *_: [0, 512])
    assert len(VideoReader(path)) == 2  # packets may be half frames


@pytest.mark.parametrize(
    ("pts", "expected"),
    [
        ([0, 2, 1, 3, 5, 4], [0, 3]),
        ([0, 2, 1, 4, 3, 5], [0]),  # a frame of the new group is shown before its key frame
        ([0, 2, 4, 3, 1, 5], [0]),  # a frame of the old group is shown after the new key frame
    ],
)
def test_seek_points_are_borders_on_the_screen_too(pts: list[int], expected: list[int]) -> None:
    assert probe_module._seek_points(pts, [0, 3]) == expected
