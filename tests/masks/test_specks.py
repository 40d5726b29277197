"""Specks go, the object stays: by size relative to it, and never what only looks like a hole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from svac_backend.errors import SvacError
from svac_backend.masks.specks import without_specks


def disc() -> np.ndarray:
    """A square of 40 x 40 = 1600 pixels within 60 x 80."""
    mask = np.zeros((60, 80), bool)
    mask[10:50, 20:60] = True
    return mask


def test_islands_and_pinholes_below_the_share_go() -> None:
    noisy = disc()
    noisy[2:5, 70:75] = True  # 15 pixels: 0.9 %
    noisy[30:33, 30:35] = False
    assert np.array_equal(without_specks(noisy, 0.01), disc())
    assert without_specks(noisy, 0.005) is noisy
    assert without_specks(noisy, 0) is noisy


def test_large_parts_and_large_holes_stay() -> None:
    mask = disc()
    mask[52:58, 20:60] = True  # 240 pixels
    mask[20:30, 30:50] = False  # 200 pixels
    assert without_specks(mask, 0.1) is mask


def test_the_share_is_of_the_object() -> None:
    """The same island beside a small object is a part of it."""
    small = np.zeros((60, 80), bool)
    small[10:20, 10:20] = True
    small[30:33, 30:35] = True
    assert without_specks(small, 0.01) is small


def test_of_parts_that_are_all_small_the_largest_stays() -> None:
    mask = np.zeros((20, 20), bool)
    mask[::4, ::4] = True
    mask[0, 1] = True
    expected = np.zeros_like(mask)
    expected[0, :2] = True
    assert np.array_equal(without_specks(mask, 0.5), expected)


def test_what_reaches_the_edge_is_no_hole_and_corners_join_parts_only() -> None:
    mask = np.ones((30, 30), bool)
    mask[0, 5] = False  # at the picture's edge, and so outside
    assert without_specks(mask, 0.1) is mask
    mask = np.zeros((30, 30), bool)
    mask[5:15, 5:15] = mask[15:17, 15:17] = True  # touches at a corner: one part
    assert without_specks(mask, 0.1) is mask
    mask[5, 7] = mask[6, 8] = False  # a notch, and a pixel beside its corner: that one is a hole
    filled = mask.copy()
    filled[6, 8] = True
    assert np.array_equal(without_specks(mask, 0.1), filled)


@given(arrays(np.bool_, (12, 15)), st.floats(0, 1))
def test_an_object_is_never_lost_nor_its_mask_changed_in_place(mask: np.ndarray, share: float) -> None:
    before = mask.copy()
    cleaned = without_specks(mask, share)
    assert np.array_equal(mask, before)
    assert cleaned.dtype == np.bool_
    assert cleaned.any() == mask.any()


def test_bad_input() -> None:
    with pytest.raises(SvacError, match="is not possible"):
        without_specks(disc(), 1.5)
    with pytest.raises(SvacError):
        without_specks(disc().astype(np.uint8), 0.1)
