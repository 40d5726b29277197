from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest

from svac_backend.video.container import matroska_is_cut, resets_decoder
from svac_backend.video.probe import probe

MakeVideo = Callable[..., Path]
SHORT = {"g": "12", "bf": "2", "sc_threshold": "0"}


def resets(path: Path) -> tuple[int, int]:
    """Return the number of (packets that reset the decoder, key packets by the container's word)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size and packet.is_keyframe]
        return sum(resets_decoder(packet, stream.codec_context) for packet in packets), len(packets)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_h264_resets_with_every_closed_group(make_video: MakeVideo, name: str) -> None:
    assert resets(make_video(name, 60, options=SHORT)) == (5, 5)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_h264_open_groups_reset_once(make_video: MakeVideo, name: str) -> None:
    options = {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}
    found, keys = resets(make_video(name, 60, options=options))
    assert found == 1
    assert keys > 3


def test_h264_intra_refresh_resets_once(make_video: MakeVideo) -> None:
    options = {"x264-params": "intra-refresh=1:keyint=12:scenecut=0"}
    found, keys = resets(make_video("v.mkv", 60, options=options))
    assert found == 1
    assert keys > 3


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
@pytest.mark.parametrize(("open_gop", "expected"), [(0, 5), (1, 1)])
def test_h265(make_video: MakeVideo, name: str, open_gop: int, expected: int) -> None:
    options = {"x265-params": f"log-level=none:keyint=12:min-keyint=12:scenecut=0:open-gop={open_gop}"}
    assert resets(make_video(name, 60, codec="libx265", options=options)) == (expected, 5)


def test_codecs_without_prediction_always_reset(make_video: MakeVideo) -> None:
    assert resets(make_video("v.avi", 10, codec="mjpeg", pix_fmt="yuvj420p")) == (10, 10)


def test_vp9_resets_at_key_frames(make_video: MakeVideo) -> None:
    found, keys = resets(make_video("v.webm", 30, codec="libvpx-vp9", options={"g": "10", "cpu-used": "8"}))
    assert found == keys == 3


def test_other_codecs_are_not_proven(make_video: MakeVideo) -> None:
    found, keys = resets(make_video("v.avi", 30, codec="mpeg4", options={"g": "10"}))
    assert found == 0
    assert keys > 2


def test_seek_points_are_indices_in_display_order(make_video: MakeVideo) -> None:
    found = probe(make_video(count=60, options=SHORT), max_side=8192, max_frames=100)
    assert found.seek_points == (0, 12, 24, 36, 48)


def test_whole_and_cut_matroska(make_video: MakeVideo) -> None:
    path = make_video("v.mkv", 30)
    assert not matroska_is_cut(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert matroska_is_cut(path)


def test_a_live_recording_has_no_end(make_video: MakeVideo) -> None:
    path = make_video("v.mkv", 30, container_options={"live": "1"})
    path.write_bytes(path.read_bytes()[:-50])
    assert not matroska_is_cut(path)


@pytest.mark.parametrize("content", [b"", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x00", b"ftypisom" * 9])
def test_other_bytes_are_not_cut_matroska(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v.mkv"
    path.write_bytes(content)
    assert not matroska_is_cut(path)
