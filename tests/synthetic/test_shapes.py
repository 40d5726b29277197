"""Outlines and sprites."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.synthetic.shapes import SHAPES, draw_sprite, extent, outline


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_are_centred_and_of_equal_area(shape: str) -> None:
    x, y = outline(shape).T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    assert abs(cross.sum() / 2) == pytest.approx(np.pi)
    assert ((x + np.roll(x, -1)) * cross).sum() == pytest.approx(0, abs=1e-9)
    assert ((y + np.roll(y, -1)) * cross).sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_sprites_cover_the_area_of_their_radius_and_nothing_beyond_their_reach(shape: str) -> None:
    sprite = draw_sprite(shape, (200, 100, 50), 40.0, np.random.default_rng(0))
    coverage = sprite.rgba[:, :, 3]
    hole = 0.75 if shape == "ring" else 1.0
    assert (coverage >= 128).sum() == pytest.approx(np.pi * 40**2 * hole, rel=0.08)
    ys, xs = np.nonzero(coverage)
    centre = (len(coverage) - 1) / 2
    assert np.hypot(xs - centre, ys - centre).max() <= sprite.reach
    assert sprite.reach >= extent(shape) * 40
    assert not sprite.rgba[coverage == 0].any()
