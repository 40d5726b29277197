"""The benchmark of scores: what shows an object, and how sure frames are held against truth."""

from __future__ import annotations

import numpy as np
import pytest
from lab.benchmarks.scores import Measured, hints_of

from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track


def test_an_object_is_shown_by_its_middle_its_box_and_itself() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[4:9, 10:21] = True
    shown = hints_of(mask)
    (click,) = shown["click"].clicks
    assert (click.y, 12 <= click.x <= 18, click.positive) == (6, True, True)
    assert shown["box"].box == (10, 4, 21, 9)
    assert shown["mask"].mask is not None
    assert np.array_equal(from_coco(shown["mask"].mask), mask)


def test_certainty_is_the_score_or_that_nothing_was_missed() -> None:
    truth = np.zeros((3, 4, 4), np.bool_)
    truth[:2, :2] = True
    # Right with 0.9; missed, and sure of that; right to draw nothing, but less sure.
    track = Track("obj1", "o", "o", masks={0: to_coco(truth[0])}, scores={0: 0.9, 1: 0.2, 2: 0.4})
    found = Measured()
    found.add(track, truth, range(3))
    assert found.certainty == pytest.approx([0.9, 0.8, 0.6])
    assert found.j == [1.0, 0.0, 1.0]
    assert found.auroc == 0.5
