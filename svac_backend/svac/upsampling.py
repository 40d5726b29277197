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
# Pixels near 0 that are looked at one by one.
_FEW = 64


def masks_at_size(logits: Tensor, sam_size: int, height: int, width: int) -> Tensor:
    """Upsample logits [k, S/4, S/4] to SAM-2's size and then to the frame's; returns bool [k, H, W].

    Two bilinear steps and a sigmoid: one step would move edge pixels. On the CPU only the box around the positive
    logits is computed, by PyTorch's own weights; masks with a logit so near to 0 that rounding could decide are
    computed as a whole. So every pixel is the same either way.
    """
    large = F.interpolate(
        logits[:, None].float(), size=(sam_size, sam_size), mode="bilinear", align_corners=False
    )
    if logits.device.type != "cpu":
        return _whole(large, height, width)
    masks = np.zeros((len(logits), height, width), dtype=np.bool_)
    for mask, one in zip(masks, large.numpy(), strict=True):
        _fill(mask, one[0])
    return torch.from_numpy(masks)


def _whole(large: Tensor, height: int, width: int) -> Tensor:
    full = F.interpolate(large, size=(height, width), mode="bilinear", align_corners=False)
    return full[:, 0].sigmoid_() > 0.5


def _fill(mask: NDArray[np.bool_], large: NDArray[np.float32]) -> None:
    """Set the pixels of a mask, bool [H, W], that logits [S, S] make positive.

    Rows are interpolated to the frame's width first. A pixel between two of these of one sign has that sign; only the
    others are computed.
    """
    positive = large > 0
    rows: NDArray[np.bool_] = np.asarray(positive.any(1))
    columns: NDArray[np.bool_] = np.asarray(positive.any(0))
    if not rows.any():
        return
    down = _part(rows, mask.shape[0])
    across = _part(columns, mask.shape[1])
    if down.begin >= down.end or across.begin >= across.end:  # a shrunk frame may take none of these pixels
        return
    source = large[down.low : down.high, across.low : across.high]
    wide, rest = source[:, across.first], source[:, across.second]
    wide *= across.weight
    rest *= 1 - across.weight
    wide += rest
    sign = wide > 0
    differ = sign[:-1] ^ sign[1:]
    doubt = max(_ROUNDING * float(np.abs(source).max()), _HALF)
    unsure = np.abs(wide) < doubt
    if unsure.any():  # pixels beside these are computed, whatever the signs
        differ |= unsure[:-1] | unsure[1:]
    both = sign.copy()  # a pixel below the last row of pixel centres has that row only
    both[:-1] &= sign[1:]
    part = both[down.first]
    y, x, upper = _between(differ, down.first)
    weight = down.weight[y]
    values = weight * wide[upper, x] + (1 - weight) * wide[upper + 1, x]
    near = np.abs(values) < doubt
    if unsure[-1].any() or (near.any() and _undecided(values[near], source, down, across, y[near], x[near])):
        mask[:] = _whole(torch.from_numpy(large)[None, None], *mask.shape)[0].numpy()
        return
    part[y, x] = values > 0
    mask[down.begin : down.end, across.begin : across.end] = part


def _between(
    differ: NDArray[np.bool_], above: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (y, x, row above) of the pixels that lie between two source rows of unlike sign.

    Args:
        differ: bool [r - 1, w], where one of r source rows and the next one differ.
        above: i64 [h], for each target row the source row at or above it; ascending.
    """
    row, column = np.divmod(np.flatnonzero(differ), differ.shape[1])
    start = np.searchsorted(above, np.arange(len(differ) + 1))
    times = np.diff(start)[row]
    x, upper = np.repeat(column, times), np.repeat(row, times)
    # The number of each pixel within its own run of target rows.
    within = np.arange(len(x)) - np.repeat(np.cumsum(times) - times, times)
    return start[upper] + within, x, upper


def _undecided(
    values: NDArray[np.float32],
    source: NDArray[np.float32],
    down: _Part,
    across: _Part,
    y: NDArray[np.int64],
    x: NDArray[np.int64],
) -> bool:
    """Whether rounding decides one of k pixels (y, x): the logits around it say how much its value rounds."""
    if len(values) > _FEW:  # the whole is cheaper then
        return True
    corners = [
        np.abs(source[row[y], column[x]])
        for row in (down.first, down.second)
        for column in (across.first, across.second)
    ]
    largest = np.max(corners, axis=0)
    return bool((np.abs(values) < np.maximum(_ROUNDING * largest, _HALF)).any())


class _Part(NamedTuple):
    """Target pixels begin..end along one axis, made from source pixels low..high.

    Attributes:
        first, second: i64 [end - begin], the source pixels of each, counted from `low`.
        weight: f32 [end - begin], the first one's weight; the second has the rest.
    """

    begin: int
    end: int
    low: int
    high: int
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: NDArray[np.float32]


def _part(positive: NDArray[np.bool_], target: int) -> _Part:
    """Return the target pixels that the positive source pixels reach."""
    where = np.flatnonzero(positive)
    left, right = int(where[0]), int(where[-1])
    first, second, weight, starts, ends = _weights(len(positive), target)
    # Bilinear weights reach one source pixel further to each side.
    low, high = max(left - 1, 0), min(right + 2, len(positive))
    taken = slice(starts[left], ends[right])
    # A second pixel of no weight may lie outside.
    return _Part(
        taken.start,
        taken.stop,
        low,
        high,
        first[taken] - low,
        np.minimum(second[taken], high - 1) - low,
        weight[taken],
    )


@lru_cache(maxsize=16)
def _weights(
    source: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], list[int], list[int]]:
    """Return PyTorch's own bilinear weights: each target pixel's two source pixels and the first one's weight.

    And what each source pixel reaches: [start, end).
    """
    unit = torch.eye(source)[None, :, :, None]
    weights = F.interpolate(unit, size=(target, 1), mode="bilinear", align_corners=False)[0, :, :, 0].T
    reached = weights > 0
    # Rows ascend: those that reach nothing from a source pixel on come before it, those that reach up to it end it.
    starts = reached.flip(1).cumsum(1).flip(1).eq(0).sum(0).tolist()
    ends = reached.cumsum(1).gt(0).sum(0).tolist()
    first = reached.int().argmax(1)
    weight = weights.gather(1, first[:, None])[:, 0]
    second = (first + 1).clamp(max=source - 1)
    return first.numpy(), second.numpy(), weight.numpy(), starts, ends
