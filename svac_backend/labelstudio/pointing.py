"""Which object a person means who clicks on a frame or draws a box, and what the model is told about it."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.masks.prompts import Click, FramePrompt

Masks = Mapping[str, NDArray[np.bool_]]

# A box that is drawn around a known object's mask overlaps the box of this mask at least so much (IoU).
SAME_BOX = 0.5


def pointed_object(pointed: FramePrompt, masks: Masks) -> str | None:
    """Return the object that is meant, or None for a new one.

    - A positive click on an object's mask means this object; of several the one with the smallest mask.
    - Negative clicks alone mean the object nearest to them.
    - A box means the object that it encloses closely, if there is one.
    - Everything else is a new object.

    Args:
        pointed: clicks and a box on one frame.
        masks: bool [H, W] of each object that is on this frame.

    Raises:
        SvacError: there are only negative clicks, and no object on the frame.
    """
    present = {object_id: mask for object_id, mask in masks.items() if mask.any()}
    positive = [click for click in pointed.clicks if click.positive]
    hit = [object_id for object_id, mask in present.items() if any(_at(mask, click) for click in positive)]
    if hit:
        return min(hit, key=lambda object_id: int(present[object_id].sum()))
    if not positive and pointed.clicks and pointed.box is None:
        if not present:
            raise SvacError(
                "The click says what the object is not, but there is no object on this frame.",
                "Click on an object first, or type what to segment.",
            )
        return min(
            present, key=lambda object_id: min(_distance(present[object_id], c) for c in pointed.clicks)
        )
    if pointed.box is not None and not positive and present:
        overlaps = {object_id: _box_iou(_bounds(mask), pointed.box) for object_id, mask in present.items()}
        best = max(overlaps, key=lambda object_id: overlaps[object_id])
        return best if overlaps[best] >= SAME_BOX else None
    return None


def refined(pointed: FramePrompt, mask: NDArray[np.bool_] | None, earlier: FramePrompt | None) -> FramePrompt:
    """Return what the model is told of an object on a frame: this, and what was said about it there before.

    Clicks add to each other; a new box replaces an old one. When nothing says where the object is, the mask that it has
    does: by the box around it and its innermost point.

    Args:
        pointed: the new clicks and box.
        mask: bool [H, W] as the object is now, or None.
        earlier: what was said before; a mask that was drawn by hand counts through `mask`.
    """
    clicks, box = list(pointed.clicks), pointed.box
    if earlier is not None and earlier.mask is None:
        clicks = [*(click for click in earlier.clicks if click not in clicks), *clicks]
        box = box or earlier.box
    if box is None and not any(click.positive for click in clicks) and mask is not None and mask.any():
        clicks, box = [_innermost(mask), *clicks], _bounds(mask)
    return FramePrompt(clicks=tuple(clicks), box=box)


def _at(mask: NDArray[np.bool_], click: Click) -> bool:
    height, width = mask.shape
    return bool(mask[min(int(click.y), height - 1), min(int(click.x), width - 1)])


def _distance(mask: NDArray[np.bool_], click: Click) -> float:
    """Pixels from a click to the nearest pixel of a mask."""
    rows, columns = np.nonzero(mask)
    return float(np.hypot(columns - click.x, rows - click.y).min())


def _bounds(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _box_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def _innermost(mask: NDArray[np.bool_]) -> Click:
    """The middle of the mask's pixel that is farthest from its edge."""
    # The frame's border counts as an edge, too.
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside.argmax()), mask.shape)
    return Click(float(column) + 0.5, float(row) + 0.5)
