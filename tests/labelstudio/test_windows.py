"""Windows of long videos."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.labelstudio.tasks import WINDOW_KEY, Window, window_of


@given(st.integers(0, 10_000), st.integers(1, 500), st.integers(1, 20))
def test_items_and_frames_are_each_others_inverse(start: int, count: int, stride: int) -> None:
    window = Window(start, count, stride)
    for item in {0, count // 2, count - 1}:
        assert window.item(window.frame(item)) == item
    assert window.item(window.frame(0) - stride) is None
    assert window.item(window.frame(count)) is None
    if stride > 1:
        assert window.item(start + 1) is None
    assert window_of({WINDOW_KEY: window.to_json()}) == window


def test_a_task_without_a_window_shows_the_whole_video() -> None:
    assert window_of({"video": "x.mp4"}) is None


@pytest.mark.parametrize(
    "value",
    [
        [],
        "0-100",
        {"start": 0},
        {"start": "0", "count": 5},
        {"start": -1, "count": 5},
        {"start": 0, "count": 0},
    ],
)
def test_a_malformed_window_is_an_error(value: Any) -> None:
    with pytest.raises(SvacError):
        window_of({WINDOW_KEY: value})
