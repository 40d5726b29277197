"""Shapes: drawn as the editor shows them, compared as a hand moves them."""

from __future__ import annotations

import base64
import copy
from typing import Any

import cv2
import numpy as np
import pytest
from label_studio_sdk.converter.brush import encode_rle

from svac_backend.errors import SvacError
from svac_backend.labelstudio.regions.shapes import kind_of, same_shape, shape_to_mask
from svac_backend.masks.metrics import iou
from tests.labelstudio.annotations import HEIGHT, WIDTH, brushed, drawn, mask_of

ONE = mask_of((4, 20, 6, 30))
SIZE = (WIDTH, HEIGHT)
TRIANGLE = {"points": [[10.0, 10.0], [60.0, 15.0], [30.0, 70.0]], "closed": True}
BOX = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "rotation": 0}


def polygon(value: dict[str, Any]) -> dict[str, Any]:
    return drawn(0, copy.deepcopy(value), "p", "polygon", "poly")


def soft(alpha: np.ndarray) -> dict[str, Any]:
    """A brush mask as the editor writes it after a stroke: any colour, alpha of any value."""
    pixels = np.stack([np.full_like(alpha, 7)] * 3 + [alpha], axis=-1)
    return drawn(0, {"format": "rle", "rle": encode_rle(pixels.ravel())}, "p", "brush")


def bitmask(picture: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()
    return drawn(0, {"imageDataURL": f"data:image/png;base64,{data}"}, "p", "bitmask", "bit")


def test_soft_edges_count_from_half_on() -> None:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[5, :4] = 127, 128, 255, 1
    mask = shape_to_mask(soft(alpha), *SIZE)
    assert mask[5, :4].tolist() == [False, True, True, False]
    assert mask.sum() == 2


def touch(kind: str, *points: float, wide: float = 12.5) -> dict[str, Any]:
    """A stroke as a draft has it; `wide` 12.5 % of the width is 8 px."""
    return {
        "id": "t",
        "type": kind,
        "points": [0, 0],
        "relativePoints": list(points),
        "relativeStrokeWidth": wide,
    }


def test_strokes_of_a_draft_are_drawn_onto_the_mask_in_their_order() -> None:
    region = brushed(0, ONE)
    # From (16, 36) to (48, 36) px, then half of that is taken away again.
    region["value"]["touches"] = [touch("add", 25, 75, 75, 75), touch("eraser", 50, 75, 100, 75, wide=25)]
    mask = shape_to_mask(region, *SIZE)
    rows, columns = np.indices((HEIGHT, WIDTH)) + 0.5
    capsule = np.hypot(columns - np.clip(columns, 16, 48), rows - 36) < 4
    rubber = np.hypot(columns - np.clip(columns, 32, 64), rows - 36) < 8
    expected = (ONE | capsule) & ~rubber
    assert np.count_nonzero(mask != expected) <= 2
    del region["value"]["touches"][1]
    assert np.count_nonzero(shape_to_mask(region, *SIZE) != (ONE | capsule)) <= 2


def test_a_new_stroke_needs_no_mask_and_a_ring_stays_a_ring() -> None:
    dot = drawn(0, {"format": "rle", "touches": [touch("add", 50, 50, 50, 50.1)]}, "p", "brush")
    assert kind_of(dot["value"]) == "brush"
    assert shape_to_mask(dot, *SIZE).sum() == pytest.approx(np.pi * 16, rel=0.1)
    dot["value"]["touches"] = [
        touch("add", 50, 50),
        touch("add", 20, 20, 20, 20),
    ]  # as Chromium's canvas does
    assert not shape_to_mask(dot, *SIZE).any()
    around = [25, 25, 75, 25, 75, 75, 25, 75, 25, 25]
    ring = drawn(0, {"format": "rle", "rle": [], "touches": [touch("add", *around)]}, "p", "brush")
    mask = shape_to_mask(ring, *SIZE)
    assert mask[12, 32]
    assert not mask[24, 32]


def test_a_stroke_is_a_change_although_the_bytes_are_the_same() -> None:
    one, other = brushed(0, ONE), brushed(0, ONE)
    other["value"]["touches"] = []
    assert same_shape(one, other, *SIZE)
    other["value"]["touches"] = [touch("eraser", 20, 20, 21, 20)]
    assert not same_shape(one, other, *SIZE)
    other["value"]["touches"] = [touch("eraser", 90, 90, 91, 90)]  # nothing was there
    assert same_shape(one, other, *SIZE)


def test_bitmasks_are_their_alpha_or_their_grey() -> None:
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[ONE] = 10, 20, 30, 128
    rgba[~ONE] = 10, 20, 30, 127
    np.testing.assert_array_equal(shape_to_mask(bitmask(rgba), *SIZE), ONE)
    np.testing.assert_array_equal(shape_to_mask(bitmask(ONE * np.uint8(255)), *SIZE), ONE)


def test_masks_drawn_on_smaller_pictures_are_scaled() -> None:
    region = brushed(0, ONE)
    large = shape_to_mask(region, WIDTH * 2, HEIGHT * 2)
    np.testing.assert_array_equal(large, ONE.repeat(2, axis=0).repeat(2, axis=1))


def test_curves_of_a_vector_bulge() -> None:
    # A circle of four curves (the usual 0.5523 approximation), radius 20 px around (32, 24).
    k = 20 * 0.5523
    corners = [((52, 24), (0, 1)), ((32, 44), (-1, 0)), ((12, 24), (0, -1)), ((32, 4), (1, 0))]
    percent = lambda x, y: {"x": x / WIDTH * 100, "y": y / HEIGHT * 100}  # noqa: E731
    vertices = [
        {
            **percent(x, y),
            "isBezier": True,
            "controlPoint1": percent(x - dx * k, y - dy * k),
            "controlPoint2": percent(x + dx * k, y + dy * k),
        }
        for (x, y), (dx, dy) in corners
    ]
    rows, columns = np.indices((HEIGHT, WIDTH)) + 0.5
    circle = (columns - 32) ** 2 + (rows - 24) ** 2 < 400
    region = drawn(0, {"vertices": vertices, "closed": True}, "v", "vector", "vec")
    assert iou(shape_to_mask(region, *SIZE), circle) > 0.98
    straight = {"vertices": [{**v, "isBezier": False} for v in vertices], "closed": True}
    assert shape_to_mask(drawn(0, straight, "v", "vector", "vec"), *SIZE).sum() < 0.7 * circle.sum()


def test_drift_is_no_change_and_a_drag_is_one() -> None:
    one = polygon(TRIANGLE)
    drifted = polygon({**TRIANGLE, "points": [[x + 1e-15, y * (1 + 1e-15)] for x, y in TRIANGLE["points"]]})
    assert same_shape(one, drifted, *SIZE)
    for by, same in ((0.009, True), (0.02, False)):
        moved = polygon(TRIANGLE)
        moved["value"]["points"][1][0] += by
        assert same_shape(one, moved, *SIZE) is same
    fewer = polygon({**TRIANGLE, "points": [*TRIANGLE["points"], [20, 40]]})
    assert not same_shape(one, fewer, *SIZE)


@pytest.mark.parametrize("key", ["x", "y", "width", "height", "rotation"])
def test_every_number_of_a_box_counts(key: str) -> None:
    one = drawn(0, dict(BOX), "b", "rectangle", "rect")
    other = drawn(0, {**BOX, key: BOX[key] + 0.5}, "b", "rectangle", "rect")
    assert same_shape(one, drawn(0, {**BOX, key: BOX[key] + 1e-12}, "b", "rectangle", "rect"), *SIZE)
    assert not same_shape(one, other, *SIZE)


def test_brush_masks_are_compared_as_they_are_drawn() -> None:
    as_alpha = soft(np.where(ONE, 200, 90).astype(np.uint8))
    assert brushed(0, ONE)["value"]["rle"] != as_alpha["value"]["rle"]
    assert same_shape(brushed(0, ONE), as_alpha, *SIZE)
    more = ONE.copy()
    more[40, 40] = True
    assert not same_shape(brushed(0, ONE), brushed(0, more), *SIZE)
    assert not same_shape(brushed(0, ONE), polygon(TRIANGLE), *SIZE)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (TRIANGLE, "polygon"),
        ({**TRIANGLE, "closed": False}, None),
        ({"points": [[1, 1], [2, 2]]}, None),
        ({"vertices": [{}, {}, {}], "closed": True}, "vector"),
        ({"vertices": [{}, {}, {}]}, None),
        (BOX, "rectangle"),
        ({"x": 1, "y": 1, "width": 1}, None),
        ({"text": ["a"]}, None),
        ({"format": "rle", "rle": []}, None),
        ({"points": None}, None),
    ],
)
def test_what_encloses_an_area(value: dict[str, Any], kind: str | None) -> None:
    assert kind_of(value) == kind


