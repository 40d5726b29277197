"""Stage `joint`: the masks themselves."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lab.train_tiny.clip_batch import ClipBatch
from lab.train_tiny.language_loss import LookingHeads, language_loss
from lab.train_tiny.losses import choice_loss, mask_loss
from lab.train_tiny.mask_stage import mask_parameters
from lab.train_tiny.memory_batch import point_at
from lab.train_tiny.oracle import Oracle
from lab.train_tiny.scene_store import scenes_for, store_scenes
from lab.train_tiny.schedule import Schedule, matrices_of
from lab.train_tiny.words_stage import LOUD, SPOKEN, Sentences, enough_for, words_loss
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import Decoded, FrameFeatures, decode, without_memory
from svac_backend.synthetic.rich.scene import RichConfig


def train_joint(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    scenes: RichConfig,
    schedule: Schedule,
    *,
    batch: int = 4,
    sentences: int = 8,
    frames: int = 3,
) -> None:
    """Train the language model and the mask decoder on the masks themselves; the distillation fades out.

    Both encoders rest, so that scenes are encoded once and met several times.
    """
    count = scenes_for(schedule.steps, batch)
    store = store_scenes(model, scenes, schedule.rng(), count, sentences=20, frames=frames)
    encoder = {id(p) for p in model.sam.image_encoder.parameters()}
    drawing = [p for p in mask_parameters(model.sam) if id(p) not in encoder]
    mllm = model.mllm
    speaking = [*mllm.language_model.parameters(), *mllm.text_hidden_fcs.parameters()]
    trained = [*drawing, *speaking, *heads.story.parameters()]
    matrices = matrices_of(model.sam, mllm.language_model, mllm.text_hidden_fcs, heads.story)
    spoken = Sentences(scenes, schedule.rng(), enough_for(schedule))
    for step, rng in schedule.run(trained, matrices):
        data, visual, features = store.draw(rng, batch=batch, sentences=sentences, weights={})
        assert features is not None
        taught = language_loss(model, oracle, heads, data, visual)
        loss, more = masks_of(model, data, features, taught.seg)
        # The decoder would forget clicks, which corrections need.
        pointing, pointed = _points_of(model, data, features, rng, boxes=step % 2 == 0)
        fade = 0.5 * max(0.1, 1 - step / schedule.steps)
        words, known = words_loss(model, oracle, spoken.draw(rng, SPOKEN))
        told = taught.loss + LOUD * words
        schedule.step(loss + 0.4 * pointing + fade * told, taught.figures | more | pointed | known)


class Asked(Protocol):
    """What of a batch of clips the masks are drawn and judged by; see `ClipBatch`."""

    frame_clip: Tensor
    target: Tensor
    visible: Tensor
    things: Tensor
    owner: Tensor


def drawn(model: Svac, data: Asked, features: FrameFeatures, seg: Tensor) -> tuple[Decoded, Tensor]:
    """Draw the masks of B * F frames with embeddings [B, E, N, C]; returns B * E * F pairs and their frames."""
    b, e, f = data.visible.shape
    rows = torch.arange(b * f, device=seg.device).view(b, 1, f).expand(b, e, f).reshape(-1)
    chosen = features.take(rows)
    clip = data.frame_clip[:, None].expand(b, e, f).to(seg.device)
    language = seg.gather(2, clip[..., None].expand(*clip.shape, seg.shape[-1])).flatten(0, 2)
    low = without_memory(model.sam, chosen)
    return decode(model.sam, low, chosen.high, language, no_object_masking=False), rows


def masks_of(
    model: Svac, data: Asked, features: FrameFeatures, seg: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Draw the masks of the batch's frames with embeddings [B, E, N, C]; returns their loss and figures."""
    device = seg.device
    out, rows = drawn(model, data, features, seg)
    target, visible = data.target.flatten(0, 2).to(device), data.visible.flatten().to(device)
    clear = torch.ones_like(visible, dtype=torch.bool)
    loss, figures = mask_loss(out, target, visible, clear=clear)
    cells = F.adaptive_avg_pool2d(data.things.float()[:, None], out.logits.shape[-1])[:, 0].to(device)
    b, _, f = data.visible.shape
    counts = torch.bincount(data.owner, minlength=b * f)
    things = pad_sequence(cells.split(counts.tolist()), batch_first=True)
    which, right = choice_loss(out, target, things[rows], clear)
    return loss + 0.5 * which, figures | right


def _points_of(
    model: Svac, data: ClipBatch, features: FrameFeatures, rng: np.random.Generator, *, boxes: bool
) -> tuple[Tensor, dict[str, float]]:
    """Draw the things of each scene's first frame from boxes or clicks; returns their loss and IoU."""
    first = data.owner % data.sam_pixels.shape[1] == 0
    things, owner = data.things[first], data.owner[first]
    same = (owner[:, None] == owner) & ~torch.eye(len(owner), dtype=torch.bool)
    others = torch.einsum("nm,mhw->nhw", same.float(), things.float()) > 0
    points, labels = (part.to(model.device) for part in point_at(rng, things, others, boxes=boxes))
    chosen = features.take(owner)
    low = without_memory(model.sam, chosen)
    given = (points * model.sam.image_size, labels)
    out = decode(model.sam, low, chosen.high, None, no_object_masking=False, points=given)
    target = F.avg_pool2d(things.float()[:, None], 2)[:, 0].to(model.device)
    loss, figures = mask_loss(out, target, torch.ones(len(target), device=model.device))
    return loss, {"box" if boxes else "clicks": figures["iou"]}
