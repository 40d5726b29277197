"""What the language stages teach: where [SEG] looks, what it says (the oracle prompt), and what visual tokens know."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.train_tiny.clip_batch import STORY, ClipBatch
from lab.train_tiny.heads import LabelHead, PlaceHead, StoryHead
from lab.train_tiny.oracle import Oracle, grid_of, place, places
from lab.train_tiny.packed import run_packed
from lab.train_tiny.pictures import Pictures
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.model import Svac

# The first head of two layers is taught where to look. In the first, [SEG] finds what the sentence means in any image:
# late images know what things have done. In the second it finds it in its own clip; what a head attends to, it copies,
# so the object's place reaches the [SEG] embedding.
FIND_LAYER, PLACE_LAYER = 3, 4


class LookingHeads(nn.Module):
    """What patches and visual tokens are asked; used in training only."""

    def __init__(self, config: SvacConfig) -> None:
        super().__init__()
        width = config.language.hidden_size
        self.looking = nn.ModuleDict(
            {"tokens": LabelHead(width), "patches": LabelHead(config.vision.hidden_size)}
        )
        self.place = PlaceHead(width, config.sam.d_model)
        self.story = StoryHead(width, 2 * config.method.num_clips + STORY)

    def loss(
        self, patches: Tensor, tokens: Tensor, pictures: Pictures, model: Svac
    ) -> tuple[Tensor, dict[str, float]]:
        """Ask the patches [n, p, C] and the tokens [n, t, H], as the projector gives them, what they cover."""
        loss, figures = self.looking["tokens"](tokens, pictures.tokens, "see_")
        more, _ = self.looking["patches"](patches, pictures.patches, "")
        side = round(tokens.shape[1] ** 0.5)
        code = place(model.sam, grid_of(side, tokens.device)).detach()
        return loss + 0.7 * more + self.place.place_loss(tokens, code), figures


def visual_of(model: Svac, batch: ClipBatch) -> Tensor:
    """Return the visual tokens, [B, I, t, H]."""
    pixels = batch.pixels.to(model.device)
    tokens = model.mllm.visual_tokens(pixels.flatten(0, 1), batch=1024)
    return tokens.view(*pixels.shape[:2], *tokens.shape[1:])


class LanguageLoss(NamedTuple):
    """What the language model answered, and how far it is from what it should have.

    Attributes:
        seg: [B, E, N, C], the projected [SEG] embeddings.
        loss: of all that is taught beside the masks.
        figures: for the curves.
    """

    seg: Tensor
    loss: Tensor
    figures: dict[str, float]


def language_loss(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    data: ClipBatch,
    visual: Tensor,
    *,
    shown: float = 0.0,
    rng: np.random.Generator | None = None,
) -> LanguageLoss:
    """Run the language model; distil the oracle prompt, teach where to look, and ask for the stories of things.

    Args:
        shown: share of the sentences whose place is shown to the [SEG] tokens, chosen by `rng`: what is wrong half of
            the time would not be copied.
    """
    clips = data.said.absent.shape[2]
    prompts = [[model.chat.build(s.text, visual.shape[1], clips) for s in said] for said in data.sentences]
    anywhere, own = _where(data, model.config.method.images_per_clip)
    # What words alone decide is left to SAM-2's part, which knows kinds, sizes and positions better than the visual
    # tokens do: no place, and no word on whether it is there.
    alone = data.alone[..., None]
    own &= ~alone[..., None]
    told = None
    if shown and rng is not None:
        told = own & torch.from_numpy(rng.random(own.shape[:2]) < shown)[..., None, None]
        told = told.to(visual.device)
    layers = (FIND_LAYER, PLACE_LAYER)
    states = run_packed(model.mllm, visual, prompts, model.chat.context_id, layers=layers, shown=told)
    seg = model.mllm.project(states.seg)
    said = replace(data.said, absent=data.said.absent * ~alone).to(seg.device)
    where = data.points.masked_fill(alone[..., None, None], torch.nan)
    goal = (oracle.attributes(said) + places(model.sam, where.to(seg.device))).detach()
    distance = F.mse_loss(seg, goal)
    story, figures = heads.story.loss(states.visual, _padded(data.story, clips, heads).to(seg.device))
    find, place_ = (
        _attention_loss(states.looks[0], anywhere.to(seg.device)),
        _attention_loss(states.looks[1], own.to(seg.device)),
    )
    loss = 4 * distance + find.loss + place_.loss + 0.1 * states.logits_loss + 3 * story
    figures |= {
        "distance": distance.item(),
        "find": find.hit,
        "look": place_.hit,
        "lm": states.logits_loss.item(),
        "absent": _told_absent(seg, goal, oracle, said.absent),
    }
    return LanguageLoss(seg, loss, figures)


def _padded(story: Tensor, clips: int, heads: LookingHeads) -> Tensor:
    """Return stories [B, I, t, 2 * clips + STORY] as [B, I * t, figures]; places in clips that are not there: NaN."""
    missing = heads.story.figures - story.shape[-1]
    none = story.new_full((*story.shape[:-1], missing), torch.nan)
    return torch.cat([story[..., : 2 * clips], none, story[..., 2 * clips :]], -1).flatten(1, 2)


class _AttentionLoss(NamedTuple):
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


def _attention_loss(looks: Tensor, right: Tensor) -> _AttentionLoss:
    """Ask for attention to the right visual tokens, and to none of them where there is nothing to look at."""
    valid = right.any(-1)
    there = looks.masked_fill(~right, -torch.inf).logsumexp(-1)
    away = torch.log1p(-looks.logsumexp(-1).exp().clamp(max=1 - 1e-4))
    loss = -torch.where(valid, there.masked_fill(~valid, 0), away).mean()
    hit = right.gather(-1, looks.argmax(-1, keepdim=True))[..., 0] & valid
    return _AttentionLoss(loss, (hit.sum() / valid.sum().clamp(min=1)).item())


@torch.no_grad()
def _told_absent(seg: Tensor, goal: Tensor, oracle: Oracle, absent: Tensor) -> float:
    """Return how often the embeddings are on the right side of "not there", both cases weighted alike."""
    # Along the vector that says so, seen from what the oracle would have said otherwise.
    along = ((seg - goal) @ oracle.absent) / oracle.absent.square().sum() + absent
    right = (along > 0.5) == (absent > 0.5)
    rates = [right[absent == value].float().mean() for value in (0, 1) if (absent == value).any()]
    return torch.stack(rates).mean().item()
