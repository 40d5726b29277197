"""How many frames are encoded at a time."""

from __future__ import annotations

import pytest

from svac_backend.svac.sam.grounding import frames_at_a_time


@pytest.mark.parametrize(("size", "frames"), [(1024, 16), (2048, 4), (8192, 1), (512, 32), (192, 32)])
def test_smaller_pictures_make_longer_windows(size: int, frames: int) -> None:
    assert frames_at_a_time(size) == frames
