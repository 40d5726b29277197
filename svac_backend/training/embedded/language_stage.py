"""Stages `looking`, `language` and `joint`: from pixels and a sentence to one oracle-like prompt per clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svac_backend.svac.config import SvacConfig
from svac_backend.svac.grounding import decode, encode_frames, without_memory
from svac_backend.svac.model import Svac
from svac_backend.synthetic.scene import SceneConfig
from svac_backend.synthetic.vocabulary import COLORS, SHAPES
from svac_backend.training.embedded.clip_batch import ClipBatch, make_clip_batch
from svac_backend.training.embedded.losses import mask_loss
from svac_backend.training.embedded.mask_stage import TARGET
from svac_backend.training.embedded.oracle import Oracle, place
from svac_backend.training.embedded.packed import PackedStates, run_packed
from svac_backend.training.embedded.schedule import Schedule

# The [SEG] tokens' attention at this layer and head is taught to look at the object in the clip's anchor frame:
# what a head attends to, it copies, so the object's place reaches the [SEG] embedding.
LOOK_LAYER, LOOK_HEAD = 3, 0


class LookingHeads(nn.Module):
    """Which colours and shapes each visual token covers; used in training only."""

    def __init__(self, config: SvacConfig) -> None:
        super().__init__()
        self.color = nn.Linear(config.language.hidden_size, len(COLORS))
        self.shape = nn.Linear(config.language.hidden_size, len(SHAPES))
        self.place = nn.Linear(config.language.hidden_size, config.sam.d_model)

    def loss(self, visual: Tensor, batch: ClipBatch) -> tuple[Tensor, dict[str, float]]:
        """Binary cross-entropy of [B, I, t, H] visual tokens against what they cover."""
        colors, shapes = self.color(visual), self.shape(visual)
        loss = F.binary_cross_entropy_with_logits(
            colors, batch.seen_colors
        ) + F.binary_cross_entropy_with_logits(shapes, batch.seen_shapes)
        with torch.no_grad():
            figures = {
                "see_color": _f1(colors, batch.seen_colors),
                "see_shape": _f1(shapes, batch.seen_shapes),
            }
        return loss, figures

    def place_loss(self, visual: Tensor, model: Svac) -> Tensor:
        """Visual tokens carry SAM-2's code of their own place in a form that is easy to copy."""
        side = round(visual.shape[2] ** 0.5)
        axis = (torch.arange(side, device=visual.device) + 0.5) / side
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(-1, 2)
        target = place(model.sam, grid).detach()
        return F.mse_loss(self.place(visual), target.expand(*visual.shape[:2], -1, -1))


def _f1(logits: Tensor, truth: Tensor) -> float:
    hit = (logits > 0) & (truth > 0.5)
    return (2 * hit.sum() / ((logits > 0).sum() + (truth > 0.5).sum()).clamp(min=1)).item()


def _visual(model: Svac, batch: ClipBatch) -> Tensor:
    """Return the visual tokens, [B, I, t, H]."""
    pixels = batch.pixels.to(model.device)
    return model.mllm.visual_tokens(pixels.flatten(0, 1), batch=1024).view(
        *pixels.shape[:2], -1, model.mllm.width
    )


def _to(batch: ClipBatch, device: torch.device) -> ClipBatch:
    moved: dict[str, Any] = {k: v.to(device) for k, v in vars(batch).items() if isinstance(v, Tensor)}
    return replace(batch, **moved)


def train_looking(
    model: Svac, heads: LookingHeads, scenes: SceneConfig, schedule: Schedule, *, batch: int = 8
) -> None:
    """Teach the vision tower and the projector what stands where."""
    parameters = [*model.mllm.vision_model.parameters(), *model.mllm.mlp1.parameters(), *heads.parameters()]
    for _, rng in schedule.run(parameters):
        data = _to(
            make_clip_batch(rng, model.config, scenes, batch=batch, sentences=1, frames=0), model.device
        )
        visual = _visual(model, data)
        loss, figures = heads.loss(visual, data)
        schedule.step(loss + 0.5 * heads.place_loss(visual, model), figures)


def _run(model: Svac, data: ClipBatch, visual: Tensor) -> tuple[PackedStates, Tensor]:
    """Run the language model; returns its states and the projected [SEG] embeddings [B, E, N, C]."""
    clips = model.config.method.num_clips
    prompts = [[model.prompts.build(s.text, visual.shape[1], clips) for s in said] for said in data.sentences]
    states = run_packed(
        model.mllm, visual, prompts, model.prompts.context_id, layer=LOOK_LAYER, head=LOOK_HEAD
    )
    return states, model.mllm.project(states.seg)


