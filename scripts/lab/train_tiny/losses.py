"""Losses of the embedded model's pretraining. The published fine-tuning losses are in `learning/objective.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from svac_backend.svac.sam.grounding import Decoded


def mask_loss(
    out: Decoded, target: Tensor, present: Tensor, *, clear: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """SAM-2's training loss in small: the best of three masks, their predicted IoU, and the existence score.

    A click can mean three things, and three masks may guess. Words mean one thing: all three masks must be that,
    or each guesses another kind and none is learned.

    Args:
        out: k decoded pairs, without masking of absent objects.
        target: f32 [k, M, M], share of each cell that the object covers.
        present: f32 [k], 1 where the object is in the frame.
        clear: bool [k], whether the prompt means one thing; None: no prompt does.

    Returns:
        The loss and what it is made of.
    """
    size = target.shape[-1]
    logits = F.interpolate(out.all_logits, size=(size, size), mode="bilinear", align_corners=False)
    truth = target[:, None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((2, 3))
    prob = logits.sigmoid()
    # IoU itself, not dice: dice pays for drawing both of two things when in doubt which of them is meant.
    both = (prob * truth).sum((2, 3))
    overlap = (both + 1) / (prob.sum((2, 3)) + truth.sum((2, 3)) - both + 1)
    each = 10 * bce + 1 - overlap
    weight = present.sum().clamp(min=1)
    drawn = each.min(1).values + 0.1 * each.mean(1)
    if clear is not None:
        drawn = torch.where(clear.to(drawn.device), each.mean(1), drawn)
    best = (drawn * present).sum() / weight
    with torch.no_grad():
        hard, real = logits > 0, truth > 0.5
        iou = (hard & real).sum((2, 3)) / (hard | real).sum((2, 3)).clamp(min=1)
        chosen = iou.gather(1, out.all_ious.argmax(1, keepdim=True))[:, 0]
    quality = (F.mse_loss(out.all_ious, iou, reduction="none").mean(1) * present).sum() / weight
    existence = F.binary_cross_entropy_with_logits(out.existence, present)
    return best + quality + 0.5 * existence, {
        "iou": ((chosen * present).sum() / weight).item(),
        "existence": ((out.existence > 0) == (present > 0)).float().mean().item(),
    }


def choice_loss(
    out: Decoded, target: Tensor, things: Tensor, chosen: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Ask which of the things of its frame each prompt means, by the mean logits on them.

    A mask is judged pixel by pixel, where a small thing counts little; here each thing counts as one.

    Args:
        out: k decoded pairs.
        target: f32 [k, M, M], share of each cell that what is meant covers.
        things: f32 [k, N, m, m], share of each cell of the logits' size that each thing covers; 0 for no thing.
        chosen: bool [k], whether the prompt means one thing (or several) and not another.

    Returns:
        Cross entropy of each meant thing against all others, 0 where there is none; and how often the first of the
        masks prefers it to all of them.
    """
    area = things.sum((2, 3))
    logits, flat = out.all_logits.flatten(2), things.flatten(2)
    means = torch.einsum("kcp,knp->kcn", logits, flat) / area.clamp(min=1e-6)[:, None]
    size = things.shape[-1]
    inside = torch.einsum("kp,knp->kn", F.adaptive_avg_pool2d(target[:, None], size).flatten(1), flat)
    meant = (area > 0) & (inside > 0.5 * (flat.square().sum(2)))
    rivals = (area > 0) & ~meant
    asked = meant & rivals.any(1, keepdim=True) & chosen.to(meant.device)[:, None]
    best = means.masked_fill(~rivals[:, None], -1e4).logsumexp(2, keepdim=True)
    margin = (means - best).transpose(1, 2)[asked]  # [asked, masks]
    if not len(margin):
        return logits.sum() * 0, {}
    return F.softplus(-margin).mean(), {"choice": (margin[:, 0] > 0).float().mean().item()}
