"""A few steps of training for a variant: language model and projectors; vision tower and SAM-2 rest.

Every variant gets the same scenes, sentences, trained frames, steps and learning rate from a seed. It learns from the
answer's cross-entropy and from the masks of each [SEG] on its own frames, by the loss that the embedded model's masks
were trained with: with another one, even the way that the weights were made for would first have to get used to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from lab.reproduction.scenes import Lesson, lesson, look
from lab.reproduction.seeing import Viewer
from lab.reproduction.variants import Variant
from lab.train_tiny.losses import mask_loss
from lab.train_tiny.schedule import Schedule
from svac_backend.svac.language.mllm import Mllm, Reading, Seen
from svac_backend.svac.language.templates import ChatIds
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import decode, encode_frames, without_memory

LM_WEIGHT = 0.2
# Share of the frame from which on a thing counts as there.
SMALLEST = 1 / 1500


@dataclass(frozen=True)
class Adaptation:
    """How much is trained.

    Attributes:
        steps: optimiser steps; 0 trains nothing.
        lr: peak learning rate.
        scenes: scenes of a step.
        sentences: of each scene.
        frames: of each scene, whose masks are trained.
    """

    steps: int = 40
    lr: float = 2e-4
    scenes: int = 2
    sentences: int = 4
    frames: int = 4


class Trainee:
    """The trained part of a model, and what it was before.

    Args:
        model: its parameters stop requiring gradients but for the trained ones.
    """

    def __init__(self, model: Svac) -> None:
        self.model = model
        model.requires_grad_(False)
        mllm = model.mllm
        parts = (mllm.language_model, mllm.mlp1, mllm.text_hidden_fcs)
        self.parameters: list[Parameter] = [p for part in parts for p in part.parameters()]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self._before = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def reset(self) -> None:
        """Go back to what it was."""
        for parameter, before in zip(self.parameters, self._before, strict=True):
            parameter.copy_(before)


def adapt(
    trainee: Trainee, variant: Variant, options: Adaptation, *, seed: int, length: int, log: Path, name: str
) -> None:
    """Train from the beginning for a variant.

    Args:
        trainee: is reset first.
        variant: how it will be run.
        options: how much.
        seed: of the data.
        length: frames of a clip.
        log: JSON lines file of the curves.
        name: of the run, in the log.
    """
    trainee.reset()
    if not options.steps:
        return
    model = trainee.model
    viewer, config, seen = Viewer(model, variant), look(model, length, "train"), variant.seen(length)
    schedule = Schedule(name, options.steps, options.lr, seed, log, every=max(1, options.steps // 4))
    for _, rng in schedule.run(trainee.parameters):
        total: Tensor | None = None
        figures: dict[str, float] = {}
        for _ in range(options.scenes):
            one = lesson(config, rng, seen, frames=options.frames, sentences=options.sentences)
            loss, parts = losses(viewer, one, length)
            total = loss / options.scenes if total is None else total + loss / options.scenes
            figures = {k: figures.get(k, 0.0) + v / options.scenes for k, v in parts.items()}
        if total is not None:
            schedule.step(total, figures)


def losses(viewer: Viewer, one: Lesson, length: int) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a scene, and its parts."""
    model = viewer.model
    prompts = viewer.prompts([e.text for e in one.expressions])
    seg, told = answers(
        model.mllm, viewer.tokens(viewer.pixels(one.frames)), prompts, viewer.builder.context_id
    )
    language = viewer.owned(seg, one.taught, length)
    with torch.no_grad():
        features = encode_frames(model.sam, one.pixels)
        low = without_memory(model.sam, features)
    rows = torch.arange(len(one.taught)).repeat(len(prompts)).to(low.device)
    # Absent objects are not masked out: the logits need their gradient.
    out = decode(
        model.sam,
        low[rows],
        features.take(rows).high,
        language.flatten(0, 1),
        no_object_masking=False,
    )
    target = one.target.flatten(0, 1).to(out.logits.device)
    present = (target.mean((1, 2)) > SMALLEST).float()
    mask, figures = mask_loss(out, target, present, clear=torch.ones_like(present, dtype=torch.bool))
    return LM_WEIGHT * told + mask, {"lm": told.item(), **figures}


def answers(mllm: Mllm, visual: Tensor, prompts: list[ChatIds], context_id: int) -> tuple[Tensor, Tensor]:
    """Run sentences about one video over their shared images, with gradients.

    Returns:
        [SEG] embeddings f32 [E, segs, d_model], and the mean cross-entropy of the answers' tokens.
    """
    told = []

    def write(mllm: Mllm, reading: Reading, prompt: ChatIds) -> Tensor:
        states = mllm.read(mllm.embed(prompt.suffix, None, context_id), reading).seg
        reading.back(len(prompt.suffix))
        logits = mllm.language_model.lm_head(states[prompt.answer_start - 1 : -1]).float()
        told.append(F.cross_entropy(logits, prompt.suffix[prompt.answer_start :].to(logits.device)))
        return states[prompt.seg.to(states.device)]

    seg = torch.stack(mllm.seg_states(Seen.alike(visual), prompts, context_id, write=write))
    return seg, torch.stack(told).mean()