@pytest.mark.parametrize(
    "region",
    [
        drawn(0, {"format": "rle", "rle": [1, 2, 3]}, "p", "brush"),
        drawn(0, {"points": [[1, 1], [2], [3, 3]], "closed": True}, "p", "polygon"),
        drawn(0, {"points": [[1, 1], [2, "x"], [3, 3]], "closed": True}, "p", "polygon"),
        drawn(0, {"vertices": [{"x": 1}] * 3, "closed": True}, "p", "vector"),
        drawn(0, {**BOX, "width": None}, "p", "rectangle"),
        drawn(0, {"imageDataURL": "data:image/png;base64,!!"}, "p", "bitmask"),
        drawn(0, {"imageDataURL": "data:image/png;base64,AAAA"}, "p", "bitmask"),
        drawn(0, {"touches": [{"relativePoints": [1, 2, 3], "relativeStrokeWidth": 1}]}, "p", "brush"),
        drawn(0, {"touches": [{"relativePoints": [1, 2, 3, 4]}]}, "p", "brush"),
        drawn(0, {"touches": ["x"]}, "p", "brush"),
        drawn(0, {"imageDataURL": None}, "p", "bitmask"),
        {**drawn(0, TRIANGLE, "p", "polygon"), "image_rotation": 90},
        {**brushed(0, ONE), "original_width": 1 << 20, "original_height": 1 << 10},
    ],
)
def test_malformed_shapes_and_turned_frames_are_errors(region: dict[str, Any]) -> None:
    with pytest.raises(SvacError):
        shape_to_mask(region, *SIZE)


def test_a_small_file_may_not_unfold_into_gigabytes() -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(8) + (60000).to_bytes(4, "big") * 2 + bytes(20)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    with pytest.raises(SvacError, match="malformed"):
        shape_to_mask(drawn(0, {"imageDataURL": url}, "p", "bitmask"), *SIZE)
