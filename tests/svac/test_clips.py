"""The clip plan against the published code's index maps, and its properties for any length."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.svac.astc import plan
from svac_backend.svac.config import PRESETS, MethodConfig

MAPS = Path(__file__).parents[1] / "golden" / "sasasa2va_index_maps.json"


@pytest.mark.parametrize("mode", ["uniform", "uniform_plus", "wrap_around", "wrap_around_plus"])
def test_index_maps_equal_the_published_code(mode: str) -> None:
    maps = json.loads(MAPS.read_text())
    method = replace(PRESETS["sasasa2va"], sampling=mode)
    cases = {int(key.split(":")[1]): value for key, value in maps.items() if key.split(":")[0] == mode}
    assert len(cases) == 14
    for num_frames, expected in cases.items():
        result = plan(num_frames, method)
        assert list(result.selected) == expected["selected"], num_frames
        assert [clip for _, clip in result.decode] == expected["frame2clip"], num_frames
        assert (result.propagated is not None) == expected["propagate"], num_frames


@given(
    num_frames=st.integers(1, 2000),
    num_clips=st.integers(1, 12),
    frames_per_clip=st.integers(1, 10),
    sampling=st.sampled_from(["uniform", "uniform_plus", "wrap_around", "wrap_around_plus"]),
)
def test_every_frame_is_decoded_or_propagated(
    num_frames: int, num_clips: int, frames_per_clip: int, sampling: str
) -> None:
    method = MethodConfig(num_clips=num_clips, frames_per_clip=frames_per_clip, sampling=sampling)
    result = plan(num_frames, method)
    assert len(result.selected) == num_clips * frames_per_clip
    assert list(result.selected) == sorted(result.selected)
    assert 0 <= result.selected[0] <= result.selected[-1] < num_frames
    decoded = {frame for frame, _ in result.decode}
    reached = decoded | set(range(result.propagated, num_frames) if result.propagated is not None else ())
    assert reached == set(range(num_frames))
    assert {clip for _, clip in result.decode} <= set(range(num_clips))
    clips = [clip for _, clip in result.decode]
    assert clips == sorted(clips)


@given(num_frames=st.integers(1, 50))
def test_sa2va_sees_the_first_frames_and_propagates_the_rest(num_frames: int) -> None:
    result = plan(num_frames, PRESETS["sa2va"])
    assert list(result.selected) == list(range(min(5, num_frames)))
    assert {clip for _, clip in result.decode} == {0}
    assert result.propagated == (5 if num_frames > 5 else None)


def test_a_clip_starts_with_its_anchor_frame() -> None:
    result = plan(40, MethodConfig(num_clips=4, frames_per_clip=5, grid=(2, 2)))
    assert result.clip(0) == (0, 2, 4, 6, 8)
    assert result.clip(3) == (30, 32, 34, 36, 38)


def test_no_frame_is_an_error() -> None:
    with pytest.raises(SvacError, match="no frame"):
        plan(0, PRESETS["svac"])
