"""Run-length encodings of masks: COCO's inside the project, Label Studio's brush RLE at its edge.

A mask is bool [H, W]. COCO RLE is written and read by pycocotools; the brush codec lives in `brush.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from svac_backend.errors import SvacError
from svac_backend.masks.brush import check_mask, decode_brush, encode_brush
from svac_backend.masks.tracks import CocoRle

__all__ = ["area", "decode_brush", "encode_brush", "from_coco", "iou", "to_coco"]

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
    first, second = _checked(a), _checked(b)
    if first["size"] != second["size"]:
        raise SvacError(
            f"The masks have different sizes: {first['size']} and {second['size']}.",
            "Compare masks of one video.",
        )
    if not coco.area(first) and not coco.area(second):
        return 1.0
    return float(coco.iou([first], [second], [0])[0, 0])


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
