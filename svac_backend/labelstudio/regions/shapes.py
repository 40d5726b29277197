"""The shape of a region: as a mask, and compared with another shape.

The kind of a shape follows from its `value`, not from the result's type: in a pair such as `<Brush/>` + `<Labels/>`
both results carry the shape.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.labelstudio.regions.region import frame_size
from svac_backend.masks.limits import MAX_PIXELS, MAX_POINTS, MAX_STROKES, check_count
from svac_backend.masks.polygons import polygons_to_mask
from svac_backend.masks.rle import decode_brush

# In percent of the frame. The editor changes floats by 1e-15; a person moves a point by at least a pixel.
SAME_PERCENT = 0.01

_BOX = ("x", "y", "width", "height")
_CURVE_STEPS = 16
_PNG = b"\x89PNG\r\n\x1a\n"


def kind_of(value: Mapping[str, Any]) -> str | None:
    """Return `brush`, `polygon`, `vector`, `bitmask` or `rectangle`; None if a `value` encloses no area we can draw.

    Unfinished polygons, open lines, key points, ellipses and text have no kind.
    """
    if value.get("rle") or value.get("touches"):
        return "brush"
    if "points" in value:
        return "polygon" if value.get("closed", True) and _ring(value["points"]) else None
    if "vertices" in value:
        return "vector" if value.get("closed", False) and _ring(value["vertices"]) else None
    if "imageDataURL" in value:
        return "bitmask"
    return "rectangle" if all(key in value for key in _BOX) else None


def shape_to_mask(region: Mapping[str, Any], width: int, height: int) -> NDArray[np.bool_]:
    """Draw a region.

    Args:
        region: a result whose value has a kind, see `kind_of`.
        width, height: size of the mask in pixels: the video's display size. A brush mask or a bitmask that was drawn on
            a picture of another size is scaled.

    Returns:
        bool [height, width]. Brush and bitmask: alpha >= 128, since the editor draws soft edges. Strokes that the
        editor has not yet merged into the mask (`touches`, in drafts and in annotations that were submitted from a
        draft without another look at the frame) are drawn onto it.

    Raises:
        SvacError: the shape is malformed, or the frame was turned in the editor.
    """
    value = region["value"]
    kind = kind_of(value)
    if region.get("image_rotation"):
        raise SvacError(
            f"The region '{region.get('id')}' was drawn on a frame turned by {region['image_rotation']} degrees.",
            "Turn the frame back in the editor, and take rotateControl out of the config.",
        )
    try:
        if kind == "brush":
            columns, rows = frame_size([region]) or (width, height)
            return _scaled(_brush(value, rows, columns), width, height)
        if kind == "bitmask":
            return _scaled(_picture(value["imageDataURL"]), width, height)
        if kind in ("polygon", "vector"):
            check_count(
                len(value["points" if kind == "polygon" else "vertices"]), MAX_POINTS, "points in a polygon"
            )
        if kind == "vector":
            ring = np.array(_flattened(value["vertices"]), dtype=np.float64) / 100 * (width, height)
        elif kind == "rectangle":
            ring = box_corners(value, width, height)
        else:
            ring = np.array(value["points"], dtype=np.float64) / 100 * (width, height)
        return polygons_to_mask([ring], height, width)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SvacError(
            f"The region '{region.get('id')}' is malformed ({type(error).__name__}).",
            "Draw it again in the editor, or take the result unchanged from Label Studio.",
        ) from error


def same_shape(one: Mapping[str, Any], other: Mapping[str, Any], width: int, height: int) -> bool:
    """Return whether two states of a region have the same shape.

    Brush masks and bitmasks are the same if their pixels are, even if their bytes differ; points of polygons, vectors
    and boxes may drift by `SAME_PERCENT`.

    Args:
        one, other: results with a shape.
        width, height: as in `shape_to_mask`.

    Raises:
        SvacError: a shape is malformed.
    """
    first, second = one["value"], other["value"]
    kind = kind_of(first)
    if kind != kind_of(second):
        return False
    if kind == "brush":
        same_text = all((first.get(key) or []) == (second.get(key) or []) for key in ("rle", "touches"))
    elif kind == "bitmask":
        same_text = first["imageDataURL"] == second["imageDataURL"]
    else:
        return close(_numbers(first, kind), _numbers(second, kind))
    return same_text or np.array_equal(shape_to_mask(one, width, height), shape_to_mask(other, width, height))


def box_corners(box: Mapping[str, Any], width: int, height: int) -> NDArray[np.float64]:
    """Return the corners of a box in percent, f64 [4, 2] in pixels; `rotation` turns it clockwise around (x, y)."""
    x, y, w, h = (float(box[key]) / 100 for key in _BOX)
    across, down = w * width, h * height
    turn = math.radians(float(box.get("rotation") or 0.0))
    cos, sin = math.cos(turn), math.sin(turn)
    offsets = np.array([[0, 0], [across, 0], [across, down], [0, down]])
    return offsets @ np.array([[cos, sin], [-sin, cos]]) + (x * width, y * height)


def _ring(points: Any) -> bool:
    return isinstance(points, list) and len(points) >= 3


def _scaled(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0


def _brush(value: Mapping[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """Decode a brush mask and draw the strokes that are not in it yet, as the editor does on Submit.

    A stroke runs through `relativePoints` (x, y, x, y, ... in percent), is `relativeStrokeWidth` percent of the width
    thick, and has round ends and joins. Pixels whose centre is covered count as at least half covered: compared with
    Chromium's own drawing, the IoU was 0.9987 or more.
    """
    rle = value.get("rle")
    mask = decode_brush(rle, height, width) if rle else np.zeros((height, width), dtype=np.bool_)
    touches = value.get("touches") or []
    check_count(len(touches), MAX_STROKES, "strokes in a brush mask")
    for touch in touches:
        check_count(len(touch["relativePoints"]), 2 * MAX_POINTS, "numbers in a stroke")
        points = np.array(touch["relativePoints"], dtype=np.float64).reshape(-1, 2) / 100 * (width, height)
        if len(np.unique(points, axis=0)) < 2 or not np.isfinite(points).all():
            continue  # a browser draws no line without length
        shape = shapely.LineString(points).buffer(float(touch["relativeStrokeWidth"]) / 200 * width)
        for part in shapely.get_parts(shape):
            if part.is_empty:
                continue
            stroke = polygons_to_mask([shapely.get_coordinates(part.exterior)], height, width)
            # A line that encloses an area does not fill it.
            holes = [shapely.get_coordinates(hole) for hole in part.interiors]
            stroke &= ~polygons_to_mask(holes, height, width)
            mask = mask & ~stroke if touch.get("type") == "eraser" else mask | stroke
    return mask


def _picture(url: str) -> NDArray[np.bool_]:
    """Decode the data URL of a bitmask: a PNG whose alpha channel, or else its grey value, is the mask."""
    try:
        data = base64.b64decode(str(url).partition("base64,")[2], validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    # The size is at a fixed position and read first: a small file must not unpack into gigabytes.
    if data[:8] != _PNG or len(data) < 24:
        raise ValueError("no PNG")
    if int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big") > MAX_PIXELS:
        raise ValueError("too large")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError("no PNG")
    grey = picture if picture.ndim == 2 else picture[..., 3 if picture.shape[2] == 4 else 0]
    return np.asarray(grey >= 128)


def _flattened(vertices: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return the points of a closed vector path, with its curves as short lines.

    A curve runs from vertex a to b as a cubic Bezier by a's `controlPoint2` and b's `controlPoint1`.
    """
    points: list[tuple[float, float]] = []
    for a, b in zip(vertices, [*vertices[1:], vertices[0]], strict=True):
        start, end = _xy(a), _xy(b)
        points.append(start)
        check_count(len(points), MAX_POINTS, "points in a polygon")
        leaving = a.get("controlPoint2") if a.get("isBezier") else None
        arriving = b.get("controlPoint1") if b.get("isBezier") else None
        if not leaving and not arriving:
            continue
        one, two = _xy(leaving or a), _xy(arriving or b)
        for step in range(1, _CURVE_STEPS):
            t = step / _CURVE_STEPS
            weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
            xs, ys = zip(start, one, two, end, strict=True)
            points.append(
                (sum(map(float.__mul__, weights, xs), 0.0), sum(map(float.__mul__, weights, ys), 0.0))
            )
    return points


def _xy(point: Mapping[str, Any]) -> tuple[float, float]:
    return float(point["x"]), float(point["y"])


def _numbers(value: Mapping[str, Any], kind: str | None) -> list[float]:
    try:
        if kind == "polygon":
            return [float(number) for point in value["points"] for number in point]
        if kind == "vector":
            return [number for point in _flattened(value["vertices"]) for number in point]
        return [float(value.get(key) or 0.0) for key in (*_BOX, "rotation")]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SvacError(
            f"A {kind} is malformed ({type(error).__name__}).", "Draw it again in the editor."
        ) from error


def close(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two lists of percentages are the same within `SAME_PERCENT`."""
    return len(one) == len(other) and all(abs(a - b) <= SAME_PERCENT for a, b in zip(one, other, strict=True))
