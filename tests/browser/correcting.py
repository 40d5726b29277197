"""Masks of regions as the editor and Label Studio hold them, and how a hand draws with brush and eraser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svac_backend.masks.polygons import polygons_to_mask
from svac_backend.masks.rle import decode_brush

Region = dict[str, Any]
Masks = dict[int, NDArray[np.bool_]]
MASK_TYPES = ("brushlabels", "polygonlabels")


def mask_regions(results: Sequence[Region]) -> list[Region]:
    """Return the masks among an annotation's results."""
    return [region for region in results if region["type"] in MASK_TYPES]


def on_frame(results: Sequence[Region], frame: int) -> list[Region]:
    """Return the masks of a frame."""
    return [region for region in mask_regions(results) if region["item_index"] == frame]


def region_mask(region: Region) -> NDArray[np.bool_]:
    """Return a region's mask, bool [H, W]."""
    height, width, value = region["original_height"], region["original_width"], region["value"]
    if region["type"] == "brushlabels":
        return decode_brush(value["rle"], height, width)
    ring = np.asarray(value["points"], np.float64) * [width / 100, height / 100]
    return polygons_to_mask([ring], height, width)


def frame_masks(results: Sequence[Region]) -> Masks:
    """Return what lies under all masks of each frame."""
    masks: Masks = {}
    for region in mask_regions(results):
        mask, index = region_mask(region), int(region["item_index"])
        masks[index] = masks[index] | mask if index in masks else mask
    return masks


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the intersection over union; 1 for two empty masks."""
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def mean_iou(masks: Mapping[int, NDArray[np.bool_]], truth: NDArray[np.bool_], *, without: int = -1) -> float:
    """Return the mean IoU with a truth [T, H, W] over its frames; a frame without mask counts as empty."""
    nothing = np.zeros(truth.shape[1:], np.bool_)
    return float(np.mean([iou(masks.get(i, nothing), truth[i]) for i in range(len(truth)) if i != without]))


def inside(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return x and y of a pixel well inside a mask."""
    left = mask.copy()
    last = left
    while left.any():
        last = left
        left = left & np.roll(left, 1, 0) & np.roll(left, -1, 0) & np.roll(left, 1, 1) & np.roll(left, -1, 1)
    rows, columns = np.nonzero(last)
    return float(columns[0]), float(rows[0])


def there_and_back(mask: NDArray[np.bool_], step: int, margin: int = 0) -> list[tuple[float, float]]:
    """Return one stroke over all of a mask: from side to side, `step` pixels further down each time."""
    path: list[tuple[float, float]] = []
    rows = np.nonzero(mask.any(1))[0]
    for count, row in enumerate(range(rows[0], rows[-1] + step, step)):
        around = mask[max(row - step, 0) : row + step].any(0)
        columns = np.nonzero(around)[0]
        if not len(columns):
            continue
        ends = [(float(columns[0] - margin), float(row)), (float(columns[-1] + margin), float(row))]
        path += ends if count % 2 == 0 else ends[::-1]
    return path


def lines(mask: NDArray[np.bool_], step: int) -> list[list[tuple[float, float]]]:
    """Return strokes that fill a mask: one for each run of pixels in every `step`-th row."""
    strokes = []
    for row in range(step // 2, len(mask), step):
        edges = np.diff(np.concatenate(([False], mask[row], [False])).astype(np.int8))
        for start, stop in zip(np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0], strict=True):
            if stop - start > step:
                inset = step / 2
                strokes.append([(start + inset, float(row)), (stop - 1 - inset, float(row))])
    return strokes
