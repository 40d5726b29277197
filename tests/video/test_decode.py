from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.video import decode
from svac_backend.video.decode import FramePass, RgbConverter
from svac_backend.video.probe import Probe, probe

MakeVideo = Callable[..., Path]
NumberOf = Callable[[NDArray[np.uint8]], int]


@pytest.fixture
def probed(make_video: MakeVideo) -> Probe:
    path = make_video(count=90, options={"g": "20", "bf": "2", "sc_threshold": "0"})
    return probe(path, max_side=8192, max_frames=20000)


def numbers(probed: Probe, indices: list[int], number_of: NumberOf) -> list[int]:
    decoder, converter = FramePass(probed), RgbConverter(probed)
    found = [number_of(converter.convert(decoder.frame(i))) for i in indices]
    decoder.close()
    return found


def test_any_order(probed: Probe, number_of: NumberOf) -> None:
    assert len(probed.seek_points) > 3
    order = [0, 89, 1, 45, 44, 45, 88, 20, 19, 61]
    assert numbers(probed, order, number_of) == order


def test_a_seek_that_misses_falls_back_to_the_start(
    probed: Probe, number_of: NumberOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seek that lands behind the wanted frame must cost time, not correctness."""
    original = decode.opened
    seeks = []

    class Liar:
        def __init__(self, container: object) -> None:
            self._container = container

        def seek(self, pts: int, **options: object) -> None:
            seeks.append(pts)
            self._container.seek(pts + 25 * 512, **options)  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self._container, name)

    @contextmanager
    def lying(path: Path, **options: str):  # type: ignore[no-untyped-def]
        with original(path, **options) as (container, stream):
            yield Liar(container), stream

    monkeypatch.setattr(decode, "opened", lying)
    assert numbers(probed, [50, 85, 3, 70], number_of) == [50, 85, 3, 70]
    assert len(seeks) == 1  # after the first lie no other seek is tried


def test_a_wrong_index_is_an_error(probed: Probe) -> None:
    pts = list(probed.decoded_pts)
    pts[30] += 1  # type: ignore[operator]
    lied = dataclasses.replace(probed, decoded_pts=tuple(pts), seek_points=(0,))
    decoder = FramePass(lied)
    decoder.frame(29)
    with pytest.raises(SvacError, match=r"its frame 30 of 90 .* only the 30 frames before"):
        decoder.frame(30)


def test_more_frames_promised_than_decoded(probed: Probe) -> None:
    longer = dataclasses.replace(probed, decoded_pts=(*probed.decoded_pts, 10**6))
    with pytest.raises(SvacError, match="its frame 90 of 91"):
        FramePass(longer).frame(90)


def test_a_changed_file_is_noticed(probed: Probe) -> None:
    decoder = FramePass(probed)
    decoder.frame(5)
    os.utime(probed.path, ns=(1, 1))
    decoder.frame(6)  # what is open stays as it was
    with pytest.raises(SvacError, match="was changed"):
        decoder.frame(0)


def test_a_removed_file_is_noticed(probed: Probe) -> None:
    probed.path.unlink()
    with pytest.raises(SvacError, match="cannot be read"):
        FramePass(probed).frame(0)


def test_another_size_midway_is_an_error(make_video: MakeVideo, tmp_path: Path) -> None:
    path = tmp_path / "glued.ts"
    path.write_bytes(make_video("a.ts").read_bytes() + make_video("b.ts", size=(64, 48)).read_bytes())
    found = probe(path, max_side=8192, max_frames=100)
    with pytest.raises(SvacError, match="changes its picture size at frame 30"):
        FramePass(found).frame(31)


def test_repaired_damage_is_logged(make_video: MakeVideo, caplog: pytest.LogCaptureFixture) -> None:
    path = make_video("v.ts", count=10, size=(320, 240), options={"g": "1"})
    path.write_bytes(path.read_bytes()[: -188 * 2])  # the last frame loses its end
    found = probe(path, max_side=8192, max_frames=100)
    FramePass(found).frame(len(found.index) - 1)
    assert "is damaged" in caplog.text
