from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.video.source import FrameIndex, average_rate, build_index

time_bases = st.sampled_from(
    [Fraction(1, 90000), Fraction(1, 1000), Fraction(1, 15360), Fraction(1001, 30000), Fraction(1, 1_000_000)]
)


@st.composite
def indices(draw: st.DrawFn) -> FrameIndex:
    start = draw(st.integers(-(10**9), 10**9))
    gaps = draw(st.lists(st.integers(1, 10**6), max_size=50))
    return FrameIndex(tuple(np.cumsum([start, *gaps]).tolist()), draw(time_bases))


@given(indices(), st.floats(1, 240), st.data())
def test_label_studio_and_back(index: FrameIndex, fps: float, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(index) - 1))
    frame, time = index.to_label_studio(i, fps)
    assert frame == i + 1
    assert time == frame / fps
    assert index.from_label_studio(frame) == i


def test_label_studio_counts_from_one() -> None:
    index = FrameIndex((0, 1, 2), Fraction(1, 25))
    assert index.to_label_studio(0, 25) == (1, 0.04)  # as seen in a VideoRectangle of Label Studio 1.23.2
    assert index.from_label_studio(3) == 2


@pytest.mark.parametrize("bad", [-1, 3, 1.0, "1", None])
def test_no_such_frame(bad: object) -> None:
    index = FrameIndex((0, 1, 2), Fraction(1, 25))
    with pytest.raises(SvacError, match="from 0 to 2"):
        index.to_label_studio(bad, 25)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, -1, 4, 1.5])
def test_no_such_label_studio_frame(bad: object) -> None:
    with pytest.raises(SvacError, match=r"1 to 3|whole number"):
        FrameIndex((0, 1, 2), Fraction(1, 25)).from_label_studio(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("fps", [0, -25, math.nan])
def test_no_such_rate(fps: float) -> None:
    with pytest.raises(SvacError, match="no frame rate"):
        FrameIndex((0, 1, 2), Fraction(1, 25)).to_label_studio(0, fps)


def test_timestamps_must_ascend_and_exist() -> None:
    with pytest.raises(SvacError, match="do not ascend"):
        FrameIndex((0, 2, 2), Fraction(1, 25))
    with pytest.raises(SvacError, match="no frames"):
        FrameIndex((), Fraction(1, 25))


@given(st.lists(st.one_of(st.none(), st.integers(-(10**6), 10**6)), min_size=1, max_size=50), time_bases)
def test_any_timestamps_make_an_index_of_every_frame(pts: list[int | None], time_base: Fraction) -> None:
    assert len(build_index(pts, time_base, Fraction(25))) == len(pts)


def test_glued_recordings_follow_each_other() -> None:
    index = build_index([0, 40, 80, 0, 40], Fraction(1, 25), None)
    assert index.pts == (0, 40, 80, 120, 160)


def test_a_repeated_timestamp_does_not_move_the_others() -> None:
    assert build_index([0, 40, 40, 80], Fraction(1, 1000), None).pts == (0, 40, 41, 80)


def test_frames_without_timestamps_follow_the_declared_rate() -> None:
    index = build_index([None, None, None], Fraction(1, 1000), Fraction(30000, 1001))
    assert (index.pts, index.time_base) == ((0, 1, 2), Fraction(1001, 30000))


@given(
    st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60), Fraction(120)])
)
def test_rounding_to_milliseconds_is_no_variable_rate(rate: Fraction) -> None:
    index = FrameIndex(tuple(round(1000 * i / rate) for i in range(300)), Fraction(1, 1000))
    assert average_rate(index, rate) == (float(rate), False)
    fps, variable = average_rate(index, None)
    assert not variable
    assert fps == pytest.approx(float(rate), rel=1e-3)


def test_a_wrong_declared_rate_is_not_believed() -> None:
    index = FrameIndex(tuple(range(0, 100 * 40, 40)), Fraction(1, 1000))
    assert average_rate(index, Fraction(24)) == (25.0, False)


def test_a_dropped_frame_is_a_variable_rate() -> None:
    index = FrameIndex((0, 40, 80, 160, 200), Fraction(1, 1000))
    assert average_rate(index, Fraction(25)) == (20.0, True)