def _teach(
    model: Svac, oracle: Oracle, data: ClipBatch, states: PackedStates, seg: Tensor, visual: Tensor
) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
    """Distil the oracle prompt and teach where to look; returns both losses, the oracle prompt and figures."""
    shape = data.color.shape
    said = oracle.attributes(data.color.flatten(), data.shape.flatten(), data.size.flatten()).view(
        *shape, 1, -1
    )
    visible = data.token >= 0
    where = place(model.sam, data.point.nan_to_num(0.5)) * visible[..., None]
    target = (said + where).detach()
    distance = (F.mse_loss(seg, target, reduction="none").mean(-1)).mean()

    prefix = model.prompts.build("x", visual.shape[1], 1).prefix
    context = (prefix == model.prompts.context_id).nonzero()[:, 0].to(seg.device)
    per_image, images = visual.shape[2], model.config.method.images_per_clip
    clip = torch.arange(data.token.shape[2], device=seg.device)
    position = context[(clip * images * per_image) + data.token.clamp(min=0)]
    chosen = states.looks.gather(-1, position[..., None])[..., 0]
    look = -(chosen * visible).sum() / visible.sum().clamp(min=1)
    with torch.no_grad():
        hit = (states.looks[..., : len(prefix)].argmax(-1) == position) & visible
        figures = {
            "look": (hit.sum() / visible.sum().clamp(min=1)).item(),
            "distance": distance.item(),
            "lm": states.logits_loss.item(),
        }
    return distance, look, target, figures


def train_language(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    scenes: SceneConfig,
    schedule: Schedule,
    *,
    batch: int = 8,
    sentences: int = 6,
) -> None:
    """Teach the whole MLLM to turn a sentence into the oracle prompt of its object; SAM-2's part rests."""
    for _, rng in schedule.run([*model.mllm.parameters(), *heads.parameters()]):
        data = make_clip_batch(rng, model.config, scenes, batch=batch, sentences=sentences, frames=0)
        data = _to(data, model.device)
        visual = _visual(model, data)
        seeing, figures = heads.loss(visual, data)
        states, seg = _run(model, data, visual)
        distance, look, _, more = _teach(model, oracle, data, states, seg, visual)
        loss = 4 * distance + 0.3 * look + 0.3 * states.logits_loss + 0.3 * seeing
        schedule.step(loss + 0.1 * heads.place_loss(visual, model), figures | more)


def train_joint(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    scenes: SceneConfig,
    schedule: Schedule,
    *,
    batch: int = 6,
    sentences: int = 4,
    frames: int = 2,
) -> None:
    """Train everything on the masks themselves; the distillation fades out."""
    parts = [model.sam.image_encoder, model.sam.sam_mask_decoder, model.mllm, heads]
    parameters = [p for part in parts for p in part.parameters()]
    for step, rng in schedule.run([*parameters, model.sam.no_mem_embed]):
        data = make_clip_batch(rng, model.config, scenes, batch=batch, sentences=sentences, frames=frames)
        data = _to(data, model.device)
        visual = _visual(model, data)
        seeing, figures = heads.loss(visual, data)
        states, seg = _run(model, data, visual)
        distance, look, _, more = _teach(model, oracle, data, states, seg, visual)
        features = encode_frames(model.sam, data.sam_pixels.flatten(0, 1))
        b, e, f = data.visible.shape
        rows = torch.arange(b * f, device=seg.device).view(b, 1, f).expand(b, e, f).reshape(-1)
        chosen = features.take(rows)
        clip = data.frame_clip[:, None].expand(b, e, f)
        language = seg.gather(2, clip[..., None].expand(*clip.shape, seg.shape[-1])).flatten(0, 2)
        low = without_memory(model.sam, chosen)
        out = decode(model.sam, low, chosen.high, language, no_object_masking=False)
        mask, masks = mask_loss(out, data.target.view(-1, TARGET, TARGET), data.visible.flatten())
        fade = max(0.1, 1 - step / schedule.steps)
        loss = mask + fade * (2 * distance + 0.3 * look + 0.2 * seeing) + 0.2 * states.logits_loss
        schedule.step(loss, figures | more | masks)
