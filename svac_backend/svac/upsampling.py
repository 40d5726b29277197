"""Logits to masks at the frame's size: two bilinear steps, as the published code has it, only where masks are."""

from __future__ import annotations

from functools import lru_cache

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
    for mask, one in zip(masks, large, strict=True):
        _fill(mask, one[0])
    return torch.from_numpy(masks)


def _whole(large: Tensor, height: int, width: int) -> Tensor:
    full = F.interpolate(large, size=(height, width), mode="bilinear", align_corners=False)
    return full[:, 0].sigmoid_() > 0.5


def _fill(mask: NDArray[np.bool_], large: Tensor) -> None:
    """Set the pixels of a mask, bool [H, W], that logits [S, S] make positive.

    Rows are interpolated to the frame's width first. A pixel between two of these of one sign has that sign; only the
    others are computed.
    """
    positive = large > 0
    rows, columns = positive.any(1), positive.any(0)
    if not bool(rows.any()):
        return
    down, top, bottom, rows_from, rows_to = _box(rows, mask.shape[0])
    across, left, right, columns_from, columns_to = _box(columns, mask.shape[1])
    if top >= bottom or left >= right:  # a shrunk frame may take none of these pixels
        return
    source = large[rows_from:rows_to, columns_from:columns_to]
    wide = (source @ across.T).numpy()
    above = (down > 0).int().argmax(1).numpy()
    below = np.minimum(above + 1, len(wide) - 1)
    weight = down.numpy()[np.arange(len(above)), above]
    sign = wide > 0
    upper, lower = sign[above], sign[below]
    part = upper & lower
    y, x = np.divmod(np.flatnonzero(upper ^ lower), part.shape[1])
    values = weight[y] * wide[above[y], x] + (1 - weight[y]) * wide[below[y], x]
    doubt = max(_ROUNDING * float(source.abs().max()), _HALF)
    near = np.abs(values) < doubt
    if float(np.abs(wide).min()) < doubt or (
        near.any() and _undecided(values[near], source, down[y[near]], across[x[near]])
    ):
        mask[:] = _whole(large[None, None], *mask.shape)[0].numpy()
        return
    part[y, x] = values > 0
    mask[top:bottom, left:right] = part


def _undecided(values: NDArray[np.float32], source: Tensor, down: Tensor, across: Tensor) -> bool:
    """Whether rounding decides one of k pixels: the logits around it say how much its value rounds.

    Args:
        values: f32 [k], near 0.
        source: logits [r, c] that the pixels are made from.
        down, across: the pixels' weights, [k, r] and [k, c].
    """
    if len(values) > _FEW:  # the whole is cheaper then
        return True
    reached = (down > 0)[:, :, None] & (across > 0)[:, None, :]
    largest = (source.abs() * reached).amax((1, 2))
    return bool((torch.from_numpy(values).abs() < torch.clamp(_ROUNDING * largest, min=_HALF)).any())


def _box(positive: Tensor, target: int) -> tuple[Tensor, int, int, int, int]:
    """Return the weights [target part, source part] that reach the positive source pixels, and both ranges."""
    where = positive.nonzero()
    first, last = int(where[0]), int(where[-1])
    weights, starts, ends = _weights(len(positive), target)
    # Bilinear weights reach one source pixel further to each side.
    low, high = max(first - 1, 0), min(last + 2, len(positive))
    begin, end = starts[first], ends[last]
    return weights[begin:end, low:high], begin, end, low, high


@lru_cache(maxsize=16)
def _weights(source: int, target: int) -> tuple[Tensor, list[int], list[int]]:
    """Return PyTorch's own bilinear weights [target, source], and what each source pixel reaches: [start, end)."""
    unit = torch.eye(source)[None, :, :, None]
    weights = F.interpolate(unit, size=(target, 1), mode="bilinear", align_corners=False)[
        0, :, :, 0
    ].T.contiguous()
    reached = weights > 0
    # Rows ascend: those that reach nothing from a source pixel on come before it, those that reach up to it end it.
    starts = reached.flip(1).cumsum(1).flip(1).eq(0).sum(0).tolist()
    ends = reached.cumsum(1).gt(0).sum(0).tolist()
    return weights, starts, ends
