"""A mask as COCO and YouTube-VIS write it: compressed or plain run lengths, or polygons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from svac_backend.errors import SvacError
from svac_backend.exporting.dataset import damaged
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import CocoRle


def read_segmentation(value: Any, height: int, width: int, path: Path) -> CocoRle | None:
    """Return a mask in compressed RLE as pycocotools writes it, None for null or an empty mask.

    Args:
        value: null, `{"size", "counts"}` with text or a list of run lengths, or a list of polygons [x, y, x, y, ...].
        height, width: size of the picture in pixels.
        path: the file that it stands in, for the message.

    Raises:
        SvacError: it is malformed, or of another size.
    """
    if value is None:
        return None
    try:
        rle = _compressed(value, height, width)
        if list(rle["size"]) != [height, width]:
            raise damaged(path, f"a mask has {rle['size']} rows and columns, its picture {[height, width]}")
        mask = from_coco(rle)
    except SvacError:
        raise
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise damaged(path, f"a segmentation is malformed ({error})") from error
    return to_coco(mask) if mask.any() else None


def _compressed(value: Any, height: int, width: int) -> CocoRle:
    if isinstance(value, list):
        merged = coco.merge(coco.frPyObjects(_polygons(value, height, width), height, width))
        return CocoRle(size=[int(side) for side in merged["size"]], counts=merged["counts"].decode("ascii"))
    counts = value["counts"]
    if not isinstance(counts, list):
        return CocoRle(size=value["size"], counts=counts)
    rows, columns = (int(side) for side in value["size"])
    runs = np.asarray(counts, dtype=np.int64)
    # pycocotools trusts what it is given.
    if (
        runs.ndim != 1
        or (rows, columns) != (height, width)
        or (runs < 0).any()
        or runs.sum() != rows * columns
    ):
        raise ValueError("its runs do not fill its size")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return to_coco(np.ascontiguousarray(flat.reshape(columns, rows).T))


def _polygons(value: Sequence[Any], height: int, width: int) -> list[list[float]]:
    """Return polygons that pycocotools' C code can take: finite points within a frame's reach, three at least."""
    polygons = []
    for polygon in value:
        points = np.asarray(polygon, dtype=np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError("a polygon is no list of x, y, x, y, ...")
        reach = np.tile([width, height], len(points) // 2)
        polygons.append(np.clip(points, 0, reach).tolist())
    if not polygons:
        raise ValueError("it has no polygon")
    return polygons


def box(rle: CocoRle) -> list[float]:
    """Return the box [x, y, width, height] of a mask in pixels."""
    return [float(side) for side in coco.toBbox(rle)]
