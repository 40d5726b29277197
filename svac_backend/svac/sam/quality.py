"""How good a mask is: a map, fitted on real pictures, from what its decoding says to how likely J is above one half.

SAM-2 predicts each mask's IoU and whether the object is there; the score is their product. On real video a small
model's product says little: it is as sure of a wall as of a dog. What the masks themselves look like says more:
whether they stay when the threshold moves, whether SAM-2's other masks and the map that prompted the decoder agree.
The weights are configuration (`SamConfig.quality`); `scripts/benchmark.py scores` measures how well scores tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

# What a mask is made from: a [SEG], what a person pointed at, or memory.
Source = Literal["told", "shown", "carried"]
SOURCES: tuple[Source, ...] = ("told", "shown", "carried")
# Masks are compared at the thresholds +-_MARGIN, and logits count up to _MOST.
_MARGIN, _MOST = 1.0, 6.0
SUREST = 0.99


def signals(logits: Tensor, ious: Tensor, existence: Tensor, added: Tensor | None) -> Tensor:
    """Return what speaks for k masks, f32 [k, 6].

    The logit of the predicted IoU, that of existence, how stable the mask is, how far SAM-2's second-best mask and the
    prompting map agree with it (IoU each; 1 without such a map), and the logarithm of its share of the picture.

    Args:
        logits: f32 [k, 3, h, w], of SAM-2's three masks.
        ious: f32 [k, 3], predicted IoU of each.
        existence: f32 [k], object score logits.
        added: f32 [k, 1, h, w], the map that the decoder was prompted with, if any.
    """
    order = ious.argsort(1, descending=True)
    rows = torch.arange(len(ious), device=ious.device)
    best, second = logits[rows, order[:, 0]], logits[rows, order[:, 1]]
    mask = best > 0
    alike = torch.ones_like(existence) if added is None else _iou(mask, added[:, 0] > 0)
    return torch.stack(
        [
            torch.logit(ious.amax(1), 1e-3).clamp(-_MOST, _MOST),
            existence.clamp(-_MOST, _MOST),
            _iou(best > _MARGIN, best > -_MARGIN),
            _iou(mask, second > 0),
            alike,
            mask.float().mean((1, 2)).clamp(min=1e-4).log(),
        ],
        1,
    )


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the IoU of k pairs of masks, bool [k, h, w]; 0 of two empty ones."""
    both = (one & other).flatten(1).sum(1)
    either = (one | other).flatten(1).sum(1)
    return both / either.clamp(min=1)


class Quality:
    """Scores of masks by a model's weights.

    Args:
        weights: the signals' weights and then the constant, a row for each of `SOURCES` and one for where nothing is
            drawn, whose score says how likely something was missed.
    """

    def __init__(self, weights: Sequence[Sequence[float]]) -> None:
        *drawn, self.missed = (torch.tensor(row) for row in weights)
        self.drawn = dict(zip(SOURCES, drawn, strict=True))

    def score(self, source: Source, found: Tensor, drawn: Tensor) -> Tensor:
        """Return the scores f32 [k], 0..`SUREST`: 1 is what a person drew.

        Args:
            source: what the masks are made from.
            found: [k, 6], their signals.
            drawn: bool [k], whether they have any pixel.
        """
        rows = self.drawn[source].to(found.device), self.missed.to(found.device)
        good, missed = (found @ row[:-1] + row[-1] for row in rows)
        return torch.where(drawn, good, missed).sigmoid().clamp(max=SUREST)


def quality_of(sam: SAM2Base) -> Quality | None:
    """Return how this model scores its masks; None: existence times predicted IoU."""
    found = getattr(sam, "quality", None)
    return found if isinstance(found, Quality) else None
