"""J&F of a variant on scored scenes: one function for all variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.reproduction.scenes import Scored
from lab.reproduction.seeing import Viewer
from lab.reproduction.variants import Variant
from svac_backend.masks.metrics import j_and_f
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.decoding import masks_at_size
from svac_backend.svac.sam.grounding import decode, without_memory

_PAIRS = 32  # (sentence, frame) pairs that the mask decoder takes at a time


@dataclass(frozen=True)
class Score:
    """One sentence.

    Attributes:
        kind: of the sentence.
        needs_time: whether one frame is not enough to understand it.
        speed: of its target, short sides per clip; None where nothing is meant.
        j_and_f: 0..100; where the truth is empty, 100 for an empty mask.
    """

    kind: str
    needs_time: bool
    speed: float | None
    j_and_f: float


def evaluate(model: Svac, variant: Variant, scenes: Sequence[Scored]) -> list[Score]:
    """Score every sentence of every scene."""
    viewer, found = Viewer(model, variant), []
    for scene in scenes:
        length = scene.config.frames
        said = [expression.text for expression in scene.expressions]
        seg = viewer.embeddings(scene.frames(variant.seen(length)), said)
        masks = _masks(model, scene, viewer.owned(seg, scene.scored, length)).cpu().numpy()
        for k, expression in enumerate(scene.expressions):
            score = 100 * j_and_f(masks[k], scene.truth[k]).j_and_f
            found.append(Score(expression.kind, expression.needs_time, scene.speeds[k], round(score, 3)))
    return found


@torch.inference_mode()
def _masks(model: Svac, scene: Scored, language: Tensor) -> Tensor:
    """Decode language [E, F, d_model] on the scored frames; bool [E, F, H, W]."""
    sentences, frames = language.shape[:2]
    rows = torch.arange(frames).repeat(sentences)
    parts = []
    for part, words in zip(rows.split(_PAIRS), language.flatten(0, 1).split(_PAIRS), strict=True):
        chosen = scene.features.take(part)
        out = decode(
            model.sam,
            without_memory(model.sam, chosen),
            chosen.high,
            words,
            no_object_masking=model.config.method.no_object_masking,
        )
        height, width = scene.truth.shape[2:]
        parts.append(masks_at_size(out.logits, model.config.sam.image_size, height, width))
    return torch.cat(parts).view(sentences, frames, *scene.truth.shape[2:])
