"""Logits to masks at the frame's size: two bilinear steps, as the published code has it, only where masks are."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# How far two ways to sum the same four products can be apart, relative to the largest of the four logits, and where the
# sigmoid of a positive logit is rounded to one half.
_ROUNDING, _HALF = 5e-7, 2e-7


def masks_at_size(logits: Tensor, sam_size: int, height: int, width: int) -> Tensor:
    """Upsample logits [k, S/4, S/4] to SAM-2's size and then to the frame's; returns bool [k, H, W].

    Two bilinear steps and a sigmoid: one step would move edge pixels. On the CPU only the pixels at the masks' edges
    are computed, by PyTorch's own weights; masks with a logit so near to 0 that rounding could decide are computed as
    a whole. So every pixel is the same either way.
    """
    large = F.interpolate(
        logits[:, None].float(), size=(sam_size, sam_size), mode="bilinear", align_corners=False
    )
    if logits.device.type != "cpu":
        return _whole(large, height, width)
    masks = np.zeros((len(logits), height, width), dtype=np.bool_)
    padded = F.pad(large, (1, 1, 1, 1), mode="replicate")[:, 0].numpy()
    for number, mask in enumerate(masks):
        if not _fill(mask, padded[number]):
            mask[:] = _whole(large[number : number + 1], height, width)[0].numpy()
    return torch.from_numpy(masks)


def _whole(large: Tensor, height: int, width: int) -> Tensor:
    full = F.interpolate(large, size=(height, width), mode="bilinear", align_corners=False)
    return full[:, 0].sigmoid_() > 0.5


def _fill(mask: NDArray[np.bool_], padded: NDArray[np.float32]) -> bool:
    """Set the pixels of a mask, bool [H, W], that logits make positive; False where rounding decides one.

    A cell is what lies between four neighbouring logits. Where these have one sign, so have its pixels; only cells of
    both signs are computed.

    Args:
        mask: all False.
        padded: f32 [S + 2, S + 2], logits [S, S] with their edges repeated: what lies beyond them are cells, too.
    """
    positive = padded > 0
    rows, columns = np.flatnonzero(positive.any(1)), np.flatnonzero(positive.any(0))
    if not len(rows):
        return True
    down, across = _grid(len(padded) - 2, mask.shape[0]), _grid(len(padded) - 2, mask.shape[1])
    # The cells that have a positive logit.
    top, bottom = max(int(rows[0]) - 1, 0), min(int(rows[-1]) + 1, len(down.counts))
    left, right = max(int(columns[0]) - 1, 0), min(int(columns[-1]) + 1, len(across.counts))
    source = padded[top : bottom + 1, left : right + 1]
    some, every = positive[top : bottom + 1, left : right + 1], source > 2 * _HALF
    some, every = some[:-1] | some[1:], every[:-1] & every[1:]
    some, every = some[:, :-1] | some[:, 1:], every[:, :-1] & every[:, 1:]
    wide = np.repeat(every, across.counts[left:right], axis=1)
    part = np.repeat(wide, down.counts[top:bottom], axis=0)
    first, begin = down.start[top], across.start[left]
    mask[first : first + part.shape[0], begin : begin + part.shape[1]] = part
    mixed = some ^ every
    if len(padded) - 2 > min(mask.shape):  # a shrunk frame takes no pixel from some cells
        mixed &= (down.counts[top:bottom, None] > 0) & (across.counts[left:right] > 0)
    r, c = np.nonzero(mixed)
    y, x = down.pixels[top + r], across.pixels[left + c]
    if y.size * x.shape[1] > mask.size:  # the whole is cheaper then
        return False
    values, certain = _between(source, r, c, down.weight[top + r], across.weight[left + c])
    mask[y[:, :, None], x[:, None, :]] = values > 0
    return certain


def _between(
    source: NDArray[np.float32],
    r: NDArray[np.int64],
    c: NDArray[np.int64],
    down: NDArray[np.float32],
    across: NDArray[np.float32],
) -> tuple[NDArray[np.float32], bool]:
    """Return the values of the pixels in k cells, f32 [k, p, q], and whether rounding decides no sign.

    Args:
        source: f32 [h, w], logits.
        r, c: i64 [k], each cell's first row and column in it.
        down: f32 [k, p], for each row of pixels the first row's weight.
        across: f32 [k, q], for each column of pixels the first column's weight.
    """
    corners = source[r, c], source[r, c + 1], source[r + 1, c], source[r + 1, c + 1]
    one, two, three, four = (corner[:, None] for corner in corners)
    upper, lower = across * one + (1 - across) * two, across * three + (1 - across) * four
    values = down[:, :, None] * upper[:, None] + (1 - down)[:, :, None] * lower[:, None]
    doubt = np.maximum(_ROUNDING * np.abs(corners).max(0), _HALF)
    return values, not bool((np.abs(values) < doubt[:, None, None]).any())


class _Grid(NamedTuple):
    """Where the target pixels of one axis lie between the S source pixels, by PyTorch's own bilinear weights.

    Cell 0 lies before the first source pixel, cell S behind the last one.

    Attributes:
        start, counts: i64 [S + 1], where the pixels of each cell begin, and how many there are.
        pixels: i64 [S + 1, p], the pixels of each cell, the last one as often as it takes to make p; without meaning
            where a cell has none.
        weight: f32 [S + 1, p], the weight of the source pixel before each; the one behind it has the rest.
    """

    start: NDArray[np.int64]
    counts: NDArray[np.int64]
    pixels: NDArray[np.int64]
    weight: NDArray[np.float32]


@lru_cache(maxsize=16)
def _grid(source: int, target: int) -> _Grid:
    unit = torch.eye(source)[None, :, :, None]
    weights = F.interpolate(unit, size=(target, 1), mode="bilinear", align_corners=False)[0, :, :, 0].T
    first = (weights > 0).int().argmax(1)
    weight = weights.gather(1, first[:, None])[:, 0]
    # Pixels that are made from the first source pixel alone lie before it, or on it.
    cell = first + 1 - ((first == 0) & (weight == 1)).long()
    bounds = torch.searchsorted(cell, torch.arange(source + 2))
    start, count = bounds[:-1], bounds.diff()
    pixels = start[:, None] + torch.arange(int(count.max()))
    pixels = torch.minimum(pixels, (bounds[1:, None] - 1).clamp(min=0))
    return _Grid(start.numpy(), count.numpy(), pixels.numpy(), weight[pixels].numpy())
