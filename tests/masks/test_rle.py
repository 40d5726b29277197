"""COCO RLE against pycocotools and against plain counting."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from svac_backend.errors import SvacError
from svac_backend.masks import rle
from svac_backend.masks.tracks import CocoRle

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
ALL_DIGITS = "".join(map(chr, range(48, 112)))
LARGE = np.zeros((1080, 1920), bool)
LARGE[300:700, 400:1500] = True


@given(MASKS)
def test_coco_is_the_identity_and_json_keeps_it(mask: np.ndarray) -> None:
    encoded = json.loads(json.dumps(rle.to_coco(mask)))
    decoded = rle.from_coco(encoded)
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, mask)
    assert rle.area(encoded) == mask.sum()


def test_large_masks_and_bytes() -> None:
    encoded = rle.to_coco(LARGE)
    np.testing.assert_array_equal(rle.from_coco(encoded), LARGE)
    native = coco.encode(np.asfortranarray(LARGE.astype(np.uint8)))
    assert encoded == {"size": [1080, 1920], "counts": native["counts"].decode()}
    np.testing.assert_array_equal(rle.from_coco(native), LARGE)


@given(st.data())
def test_iou_counts_pixels(data: st.DataObject) -> None:
    a = data.draw(MASKS)
    b = data.draw(arrays(np.bool_, a.shape))
    union = (a | b).sum()
    expected = (a & b).sum() / union if union else 1.0
    assert rle.iou(rle.to_coco(a), rle.to_coco(b)) == pytest.approx(expected)


def test_iou_of_different_sizes_is_refused() -> None:
    with pytest.raises(SvacError, match="different sizes"):
        rle.iou(rle.to_coco(np.ones((2, 3), bool)), rle.to_coco(np.ones((3, 2), bool)))


GOOD = rle.to_coco(np.eye(6, dtype=bool))


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {},
        {"size": [6, 6]},
        {"counts": GOOD["counts"]},
        {"size": [6], "counts": GOOD["counts"]},
        {"size": [6, 6.0], "counts": GOOD["counts"]},
        {"size": [6, 0], "counts": GOOD["counts"]},
        {"size": [-6, -6], "counts": GOOD["counts"]},
        {"size": [6, 7], "counts": GOOD["counts"]},
        {"size": [6, 6], "counts": ""},
        {"size": [6, 6], "counts": [0, 36]},
        {"size": [6, 6], "counts": GOOD["counts"][:-1]},
        {"size": [6, 6], "counts": GOOD["counts"] + "1"},
        {"size": [6, 6], "counts": "o"},  # "more follows", and nothing does
        {"size": [6, 6], "counts": "oooooooooo1"},
        {"size": [6, 6], "counts": "TQPPPPPP0"},  # 36 in more digits than a 32-bit count has
        {"size": [6, 6], "counts": "X1L"},  # a run of negative length
        {"size": [6, 6], "counts": "\x01"},
        {"size": [6, 6], "counts": "\u00e9"},
        {"size": [10**6, 10**6], "counts": "P1"},
    ],
)
@pytest.mark.parametrize("read", [rle.from_coco, rle.area, lambda bad: rle.iou(GOOD, bad)])
def test_malformed_rle_is_refused(read: object, bad: CocoRle) -> None:
    with pytest.raises(SvacError, match="COCO RLE"):
        read(bad)  # type: ignore[operator]


@given(st.text(alphabet="0123456789:;<", max_size=5) | st.text(alphabet=ALL_DIGITS, max_size=12))
def test_random_text_is_read_as_pycocotools_reads_it_or_refused(counts: str) -> None:
    try:
        decoded = rle.from_coco(CocoRle(size=[3, 4], counts=counts))
    except SvacError:
        return
    np.testing.assert_array_equal(decoded, coco.decode({"size": [3, 4], "counts": counts}).astype(bool))


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(SvacError, match="bool array"):
        rle.to_coco(np.zeros((4, 4), np.uint8))  # type: ignore[arg-type]


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.lists(st.integers(-3, 12), min_size=4, max_size=4),
)
def test_a_box_is_the_mask_that_would_be_drawn(height: int, width: int, sides: list[int]) -> None:
    left, top, right, bottom = sides
    mask = np.zeros((height, width), bool)
    mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    assert rle.box_mask(left, top, right, bottom, height, width) == rle.to_coco(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    found = rle.bounding_box(rle.to_coco(mask))
    if mask.any():
        assert found == (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
    else:
        assert found[2:] == (0, 0)


@given(
    arrays(np.bool_, (3, 5, 6)).map(lambda stack: [np.ascontiguousarray(mask) for mask in stack]),
)
def test_union_and_overlap_are_those_of_the_pixels(masks: list[np.ndarray]) -> None:
    coded = [rle.to_coco(mask) for mask in masks]
    np.testing.assert_array_equal(rle.from_coco(rle.union(coded)), masks[0] | masks[1] | masks[2])
    assert rle.union(coded[:1]) == coded[0]
    assert rle.overlap(coded[0], coded[1]) == (masks[0] & masks[1]).sum()


def test_masks_of_two_sizes_or_none_at_all_cannot_be_united() -> None:
    one, other = rle.to_coco(np.ones((2, 3), bool)), rle.to_coco(np.ones((3, 2), bool))
    for combine in (rle.overlap, lambda a, b: rle.union([a, b])):
        with pytest.raises(SvacError, match="different sizes"):
            combine(one, other)
    with pytest.raises(SvacError, match="no masks"):
        rle.union([])
