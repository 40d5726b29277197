"""Stages `looking`, `language` and `joint`: from pixels and a sentence to one oracle-like prompt per clip."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svac_backend.svac.config import SvacConfig
from svac_backend.svac.grounding import FrameFeatures, decode, encode_frames, without_memory
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.scene import RichConfig
from svac_backend.training.embedded.clip_batch import STORY, ClipBatch, make_clip_batch, make_pictures
from svac_backend.training.embedded.heads import PlaceHead, SeenHead, StoryHead
from svac_backend.training.embedded.losses import mask_loss
from svac_backend.training.embedded.mask_batch import Seen
from svac_backend.training.embedded.mask_stage import mask_parameters
from svac_backend.training.embedded.memory_batch import point_at
from svac_backend.training.embedded.oracle import Oracle, place, places
from svac_backend.training.embedded.packed import run_packed
from svac_backend.training.embedded.schedule import Schedule

# The first head of two layers is taught where to look. In the first, [SEG] finds what the sentence means in any image:
# late images know what things have done. In the second it finds it in its own clip; what a head attends to, it copies,
# so the object's place reaches the [SEG] embedding.
FIND_LAYER, PLACE_LAYER = 3, 4


class LookingHeads(nn.Module):
    """What visual tokens are asked; used in training only."""

    def __init__(self, config: SvacConfig) -> None:
        super().__init__()
        width = config.language.hidden_size
        self.seen = SeenHead(width)
        self.place = PlaceHead(width, config.sam.d_model)
        self.story = StoryHead(width, 2 * config.method.num_clips + STORY)

    def loss(self, flat: Tensor, model: Svac, seen: Seen) -> tuple[Tensor, dict[str, float]]:
        """Ask [n, t, H] visual tokens, as the projector gives them, what they cover and where they are."""
        loss, figures = self.seen.loss(flat, seen, "see_")
        side = round(flat.shape[1] ** 0.5)
        code = place(model.sam, grid_of(side, flat.device)).detach()
        return loss + self.place.place_loss(flat, code), figures


def visual_of(model: Svac, batch: ClipBatch) -> Tensor:
    """Return the visual tokens, [B, I, t, H]."""
    pixels = batch.pixels.to(model.device)
    tokens = model.mllm.visual_tokens(pixels.flatten(0, 1), batch=1024)
    return tokens.view(*pixels.shape[:2], *tokens.shape[1:])


def train_looking(
    model: Svac, heads: LookingHeads, scenes: RichConfig, schedule: Schedule, *, batch: int = 16
) -> None:
    """Teach the vision tower and the projector what stands where."""
    parameters = [*model.mllm.vision_model.parameters(), *model.mllm.mlp1.parameters()]
    open_eyes(model)
    for _, rng in schedule.run([*parameters, *heads.seen.parameters(), *heads.place.parameters()]):
        pixels, seen = make_pictures(rng, model.config, scenes, batch=batch)
        visual = model.mllm.visual_tokens(pixels.to(model.device), batch=1024)
        loss, figures = heads.loss(visual, model, seen)
        schedule.step(loss, figures)


@torch.no_grad()
def open_eyes(model: Svac) -> None:
    """Start the vision tower where it learns fast: branches at full weight, and places as SAM-2 encodes them."""
    tower = model.mllm.vision_model
    for layer in tower.encoder.layer:
        layer.lambda_1.fill_(1.0)  # type: ignore[operator]
        layer.lambda_2.fill_(1.0)  # type: ignore[operator]
    position = tower.embeddings.position_embeddings
    side = round((position.shape[1] - 1) ** 0.5)
    if position.shape[2] == model.config.sam.d_model:
        position[0, 1:] = 0.3 * place(model.sam, grid_of(side, position.device))


@torch.no_grad()
def open_ears(model: Svac) -> None:
    """Start the language model at weights that suit its width; 0.02, as large models have, leaves a narrow one deaf."""
    for name, parameter in model.mllm.language_model.named_parameters():
        if parameter.dim() == 2:
            scale = (
                0.1
                if "embed" in name
                else 0.5
                if name.endswith(("o_proj.weight", "down_proj.weight"))
                else 1.0
            )
            std = scale if "embed" in name else scale * parameter.shape[1] ** -0.5
            nn.init.normal_(parameter, std=std)


def grid_of(side: int, device: torch.device) -> Tensor:
    """Return the centres of side x side cells, row by row, f32 [side * side, 2] in 0..1 (x, y)."""
    axis = (torch.arange(side, device=device) + 0.5) / side
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(-1, 2)


class Taught(NamedTuple):
    """What the language model answered, and how far it is from what it should have.

    Attributes:
        seg: [B, E, N, C], the projected [SEG] embeddings.
        loss: of all that is taught beside the masks.
        figures: for the curves.
    """

    seg: Tensor
    loss: Tensor
    figures: dict[str, float]


def teach(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    data: ClipBatch,
    visual: Tensor,
    *,
    shown: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Taught:
    """Run the language model; distil the oracle prompt, teach where to look, and ask for the stories of things.

    Args:
        shown: share of the sentences whose place is shown to the [SEG] tokens, chosen by `rng`: what is wrong half of
            the time would not be copied.
    """
    clips = data.said.absent.shape[2]
    prompts = [[model.prompts.build(s.text, visual.shape[1], clips) for s in said] for said in data.sentences]
    anywhere, own = _where(data, model.config.method.images_per_clip)
    told = None
    if shown and rng is not None:
        told = own & torch.from_numpy(rng.random(own.shape[:2]) < shown)[..., None, None]
        told = told.to(visual.device)
    layers = (FIND_LAYER, PLACE_LAYER)
    states = run_packed(model.mllm, visual, prompts, model.prompts.context_id, layers=layers, shown=told)
    seg = model.mllm.project(states.seg)
    said = data.said.to(seg.device)
    goal = (oracle.attributes(said) + places(model.sam, data.points.to(seg.device))).detach()
    distance = F.mse_loss(seg, goal)
    story, figures = heads.story.loss(states.visual, _padded(data.story, clips, heads).to(seg.device))
    find, place_ = _look(states.looks[0], anywhere.to(seg.device)), _look(states.looks[1], own.to(seg.device))
    loss = 4 * distance + find.loss + place_.loss + 0.1 * states.logits_loss + story
    figures |= {
        "distance": distance.item(),
        "find": find.hit,
        "look": place_.hit,
        "lm": states.logits_loss.item(),
        "absent": _told_absent(seg, goal, oracle, said.absent),
    }
    return Taught(seg, loss, figures)


def _padded(story: Tensor, clips: int, heads: LookingHeads) -> Tensor:
    """Return stories [B, I, t, 2 * clips + STORY] as [B, I * t, figures]; places in clips that are not there: NaN."""
    missing = heads.story.figures - story.shape[-1]
    none = story.new_full((*story.shape[:-1], missing), torch.nan)
    return torch.cat([story[..., : 2 * clips], none, story[..., 2 * clips :]], -1).flatten(1, 2)


class _Look(NamedTuple):
    loss: Tensor
    hit: float


def _where(data: ClipBatch, per_clip: int) -> tuple[Tensor, Tensor]:
    """Return what the [SEG] tokens should look at, bool [B, E, N, I * t] each: anywhere, and in their own clip."""
    covers = data.covers  # [B, E, I * t]
    clips, images = data.said.absent.shape[2], data.pixels.shape[1]
    anywhere = covers[:, :, None].expand(-1, -1, clips, -1)
    by_image = covers.unflatten(2, (images, -1))
    number = torch.arange(images)
    own = by_image[:, :, None] & (number // per_clip == torch.arange(clips)[:, None])[..., None]
    # In the anchor frame where it can be seen there, else in the composite.
    anchor = own & (number % per_clip == 0)[:, None]
    own = torch.where(anchor.flatten(3).any(-1)[..., None, None], anchor, own)
    return anywhere, own.flatten(3)


def _look(looks: Tensor, right: Tensor) -> _Look:
    valid = right.any(-1)
    mass = looks.masked_fill(~right, -torch.inf).logsumexp(-1)
    loss = -(mass.masked_fill(~valid, 0)).sum() / valid.sum().clamp(min=1)
    hit = right.gather(-1, looks.argmax(-1, keepdim=True))[..., 0] & valid
    return _Look(loss, (hit.sum() / valid.sum().clamp(min=1)).item())


@torch.no_grad()
def _told_absent(seg: Tensor, goal: Tensor, oracle: Oracle, absent: Tensor) -> float:
    """Return how often the embeddings are on the right side of "not there", both cases weighted alike."""
    # Along the vector that says so, seen from what the oracle would have said otherwise.
    along = ((seg - goal) @ oracle.absent) / oracle.absent.square().sum() + absent
    right = (along > 0.5) == (absent > 0.5)
    rates = [right[absent == value].float().mean() for value in (0, 1) if (absent == value).any()]
    return torch.stack(rates).mean().item()


def train_binding(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    scenes: RichConfig,
    schedule: Schedule,
    *,
    batch: int = 10,
    sentences: int = 12,
) -> None:
    """Teach the language model to find what a simple sentence says, on one clip: five times as many scenes an hour."""
    open_ears(model)
    config = replace(model.config, method=replace(model.config.method, num_clips=1))
    for _, rng in schedule.run([*model.mllm.parameters(), *heads.parameters()]):
        data = make_clip_batch(rng, config, scenes, batch=batch, sentences=sentences, frames=0, easy=1.0)
        with torch.no_grad():
            visual = visual_of(model, data)
        taught = teach(model, oracle, heads, data, visual, shown=0.6, rng=rng)
        schedule.step(taught.loss, taught.figures)


def train_language(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    scenes: RichConfig,
    schedule: Schedule,
    *,
    batch: int = 4,
    sentences: int = 12,
) -> None:
    """Teach the MLLM to turn a sentence into the oracle prompt of its object; SAM-2's part rests."""
    for step, rng in schedule.run([*model.mllm.parameters(), *heads.parameters()]):
        easy = max(0.2, 0.8 - 2 * step / schedule.steps)
        data = make_clip_batch(
            rng, model.config, scenes, batch=batch, sentences=sentences, frames=0, easy=easy
        )
        # The vision tower goes on learning on every second step: it is what a step costs most.
        sees = step % 2 == 0
        with torch.set_grad_enabled(sees):
            visual = visual_of(model, data)
        taught = teach(model, oracle, heads, data, visual, shown=0.6, rng=rng)
        loss, figures = taught.loss, taught.figures
        if sees:
            seeing, more = heads.loss(visual.flatten(0, 1), model, data.seen)
            loss, figures = loss + 0.3 * seeing, figures | more
        schedule.step(loss, figures)


