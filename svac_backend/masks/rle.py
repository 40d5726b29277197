"""Run-length encodings of masks: COCO's inside the project, Label Studio's brush RLE at its edge.

A mask is bool [H, W]. COCO RLE is written and read by pycocotools; the brush codec lives in `brush.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from svac_backend.errors import SvacError
from svac_backend.masks.brush import check_mask
from svac_backend.masks.brush import decode_brush as decode_brush
from svac_backend.masks.brush import encode_brush as encode_brush
from svac_backend.masks.limits import check_size
from svac_backend.masks.tracks import CocoRle

_ADVICE = 'Give {"size": [height, width], "counts": "..."} as pycocotools writes it, in the compressed form.'


def to_coco(mask: NDArray[np.bool_]) -> CocoRle:
    """Encode a mask as COCO's compressed RLE.

    Args:
        mask: bool [H, W], at least one pixel.

    Returns:
        `size` [H, W] and `counts` as text, ready for JSON.

    Raises:
        SvacError: the mask is no bool [H, W] array.
    """
    check_mask(mask)
    rle = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    return CocoRle(size=[int(side) for side in rle["size"]], counts=rle["counts"].decode("ascii"))


def from_coco(rle: CocoRle) -> NDArray[np.bool_]:
    """Decode COCO's compressed RLE.

    Returns:
        bool [H, W].

    Raises:
        SvacError: `size` or `counts` is missing or malformed, or the runs do not add up to the size.
    """
    decoded: NDArray[np.uint8] = coco.decode(_checked(rle))
    return np.ascontiguousarray(decoded).view(np.bool_)


def area(rle: CocoRle) -> int:
    """Return the number of object pixels without decoding the mask. Raises `SvacError` as `from_coco`."""
    return int(coco.area(_checked(rle)))


def iou(a: CocoRle, b: CocoRle) -> float:
    """Return intersection over union of two masks of one size without decoding them; 1.0 if both are empty.

    Raises:
        SvacError: as `from_coco`, or the sizes differ.
    """
    first, second = _of_one_size([a, b])
    if not coco.area(first) and not coco.area(second):
        return 1.0
    return float(coco.iou([first], [second], [0])[0, 0])


def overlap(a: CocoRle, b: CocoRle) -> int:
    """Return the number of pixels that two masks of one size share. Raises `SvacError` as `iou`."""
    first, second = _of_one_size([a, b])
    return int(coco.area(coco.merge([first, second], intersect=True)))


def shares(masks: Sequence[CocoRle], others: Sequence[CocoRle]) -> NDArray[np.float64]:
    """Return which share of each mask each other one covers, f64 [A, B]; 0.0 of an empty mask.

    Raises:
        SvacError: as `iou`.
    """
    checked = _of_one_size([*masks, *others])
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    # With "crowds" pycocotools divides the intersection by the first mask's area.
    found = coco.iou(checked[: len(masks)], checked[len(masks) :], [1] * len(others))
    return np.nan_to_num(np.asarray(found, dtype=np.float64).reshape(len(masks), len(others)))


def bounding_box(rle: CocoRle) -> tuple[int, int, int, int]:
    """Return left, top, width and height in pixels of what a mask covers; all 0 if it is empty.

    Raises:
        SvacError: as `from_coco`.
    """
    left, top, width, height = (int(number) for number in coco.toBbox(_checked(rle)))
    return left, top, width, height


def box_mask(left: int, top: int, right: int, bottom: int, height: int, width: int) -> CocoRle:
    """Return the mask of a box without drawing it; what lies outside of the image is cut off.

    Args:
        left, top, right, bottom: edges in pixels, right and bottom exclusive.
        height, width: size of the mask in pixels.

    Raises:
        SvacError: the size is not positive.
    """
    check_size(height, width)
    left, right = (min(max(side, 0), width) for side in (left, right))
    top, bottom = (min(max(side, 0), height) for side in (top, bottom))
    columns, rows = right - left, bottom - top
    runs = [height * width]
    if columns > 0 and rows == height:  # the runs go down the columns
        runs = [left * height, columns * height, (width - right) * height]
    elif columns > 0 and rows > 0:
        runs = [left * height + top, *[rows, height - rows] * columns]
        runs[-1] += (width - right) * height - top
    if not runs[-1]:
        runs.pop()
    packed = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return CocoRle(size=[height, width], counts=packed["counts"].decode("ascii"))


def union(masks: Sequence[CocoRle]) -> CocoRle:
    """Return what at least one of some masks of one size covers; of one mask, the mask itself.

    Raises:
        SvacError: there is no mask; else as `iou`.
    """
    if not masks:
        raise SvacError("There are no masks to unite.", "Give at least one.")
    if len(masks) == 1:
        return masks[0]
    merged = coco.merge(_of_one_size(masks))
    counts = merged["counts"]
    return CocoRle(
        size=[int(side) for side in merged["size"]],
        counts=counts.decode("ascii") if isinstance(counts, bytes) else counts,
    )


def _of_one_size(masks: Sequence[CocoRle]) -> list[CocoRle]:
    checked = [_checked(mask) for mask in masks]
    other = next((mask for mask in checked if mask["size"] != checked[0]["size"]), None)
    if other is not None:
        raise SvacError(
            f"The masks have different sizes: {checked[0]['size']} and {other['size']}.",
            "Compare masks of one video.",
        )
    return checked


def _checked(rle: CocoRle) -> CocoRle:
    """Return `rle` if its runs fill its size exactly.

    pycocotools trusts what it is given, its C code reads beyond its buffers on malformed text, and masks may
    come from strangers' files: so the runs are added up here, by the format's rules (five bits and a "more
    follows" bit per character from `0` on; from the fourth run on, the difference to the run two before).
    """
    size, counts = (rle.get("size"), rle.get("counts")) if isinstance(rle, dict) else (None, None)
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(isinstance(side, int) and side > 0 for side in size)
        or not isinstance(counts, (str, bytes))
    ):
        raise SvacError("A mask is not in COCO RLE.", _ADVICE)
    try:
        text = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError as error:
        raise SvacError("A COCO RLE holds characters that do not belong to the format.", _ADVICE) from error
    runs = _run_lengths(text)
    if runs is None or runs.min() < 0 or runs.sum() != size[0] * size[1]:
        raise SvacError(f"A COCO RLE does not fill its size of {size[1]}x{size[0]} pixels.", _ADVICE)
    check_size(*size)
    return CocoRle(size=list(size), counts=counts)


def _run_lengths(text: bytes) -> NDArray[np.int64] | None:
    """Return the runs of a COCO `counts` string in pixels, or None if the text is malformed."""
    chars = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if chars.size == 0 or chars.min() < 0 or chars.max() > 63 or chars[-1] & 32:
        return None
    last = np.flatnonzero(~chars & 32)
    first = np.append(0, last[:-1] + 1)
    digits = last - first + 1
    if digits.max() > 7:  # 35 bits: more than pycocotools' 32-bit counts hold
        return None
    place = 5 * (np.arange(chars.size) - np.repeat(first, digits))
    runs = np.add.reduceat((chars & 31) << place, first)
    runs -= ((chars[last] >> 4) & 1) << (5 * digits)  # the sign is the highest bit
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
