"""Specks: islands beside an object and pinholes in it, too small to belong there, that a person would wipe away.

They are judged by their size relative to the object, so that the same share fits a ball far away and a face near by.
Masks that a person made are never touched, and benchmarks are measured without this.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.masks.brush import check_mask


def without_specks(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Return a mask without the islands and pinholes that are smaller than a share of it.

    Parts that touch at a corner count as one; the largest part always stays. A gap that reaches the picture's edge, or
    the outside through a gap between pixels that share an edge, is no hole.

    Args:
        mask: bool [H, W].
        share: of the mask's area, 0..1; 0 leaves all as it is.

    Returns:
        bool [H, W]; `mask` itself where there is nothing to drop.

    Raises:
        SvacError: the mask is no bool [H, W] array, or the share is not within 0..1.
    """
    check_mask(mask)
    if not 0 <= share <= 1:
        raise SvacError(f"A share of {share} is not possible.", "Give a number from 0 to 1.")
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not share or not width:
        return mask
    rows, columns = slice(top, top + height), slice(left, left + width)
    part = mask[rows, columns].view(np.uint8)
    smallest = share * cv2.countNonZero(part)
    cleaned = _without_small_parts(part, smallest, connectivity=8)
    # A frame around the picture joins all that is outside, so that it is never taken for a hole.
    around = np.pad(1 - cleaned, 1, constant_values=1)
    filled = _without_small_parts(around, smallest, connectivity=4)
    if cleaned is part and filled is around:
        return mask
    result = mask.copy()
    result[rows, columns] = filled[1:-1, 1:-1] == 0
    return result


def _without_small_parts(part: NDArray[np.uint8], smallest: float, *, connectivity: int) -> NDArray[np.uint8]:
    """Return what is 1 in a picture u8 [h, w] without its parts below `smallest` pixels; the largest stays."""
    _, numbers, figures, _ = cv2.connectedComponentsWithStats(part, connectivity=connectivity)
    areas = figures[:, cv2.CC_STAT_AREA]
    kept = areas >= smallest
    kept[0] = False  # what is 0
    kept[1 + int(areas[1:].argmax())] = True
    if kept[1:].all():
        return part
    return kept[numbers].astype(np.uint8)
