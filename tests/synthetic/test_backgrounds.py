"""Backgrounds are muted and keep away from the objects' colours."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.synthetic.backgrounds import KINDS, make_background, noise_bank


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(128, 128), (64, 200), (200, 64)])
def test_every_kind_fills_every_format(kind: str, height: int, width: int) -> None:
    image = make_background(kind, height, width, np.zeros((0, 3), np.float32), np.random.default_rng(0))
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert image.std() > 0.5


def test_gray_objects_are_not_lost_on_gray() -> None:
    gray = np.array([[128, 128, 128]], np.float32)
    distances = []
    for seed in range(60):
        image = make_background("gradient", 64, 64, gray, np.random.default_rng(seed))
        distances.append(np.linalg.norm(image.reshape(-1, 3).mean(axis=0) - gray[0]))
    assert np.mean(np.array(distances) > 50) > 0.8


def test_noise_is_centred_and_fixed() -> None:
    bank = noise_bank(32, 40)
    assert bank.shape == (96, 104, 3)
    assert abs(bank.mean() - 127.5) < 1
    noise_bank.cache_clear()
    assert np.array_equal(bank, noise_bank(32, 40))
