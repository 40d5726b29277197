"""The mask losses that Sa2VA and SaSaSa2VA were trained with, on points sampled where the prediction is uncertain.

Sources: Mask2Former's point sampling (PointRend), mmdetection's `CrossEntropyLoss` and `DiceLoss` (naive, eps 1), with
the weights of Sa2VA's published training configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from svac_backend.errors import SvacError

BCE_WEIGHT, DICE_WEIGHT, DICE_EPS = 2.0, 0.5, 1.0
POINTS, OVERSAMPLE, IMPORTANCE = 12544, 3.0, 0.75
# The published code adds this to both means' denominators.
_EPS = 1e-4


@dataclass
class MaskLoss:
    """The two parts, weighted; both scalars f32 with a gradient."""

    bce: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.bce + self.dice


def bce_loss(logits: Tensor, targets: Tensor, *, weight: float = BCE_WEIGHT) -> Tensor:
    """Return the mean sigmoid cross-entropy over all points, weighted.

    Args:
        logits: [N, P].
        targets: [N, P] in 0..1.
        weight: factor of the loss.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")
    return weight * total / (logits.numel() + _EPS)


def dice_loss(
    logits: Tensor, targets: Tensor, *, weight: float = DICE_WEIGHT, eps: float = DICE_EPS
) -> Tensor:
    """Return the mean dice loss of N masks, weighted: 1 - (2 a + eps) / (b + c + eps).

    a is the sum of the products, b of the predicted and c of the true values ("naive": not of their squares).

    Args:
        logits: [N, P].
        targets: [N, P] in 0..1.
        weight: factor of the loss.
        eps: keeps two empty masks equal.
    """
    predicted, true = logits.float().sigmoid(), targets.float()
    overlap = (predicted * true).sum(1)
    dice = (2 * overlap + eps) / (predicted.sum(1) + true.sum(1) + eps)
    return weight * (1 - dice).sum() / (len(logits) + _EPS)


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps at points, bilinearly.

    Args:
        maps: f32 [N, H, W].
        points: f32 [N, P, 2], x and y in 0..1; (0, 0) is the upper left corner of the first pixel.

    Returns:
        f32 [N, P]; what lies beyond the edge pixels' centres fades to 0.
    """
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps[:, None], grid, mode="bilinear", align_corners=False)[:, 0, :, 0]


@torch.no_grad()
def uncertain_points(
    logits: Tensor,
    *,
    count: int = POINTS,
    oversample: float = OVERSAMPLE,
    importance: float = IMPORTANCE,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Choose points: most of them where the logits are nearest to 0, the rest anywhere.

    Args:
        logits: [N, H, W].
        count: P, points of one mask.
        oversample: candidates for each point; 1 or more.
        importance: part of the points that is chosen for its uncertainty, 0..1.
        generator: for the same points again; on the device of the logits.

    Returns:
        f32 [N, P, 2], x and y in 0..1.
    """
    masks, device = len(logits), logits.device

    def anywhere(points: int) -> Tensor:
        return torch.rand(masks, points, 2, device=device, generator=generator)

    candidates = anywhere(int(count * oversample))
    uncertainty = -sample_at(logits.float(), candidates).abs()
    chosen = int(count * importance)
    index = uncertainty.topk(chosen, dim=1).indices
    uncertain = candidates.gather(1, index[..., None].expand(-1, -1, 2))
    return torch.cat([uncertain, anywhere(count - chosen)], dim=1)


def mask_loss(
    logits: Tensor, targets: Tensor, *, points: int = POINTS, generator: torch.Generator | None = None
) -> MaskLoss:
    """Return the published loss of N masks.

    Args:
        logits: [N, h, w], before upsampling (SAM-2's size / 4).
        targets: bool or 0..1 [N, H, W]; resized to the logits by nearest, as published.
        points: points sampled of each mask.
        generator: makes the sampled points the same again.

    Raises:
        SvacError: there is no mask, or not one target for each.
    """
    if logits.ndim != 3 or targets.ndim != 3 or len(logits) != len(targets) or not len(logits):
        raise SvacError(
            f"Masks of shapes {tuple(logits.shape)} and {tuple(targets.shape)} can't be compared.",
            "Give one target for each predicted mask, both [N, H, W].",
        )
    targets = F.interpolate(targets[:, None].float(), size=logits.shape[1:], mode="nearest")[:, 0]
    logits = logits.float()
    where = uncertain_points(logits, count=points, generator=generator)
    predicted, true = sample_at(logits, where), sample_at(targets, where)
    return MaskLoss(bce=bce_loss(predicted, true), dice=dice_loss(predicted, true))
