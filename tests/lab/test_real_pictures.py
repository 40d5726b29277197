"""The picture of real photographs: what the camera sees, what is pointed at, and that each one is credited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lab.real_pictures import CUP, FRAMES, HEIGHT, PICTURE, SHOTS, WIDTH, Shot, filmed, row_of

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_camera_moves_in_and_comes_from_the_whole_picture() -> None:
    photograph = np.zeros((300, 450, 3), np.uint8)
    photograph[140:160, 215:235] = 255
    frames = filmed(photograph)
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    seen = (frames[..., 0] > 127).sum((1, 2))
    assert 1.3 < seen[-1] / seen[0] < 1.7
    assert (frames == filmed(photograph)).all()


def test_a_click_is_shown_where_it_was_on_the_first_frame() -> None:
    frames = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), np.bool_)
    tiles = row_of(Shot(*CUP, "a click", click=(0.75, 0.5)), frames, masks)
    ring = np.argwhere(tiles[0].any(-1))
    middle = ring.mean(0) / tiles[0].shape[:2]
    assert np.allclose(middle, (0.5, 0.75), atol=0.02)
    assert not any(tile.any() for tile in tiles[1:])


def test_the_readme_credits_every_photograph() -> None:
    readme = " ".join(README.read_text().split())
    for shot in SHOTS:
        assert shot.credit.rsplit(", ", 1)[0] in readme
        assert shot.asked in readme
    assert PICTURE.stat().st_size < 150_000
