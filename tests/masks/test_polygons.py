"""Polygons: what they cover, where their corners lie, and that nothing of a mask is lost."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from svac_backend.errors import SvacError
from svac_backend.masks.metrics import iou
from svac_backend.masks.polygons import mask_to_polygons, polygons_to_mask

PIXELS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
MASKS = st.builds(lambda mask, k: mask.repeat(k, axis=0).repeat(k, axis=1), PIXELS, st.integers(1, 5))


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.indices((height, width)) + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def assert_simple(rings: list[np.ndarray]) -> None:
    for ring in rings:
        assert ring.dtype == np.float64
        assert ring.shape[0] >= 3
        assert ring.shape[1] == 2
        assert shapely.is_valid(shapely.Polygon(ring)), ring
        assert (ring[0] != ring[-1]).any()


@given(MASKS, st.sampled_from([0.5, 1.0, 2.0, 8.0]), st.sampled_from([0.5, 0.9, 0.98, 1.0]))
def test_the_floor_holds_and_every_ring_is_simple(mask: np.ndarray, tolerance: float, floor: float) -> None:
    rings = mask_to_polygons(mask, tolerance_px=tolerance, iou_floor=floor)
    assert_simple(rings)
    assert iou(polygons_to_mask(rings, *mask.shape), mask) >= floor - 1e-12


@given(MASKS)
def test_without_tolerance_polygons_are_exact_and_do_not_overlap(mask: np.ndarray) -> None:
    rings = mask_to_polygons(mask, tolerance_px=0)
    assert_simple(rings)
    np.testing.assert_array_equal(polygons_to_mask(rings, *mask.shape), mask)
    assert sum(shapely.Polygon(ring).area for ring in rings) == pytest.approx(mask.sum())


def test_corners_lie_on_pixel_edges() -> None:
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:7] = True
    (ring,) = mask_to_polygons(mask)
    assert {tuple(point) for point in ring} == {(3, 2), (7, 2), (7, 5), (3, 5)}


def test_a_full_mask_is_the_frame_of_the_image() -> None:
    (ring,) = mask_to_polygons(np.ones((5, 9), bool))
    assert {tuple(point) for point in ring} == {(0, 0), (9, 0), (9, 5), (0, 5)}


def test_an_empty_mask_has_no_polygon() -> None:
    assert mask_to_polygons(np.zeros((5, 9), bool)) == []
    assert not polygons_to_mask([], 5, 9).any()


@pytest.mark.parametrize("tolerance", [1.0, 10.0])
@pytest.mark.parametrize("region", [np.s_[2:3, 3:4], np.s_[0:8, 5:6], np.s_[7:8, :], np.s_[0:1, 0:1]])
def test_single_pixels_and_lines_are_kept(region: tuple[slice, slice], tolerance: float) -> None:
    mask = np.zeros((8, 10), bool)
    mask[region] = True
    rings = mask_to_polygons(mask, tolerance_px=tolerance)
    assert_simple(rings)
    np.testing.assert_array_equal(polygons_to_mask(rings, 8, 10), mask)


def test_every_part_has_its_polygon_the_largest_first() -> None:
    mask = disc(60, 80, 20, 20, 6) | disc(60, 80, 50, 30, 20)
    mask[50, 5] = True
    rings = mask_to_polygons(mask)
    areas = [shapely.Polygon(ring).area for ring in rings]
    assert len(rings) == 3
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] == 1


def test_parts_that_touch_at_a_corner_are_two_polygons() -> None:
    mask = np.kron(np.eye(2, dtype=bool), np.ones((6, 6), bool))
    assert len(mask_to_polygons(mask)) == 2


def test_holes_are_kept_by_cutting_through_them() -> None:
    mask = disc(100, 100, 50, 50, 40) & ~disc(100, 100, 40, 45, 12) & ~disc(100, 100, 66, 60, 6)
    rings = mask_to_polygons(mask)
    assert_simple(rings)
    drawn = polygons_to_mask(rings, 100, 100)
    assert not drawn[45, 40]
    assert not drawn[60, 66]
    assert iou(drawn, mask) >= 0.98
    assert len(rings) <= 3


def test_a_cut_divides_the_limb_with_the_hole_and_no_other() -> None:
    mask = np.zeros((100, 100), bool)
    mask[10:40, 10:90] = mask[40:90, 10:30] = mask[40:90, 70:90] = True
    mask[60:70, 15:25] = False
    rings = mask_to_polygons(mask)
    assert len(rings) == 2
    np.testing.assert_array_equal(polygons_to_mask(rings, 100, 100), mask)


def test_a_pinhole_does_not_cut_a_region_in_two() -> None:
    mask = disc(100, 100, 50, 50, 40)
    mask[50, 50] = False
    assert len(mask_to_polygons(mask)) == 1
    assert len(mask_to_polygons(mask, tolerance_px=0)) == 2


def test_the_tolerance_saves_points() -> None:
    mask = disc(200, 200, 100, 100, 80)
    points = [len(mask_to_polygons(mask, tolerance_px=t, iou_floor=0.9)[0]) for t in (0, 1, 4)]
    assert points[0] > 5 * points[1] > 5 * points[2]


def test_polygons_are_drawn_between_pixels_as_pixel_centres_say() -> None:
    ring = np.array([[1.4, 1.4], [4.6, 1.4], [4.6, 3.6], [1.4, 3.6]])
    expected = np.zeros((6, 6), bool)
    expected[1:4, 1:5] = True
    np.testing.assert_array_equal(polygons_to_mask([ring], 6, 6), expected)
    ring = np.array([[1.6, 1.6], [4.4, 1.6], [4.4, 3.4], [1.6, 3.4]])
    expected[:] = False
    expected[2:3, 2:4] = True
    np.testing.assert_array_equal(polygons_to_mask([ring], 6, 6), expected)


def test_a_centre_on_an_edge_belongs_to_the_polygon_right_of_or_below_it() -> None:
    ring = np.array([[1.5, 2.5], [3.5, 2.5], [3.5, 4.5], [1.5, 4.5]])
    assert np.argwhere(polygons_to_mask([ring], 6, 6)).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]


@given(arrays(np.float64, st.tuples(st.integers(3, 9), st.just(2)), elements=st.floats(-5, 25, width=16)))
def test_drawing_agrees_with_shapely_on_pixel_centres(ring: np.ndarray) -> None:
    polygon = shapely.Polygon(ring)
    if not polygon.is_valid:
        return
    x, y = np.meshgrid(np.arange(20) + 0.5, np.arange(16) + 0.5)
    distance = shapely.distance(polygon.exterior, shapely.points(x, y))
    drawn = polygons_to_mask([ring], 16, 20)
    clear = distance > 1e-6  # a centre on the edge itself may fall to either side
    np.testing.assert_array_equal(drawn[clear], shapely.contains_xy(polygon, x, y)[clear])


def test_overlapping_and_self_crossing_polygons_are_filled_as_the_editor_fills_them() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], dtype=float)
    assert polygons_to_mask([square, square[::-1] + 2], 6, 6).sum() == 16 + 16 - 4
    pentagram = np.array([[np.sin(k * 4 * np.pi / 5), -np.cos(k * 4 * np.pi / 5)] for k in range(5)]) * 9 + 10
    assert polygons_to_mask([pentagram], 20, 20)[10, 10]  # its middle is wound round twice: full, not a hole


def test_what_lies_outside_the_image_is_cut_off() -> None:
    ring = np.array([[-50, -50], [3, -50], [3, 2], [-50, 2]], dtype=float)
    assert np.argwhere(polygons_to_mask([ring], 6, 6)).tolist() == [
        [0, 0],
        [0, 1],
        [0, 2],
        [1, 0],
        [1, 1],
        [1, 2],
    ]
    assert not polygons_to_mask([ring - 100], 6, 6).any()
    assert not polygons_to_mask([ring + 100], 6, 6).any()


@pytest.mark.parametrize(
    "polygon",
    [
        np.zeros((2, 2)),
        np.zeros((4, 3)),
        np.zeros(6),
        [[0, 0], [1, np.nan], [1, 1]],
        [[0, 0], [np.inf, 1], [1, 1]],
    ],
)
def test_bad_polygons_are_refused(polygon: object) -> None:
    with pytest.raises(SvacError, match="cannot be drawn"):
        polygons_to_mask([polygon], 5, 5)  # type: ignore[list-item]


def test_bad_arguments_are_refused() -> None:
    mask = np.ones((3, 3), bool)
    for options in ({"tolerance_px": -1.0}, {"tolerance_px": float("nan")}, {"iou_floor": 1.5}):
        with pytest.raises(SvacError, match="not possible"):
            mask_to_polygons(mask, **options)
    with pytest.raises(SvacError, match="bool array"):
        mask_to_polygons(mask.astype(np.uint8))  # type: ignore[arg-type]
    with pytest.raises(SvacError, match="not possible"):
        polygons_to_mask([], 0, 4)


def test_real_masks_keep_their_shape(shared_masks: Path) -> None:
    scores = []
    for file in sorted(shared_masks.glob("*/*/*.png"))[::25]:
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0
        rings = mask_to_polygons(mask)
        assert_simple(rings)
        scores.append(iou(polygons_to_mask(rings, *mask.shape), mask))
    assert len(scores) >= 20
    assert min(scores) >= 0.98
    assert np.mean(scores) >= 0.99
