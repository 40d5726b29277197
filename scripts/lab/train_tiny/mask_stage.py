"""Stage `masks`: SAM-2's part learns to draw what the oracle prompt names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import Parameter

from lab.train_tiny.heads import CellHead
from lab.train_tiny.losses import choice_loss, mask_loss
from lab.train_tiny.mask_batch import make_batch
from lab.train_tiny.oracle import Oracle, places
from lab.train_tiny.schedule import Schedule, matrices_of
from svac_backend.svac.sam.grounding import Decoded, decode, encode_frames, without_memory
from svac_backend.synthetic.rich.scene import RichConfig

_MEMORY = ("memory_", "maskmem", "no_obj_ptr", "obj_ptr")


def mask_parameters(sam: SAM2Base) -> list[Parameter]:
    """Return what draws a mask without memory."""
    return [p for n, p in sam.named_parameters() if not n.startswith(_MEMORY)]


def train_masks(
    sam: SAM2Base,
    oracle: Oracle,
    head: CellHead,
    scenes: RichConfig,
    schedule: Schedule,
    *,
    scenes_per_step: int = 12,
) -> None:
    """Train the image encoder, the prompt encoder, the mask decoder and the oracle's vectors in place."""
    device = sam.no_mem_embed.device
    for step, rng in schedule.run(
        [*mask_parameters(sam), *oracle.parameters(), *head.parameters()], matrices_of(sam)
    ):
        # Places first: the mask part learns from them, and only then from bare attributes.
        share = 0.8 if step < 0.15 * schedule.steps else 0.5 if step < 0.5 * schedule.steps else 0.35
        batch = make_batch(rng, scenes, scenes=scenes_per_step, point_share=share)
        features = encode_frames(sam, batch.pixels.to(device))
        seeing, figures = head.loss(features.low.flatten(2).transpose(1, 2), batch.seen)
        chosen = features.take(batch.frame.to(device))
        prompt = oracle.attributes(batch.said.to(device)) + places(sam, batch.points.to(device))
        low = without_memory(sam, chosen)
        out = decode(sam, low, chosen.high, prompt, no_object_masking=False)
        worded = batch.points.isnan().flatten(1).all(1)
        loss, more = mask_loss(out, batch.target.to(device), batch.present.to(device), clear=worded)
        things = batch.things[batch.frame].to(device)
        which, right = choice_loss(out, batch.target.to(device), things, worded)
        told = batch.present.bool() & worded
        right |= {"iou_named": _iou(out, batch.target, told)}
        schedule.step(loss + 0.5 * which + seeing, figures | more | right)


@torch.no_grad()
def _iou(out: Decoded, target: Tensor, chosen: Tensor) -> float:
    """Return the mean IoU of the chosen pairs [k] with targets [k, M, M]."""
    mask = F.interpolate(out.logits[:, None], size=target.shape[-2:], mode="bilinear")[:, 0] > 0
    real = target.to(mask.device) > 0.5
    iou = (mask & real).sum((1, 2)) / (mask | real).sum((1, 2)).clamp(min=1)
    chosen = chosen.to(iou.device)
    return ((iou * chosen).sum() / chosen.sum().clamp(min=1)).item()
