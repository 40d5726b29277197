"""ASTC: an anchor frame and one composite per clip."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.svac.astc import clip_images, composite


def _frames(count: int, height: int = 4, width: int = 6) -> list[np.ndarray]:
    return [np.full((height, width, 3), i + 1, np.uint8) for i in range(count)]


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_cells_are_filled_row_by_row_and_the_rest_stays_black(
    rows: int, columns: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, rows * columns))
    image = composite(_frames(count), (rows, columns))
    assert image.shape == (rows * 4, columns * 6, 3)
    cells = image.reshape(rows, 4, columns, 6, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    for cell, pixels in enumerate(cells):
        assert (pixels == (cell + 1 if cell < count else 0)).all()


def test_a_clip_costs_two_images_with_astc_and_m_without() -> None:
    frames = _frames(5)
    anchor, tiles = clip_images(frames, (2, 2))
    assert np.array_equal(anchor, frames[0])
    assert tiles[0, 0, 0] == 2
    assert tiles[-1, -1, 0] == 5
    assert len(clip_images(frames, (2, 2), compress=False)) == 5


def test_a_clip_of_one_frame_is_its_anchor() -> None:
    assert len(clip_images(_frames(1), (1, 1))) == 1
