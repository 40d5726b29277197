"""Text in any script, on any ground."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.masks import render
from svac_backend.masks.render import text_picture

WHITE = (255, 255, 255)


@pytest.fixture(params=["fonts of this system", "no font but Pillow's own"])
def _fonts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param.startswith("no"):
        monkeypatch.setattr(render, "_FONTS", ())
    text_picture.cache_clear()
    yield
    text_picture.cache_clear()


@pytest.mark.usefixtures("_fonts")
def test_letters_with_accents_are_drawn_and_not_a_box_for_all_of_them() -> None:
    texts = ["Käse", "Kéks", "Köse", "Kuse"]
    assert len({text_picture(text, 20, WHITE).tobytes() for text in texts}) == len(texts)
    np.testing.assert_array_equal(text_picture("Ka\u0308se", 20, WHITE), text_picture("Käse", 20, WHITE))


@pytest.mark.usefixtures("_fonts")
@pytest.mark.parametrize("text", ["", " ", "dog", "собака", "日本語", "\n", "a\tb", "\U0001f415"])
def test_every_text_gives_a_picture_as_high_as_others(text: str) -> None:
    picture = text_picture(text, 20, WHITE)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert abs(picture.shape[0] - text_picture("Ag", 20, WHITE).shape[0]) <= 8
    assert (picture.min() < 100) == bool(text.strip())


def test_ink_stands_out_from_its_ground() -> None:
    assert text_picture("dog", 20, (240, 228, 66)).min(axis=(0, 1)).max() < 60
    assert text_picture("dog", 20, (0, 114, 178)).max(axis=(0, 1)).min() > 200


def test_larger_and_longer_texts_take_more_room() -> None:
    small, large = text_picture("dog", 12, WHITE), text_picture("dog", 36, WHITE)
    assert large.shape[0] > 2 * small.shape[0] * 0.8
    assert text_picture("dog dog", 12, WHITE).shape[1] > small.shape[1]
