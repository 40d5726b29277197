"""How much a stranger's numbers may make us allocate: a request, an annotation and a file can claim anything.

The numbers are far above what real work needs, and each keeps what it leads to well under 500 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError

# Frames of 8K (7680x4320) fit; as a bool mask these are 34 MB.
MAX_SIDE, MAX_PIXELS = 1 << 16, 1 << 25
# Far beyond the longest video that is accepted.
MAX_FRAMES = 200_000
# Of one polygon. This backend's own have hundreds, and tens of thousands where a mask is all edge.
MAX_POINTS = 50_000
# Of a mask in brush RLE; 1080p of pure noise takes 2 MB.
MAX_RLE_BYTES = 4_000_000
# Of a mask, along its columns; 1080p of pure noise has a million. Each takes some 16 bytes while COCO RLE is made.
MAX_EDGES = 4_000_000
# Of a mask that is still strokes.
MAX_STROKES = 5_000
# Of one text: a prompt, an expression. What a setting allows is less.
MAX_TEXT_CHARS = 100_000
# What all masks of an annotation may take together in COCO RLE; 300 frames of 720p take 1 MB.
MAX_MASK_BYTES = 256_000_000


def check_size(height: Any, width: Any) -> None:
    """Raise `SvacError` unless a mask can have this size: positive integers, and not too large together."""
    sides = (height, width)
    if not all(isinstance(side, (int, np.integer)) and side > 0 for side in sides):
        raise SvacError(f"A mask of {width}x{height} pixels is not possible.", "Give positive integers.")
    if max(sides) > MAX_SIDE or int(height) * int(width) > MAX_PIXELS:
        raise SvacError(
            f"Frames of {_short(width)}x{_short(height)} pixels are larger than any that are accepted.",
            f"Use frames of at most {MAX_PIXELS >> 20} megapixels with sides up to {MAX_SIDE}, such as 8K.",
        )


def check_frame(number: Any, what: str) -> int:
    """Return a frame's number, from 0 on.

    Args:
        number: what was claimed.
        what: whose frame it is, for the message, e.g. `The region 'a'`.

    Raises:
        SvacError: it is no number of a frame that any video here can have.
    """
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < MAX_FRAMES:
        raise SvacError(
            f"{what} names no possible frame.",
            f"Send item_index as Label Studio's editor does, from 0 to {MAX_FRAMES - 1}.",
        )
    return number


def check_count(count: int, most: int, what: str) -> None:
    """Raise `SvacError` when there are more than `most` of `what`, e.g. `points in a polygon`."""
    if count > most:
        raise SvacError(f"There are {count} {what}, more than {most}.", "Simplify it in the editor.")


def check_edges(mask: NDArray[np.bool_]) -> None:
    """Raise `SvacError` when a mask, bool [H, W], is so ragged that COCO RLE would take hundreds of megabytes."""
    check_count(int(np.count_nonzero(mask[1:] != mask[:-1])), MAX_EDGES, "edges in a mask")


@dataclass
class MaskRoom:
    """What the masks of one annotation may still take, in bytes of COCO RLE."""

    left: int = MAX_MASK_BYTES

    def take(self, size: int) -> None:
        """Count a mask.

        Raises:
            SvacError: all together they take too much.
        """
        self.left -= size
        if self.left < 0:
            raise SvacError(
                f"The masks of the annotation take more than {MAX_MASK_BYTES // 1_000_000} MB.",
                "Annotate a shorter part of the video, or smoother shapes.",
            )


def _short(side: Any) -> str:
    # Digits can be a claim, too.
    return str(side) if side < 10**9 else "over 10^9"