def train_joint(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    scenes: RichConfig,
    schedule: Schedule,
    *,
    batch: int = 3,
    sentences: int = 6,
    frames: int = 2,
) -> None:
    """Train everything on the masks themselves; the distillation fades out."""
    parameters = [*mask_parameters(model.sam), *model.mllm.parameters(), *heads.parameters()]
    for step, rng in schedule.run(parameters):
        data = make_clip_batch(rng, model.config, scenes, batch=batch, sentences=sentences, frames=frames)
        visual = visual_of(model, data)
        seeing, figures = heads.loss(visual.flatten(0, 1), model, data.seen)
        taught = teach(model, oracle, heads, data, visual)
        features = encode_frames(model.sam, data.sam_pixels.flatten(0, 1).to(model.device))
        loss, more = masks_of(model, data, features, taught.seg)
        # The decoder would forget clicks, which corrections need.
        pointing, pointed = _points_of(model, data, features, rng, boxes=step % 2 == 0)
        fade = max(0.1, 1 - step / schedule.steps)
        schedule.step(
            loss + 0.4 * pointing + fade * (0.5 * taught.loss + 0.1 * seeing),
            figures | taught.figures | more | pointed,
        )


def masks_of(
    model: Svac, data: ClipBatch, features: FrameFeatures, seg: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Draw the masks of the batch's frames with embeddings [B, E, N, C]; returns their loss and figures."""
    device = seg.device
    b, e, f = data.visible.shape
    rows = torch.arange(b * f, device=device).view(b, 1, f).expand(b, e, f).reshape(-1)
    chosen = features.take(rows)
    clip = data.frame_clip[:, None].expand(b, e, f).to(device)
    language = seg.gather(2, clip[..., None].expand(*clip.shape, seg.shape[-1])).flatten(0, 2)
    low = without_memory(model.sam, chosen)
    out = decode(model.sam, low, chosen.high, language, no_object_masking=False)
    return mask_loss(out, data.target.flatten(0, 2).to(device), data.visible.flatten().to(device))


def _points_of(
    model: Svac, data: ClipBatch, features: FrameFeatures, rng: np.random.Generator, *, boxes: bool
) -> tuple[Tensor, dict[str, float]]:
    """Draw the things of each scene's first frame from boxes or clicks; returns their loss and IoU."""
    same = (data.owner[:, None] == data.owner) & ~torch.eye(len(data.owner), dtype=torch.bool)
    others = torch.einsum("nm,mhw->nhw", same.float(), data.things.float()) > 0
    points, labels = (part.to(model.device) for part in point_at(rng, data.things, others, boxes=boxes))
    chosen = features.take(data.owner * data.sam_pixels.shape[1])
    low = without_memory(model.sam, chosen)
    given = (points * model.sam.image_size, labels)
    out = decode(model.sam, low, chosen.high, None, no_object_masking=False, points=given)
    target = F.avg_pool2d(data.things.float()[:, None], 2)[:, 0].to(model.device)
    loss, figures = mask_loss(out, target, torch.ones(len(target), device=model.device))
    return loss, {"box" if boxes else "clicks": figures["iou"]}
