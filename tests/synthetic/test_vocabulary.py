"""Colour names mean what they say, and no colour is near another's."""

from __future__ import annotations

import itertools

import numpy as np

from svac_backend.synthetic.shapes import COLORS, sample_rgb


def test_colors_of_different_names_are_far_apart() -> None:
    rng = np.random.default_rng(0)
    samples = {name: np.array([sample_rgb(name, rng) for _ in range(200)], float) for name in COLORS}
    for a, b in itertools.combinations(COLORS, 2):
        distance = np.linalg.norm(samples[a][:, None] - samples[b][None], axis=2).min()
        assert distance > 30, (a, b, distance)


def test_some_well_known_colors() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        r, g, b = sample_rgb("red", rng)
        assert r > 2 * max(g, b)
        assert min(sample_rgb("white", rng)) > 220
        assert max(sample_rgb("black", rng)) < 30
        gray = sample_rgb("gray", rng)
        assert max(gray) - min(gray) < 12
