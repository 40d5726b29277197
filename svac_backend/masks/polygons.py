"""Masks as polygons for Label Studio's editor, and back.

Coordinates are those of the editor, continuous and measured in pixels from the top left corner: pixel (x, y)
covers [x, x + 1) by [y, y + 1), so its centre is (x + 0.5, y + 0.5). A polygon runs along pixel edges, not
through pixel centres as OpenCV's contours do; a full mask is the ring (0, 0), (W, 0), (W, H), (0, H). A pixel
belongs to a polygon if its centre lies inside, by the non-zero rule that the editor's canvas fills with.

A polygon region of the editor is one ring. A part with holes is therefore cut through its holes into rings
that share edges; together they cover what the mask covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from shapely.ops import split

from svac_backend.errors import SvacError
from svac_backend.masks.brush import check_mask
from svac_backend.masks.limits import check_size

_SMALLEST_TOLERANCE_PX = 0.25  # below it a polygon on whole pixels has no point left to drop
_HAIR_PX = 1e-6  # so that a cut crosses the outline although its end was rounded
# Beyond it the crossings of rows and edges are no numbers any more.
_FARTHEST_PX = 1e9
# Drawn at a time: a pixel takes about 20 bytes meanwhile, a crossing of an edge and a row about 100.
_BAND_PX, _BAND_CROSSINGS = 4_000_000, 1_000_000

Ring = NDArray[np.float64]


def mask_to_polygons(
    mask: NDArray[np.bool_], *, tolerance_px: float = 1.0, iou_floor: float = 0.98
) -> list[NDArray[np.float64]]:
    """Turn a mask into simple polygons without holes.

    Each connected part (pixels that share an edge) is simplified on its own: its tolerance is halved until
    the polygons' IoU with the part reaches the floor; in the end they are exact. Holes of at most
    `4 * tolerance_px ** 2` pixels are filled where the floor allows it, since each would cut a region in two
    for the annotator.

    Args:
        mask: bool [H, W].
        tolerance_px: largest distance in pixels from a dropped point to its polygon; 0 keeps every corner.
        iou_floor: least IoU of the polygons with the mask, 0..1; it holds for every part and for the whole.

    Returns:
        f64 [N, 2] each: x, y in pixels, N >= 3, a valid simple ring whose first point is not repeated; the
        largest area first. No ring for an empty mask.

    Raises:
        SvacError: no bool [H, W] mask, a negative tolerance, a floor outside 0..1.
    """
    check_mask(mask)
    if not tolerance_px >= 0 or not 0 <= iou_floor <= 1:
        raise SvacError(
            f"A tolerance of {tolerance_px} pixels with an IoU floor of {iou_floor} is not possible.",
            "Give a tolerance of 0 or more and a floor from 0 to 1.",
        )
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    rings: list[Ring] = []
    for part in range(1, count):
        left, top, width, height = stats[part, :4]
        cover = parts[top : top + height, left : left + width] == part
        rings += [ring + np.array([left, top]) for ring in _part_to_rings(cover, tolerance_px, iou_floor)]
    return sorted(rings, key=_area, reverse=True)


def one_ring(rings: Sequence[Ring]) -> Ring:
    """Return one closed ring, f64 [N, 2], that covers what some rings cover.

    Each further ring is entered from the nearest point of what is there, and left by the same way: a bridge
    of no width.

    Args:
        rings: f64 [N, 2] each, one at least.
    """
    whole = rings[0]
    for ring in rings[1:]:
        apart = ((whole[:, None] - ring[None]) ** 2).sum(-1)
        here, there = np.unravel_index(int(apart.argmin()), apart.shape)
        round_trip = np.concatenate([ring[there:], ring[: there + 1]])
        whole = np.concatenate([whole[: here + 1], round_trip, whole[here:]])
    return whole


def polygons_to_mask(polygons: Iterable[NDArray[np.floating]], height: int, width: int) -> NDArray[np.bool_]:
    """Draw polygons; what at least one of them covers is in the mask.

    Args:
        polygons: [N, 2] each, x, y in pixels; they may cross themselves and reach beyond the image.
        height, width: size of the mask in pixels.

    Returns:
        bool [height, width].

    Raises:
        SvacError: a polygon is no finite [N, 2] array with three points or more, or the size is not positive.
    """
    check_size(height, width)
    mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in polygons:
        ring = np.asarray(polygon, dtype=np.float64)
        if (
            ring.ndim != 2
            or ring.shape[1:] != (2,)
            or len(ring) < 3
            or not (np.abs(ring) <= _FARTHEST_PX).all()
        ):
            raise SvacError(
                f"A polygon of shape {list(ring.shape)} cannot be drawn.",
                "Give three or more finite x, y points.",
            )
        _fill(mask, ring)
    return mask


def _part_to_rings(cover: NDArray[np.bool_], tolerance_px: float, iou_floor: float) -> list[Ring]:
    """Simplify one connected part, given within its bounding box."""
    exact = _outline(cover)
    tolerance = tolerance_px
    while tolerance >= _SMALLEST_TOLERANCE_PX:
        shape = shapely.simplify(_without_small_holes(exact, 4 * tolerance**2), tolerance)
        # Areas first: they are cheap, and half a pixel may still hold the pixel's centre.
        if shape.is_valid and _ratio(shape.area, exact.area) >= iou_floor:
            rings = [ring for polygon in _polygons(shape) for ring in _cut_open(polygon)]
            drawn = polygons_to_mask(rings, *cover.shape)
            if _ratio(np.count_nonzero(drawn & cover), np.count_nonzero(drawn | cover)) >= iou_floor:
                return rings
        tolerance /= 2
    return _cut_open(exact)


def _ratio(a: float, b: float) -> float:
    return min(a, b) / max(a, b) if a and b else 0.0


def _outline(cover: NDArray[np.bool_]) -> shapely.Polygon:
    """Return the polygon along the pixel edges of one connected part, with its holes.

    OpenCV walks through pixel centres. In a picture of twice the size every pixel has one quarter at each of
    its corners, and moving the quarters on the walk to these corners gives the walk along the edges.
    """
    doubled = np.repeat(np.repeat(cover.view(np.uint8), 2, axis=0), 2, axis=1)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [((contour[:, 0] + 1) // 2).astype(np.float64) for contour in contours]
    outer = [ring for ring, node in zip(rings, tree[0], strict=True) if node[3] < 0]
    holes = [ring for ring, node in zip(rings, tree[0], strict=True) if node[3] >= 0]
    return shapely.simplify(shapely.Polygon(outer[0], holes), 0)


def _without_small_holes(shape: shapely.Polygon, largest: float) -> shapely.Polygon:
    holes = [hole for hole in shape.interiors if shapely.Polygon(hole).area > largest]
    return shapely.Polygon(shape.exterior, holes)


def _cut_open(polygon: shapely.Polygon) -> list[Ring]:
    """Cut a polygon straight through a hole, from edge to edge, and so on until no piece has a hole."""
    if not polygon.interiors:
        return [shapely.get_coordinates(polygon.exterior)[:-1]]
    left, top, right, bottom = polygon.bounds
    boxes = np.array([hole.bounds for hole in polygon.interiors])
    # The hole nearest to the middle: cutting there keeps the pieces alike in size and the recursion shallow.
    offset = boxes[:, :2] + boxes[:, 2:] - (left + right, top + bottom)
    nearest = int(np.argmin((offset**2).sum(axis=1)))
    x0, y0, x1, y1 = boxes[nearest]
    x, y = _middle(x0, x1), _middle(y0, y1)

    filled, hole = shapely.Polygon(polygon.exterior), shapely.Polygon(polygon.interiors[nearest])
    lines = shapely.LineString([(x, top), (x, bottom)]), shapely.LineString([(left, y), (right, y)])
    chords = [_chord(filled, hole, line) for line in lines]
    chord = min(chords, key=lambda chord: polygon.intersection(chord).length)
    pieces = _polygons(split(polygon, chord))
    if sum(len(piece.interiors) for piece in pieces) >= len(polygon.interiors):
        # Rounding kept the chord from closing: the whole line cannot fail, but cuts other limbs too.
        halves = shapely.box(left, top, x, bottom), shapely.box(x, top, right, bottom)
        pieces = [piece for half in halves for piece in _polygons(polygon.intersection(half))]
    return [ring for piece in pieces for ring in _cut_open(piece)]


def _chord(filled: shapely.Polygon, hole: shapely.Polygon, line: shapely.LineString) -> shapely.LineString:
    """Return the part of a line that runs through a hole from outline to outline, and a hair beyond both."""
    parts = shapely.get_parts(filled.intersection(line))
    start, stop = shapely.get_coordinates(parts[shapely.intersects(parts, hole)][0])[[0, -1]]
    hair = _HAIR_PX * np.sign(stop - start)
    return shapely.LineString([start - hair, stop + hair])


def _middle(start: float, stop: float) -> float:
    """Return the pixel edge nearest to the middle, so that a cut divides no pixel, or else the middle."""
    edge = float(round((start + stop) / 2))
    return edge if start < edge < stop else (start + stop) / 2


def _polygons(shape: BaseGeometry) -> list[shapely.Polygon]:
    """Return the polygons of a geometry, without the points and lines that an intersection may leave."""
    return [part for part in shapely.get_parts(shape) if isinstance(part, shapely.Polygon) and part.area > 0]


def _fill(mask: NDArray[np.bool_], ring: Ring) -> None:
    """Set the pixels whose centre lies inside a ring, by the non-zero winding rule.

    An edge crosses the line of centres of a row at some x and changes the winding number of every pixel whose
    centre is at or right of it. Intervals are half-open, so that rings that share an edge share no pixel.
    """
    height, width = mask.shape
    following = np.roll(ring, -1, axis=0)
    down = following[:, 1] > ring[:, 1]
    upper = np.where(down[:, None], ring, following)
    lower = np.where(down[:, None], following, ring)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    rows = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64) - first
    if not rows.any():
        return
    top, bottom = int(first[rows > 0].min()), int((first + rows).max())
    step = max(1, min(_BAND_PX // width, _BAND_CROSSINGS // len(ring)))
    for start in range(top, bottom, step):
        begin = np.maximum(first, start)
        count = np.maximum(np.minimum(first + rows, start + step) - begin, 0)
        if count.any():
            _fill_band(mask, upper, lower, down, begin, count)


def _fill_band(
    mask: NDArray[np.bool_],
    upper: Ring,
    lower: Ring,
    down: NDArray[np.bool_],
    first: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Do what `_fill` does in some neighbouring rows: each edge crosses `rows` of them, the first one is `first`."""
    width = mask.shape[1]
    edge = np.repeat(np.arange(len(upper)), rows)
    row = np.arange(edge.size) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
    crossing = x0 + (row + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)

    left, top, right, bottom = int(column.min()), int(row.min()), int(column.max()), int(row.max()) + 1
    shape = (bottom - top, right - left + 1)
    at = (row - top) * shape[1] + column - left
    turns = np.bincount(at, np.where(down[edge], 1, -1), shape[0] * shape[1])
    winding = np.cumsum(turns.reshape(shape).astype(np.int32), axis=1)
    mask[top:bottom, left:right] |= winding[:, :-1] != 0


def _area(ring: Ring) -> float:
    x, y = ring.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
