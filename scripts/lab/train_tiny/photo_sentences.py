"""Sentences about photographs, in three stages on the SAM-2 for frame hints, whose encoder rests.

    cells      which cells of stride 16 a phrase means, where a bag of its words says what it means; beside masks, a
               teacher tells it nouns (`photo_nouns`)
    drawing    a mask decoder for [SEG]s learns to draw what the cells say; another one stays for clicks and memory
    saying     a language model of its own, a copy of the first at the start, learns to say the bag's vector as [SEG]

A cell is learned from far fewer masks than a whole mask is, and a bag of words costs nothing beside a language model,
which then only has to learn vectors. On generated scenes its [SEG] matches nothing, so that the first one, which knows
them, draws there.
"""

from __future__ import annotations

import time
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from lab.train_tiny.losses import choice_loss, mask_loss
from lab.train_tiny.mask_batch import SMALLEST
from lab.train_tiny.photo_nouns import TEACHER_NOUNS, NounBatch, NounLesson, thinned
from lab.train_tiny.photo_scenes import Clip, Material, Scene, SceneBatch, draw, plain_words, said_of
from lab.train_tiny.photo_words import tailed, varied
from lab.train_tiny.resumable import ResumableStage, StagePlan
from svac_backend.errors import SvacError
from svac_backend.svac import astc
from svac_backend.svac.config import SamConfig
from svac_backend.svac.language.mllm import Mllm
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import decode_seg, encode_frames
from svac_backend.svac.sam.matching import SegMatching, seg_matching_of

B = TypeVar("B")

SEG_DIM = 128
PLANS: tuple[StagePlan, ...] = (
    # The table of words is met one row at a time, and learns five times faster.
    StagePlan(
        "cells",
        3,
        900,
        1e-2,
        rests=("cells.weight",),
        slow=("cells.", "words.mlp."),
        slow_factor=0.2,
        falls=True,
    ),
    StagePlan("drawing", 4, 400, 3e-3, slow=("decoder.",), falls=True),
    StagePlan("saying", 5, 400, 3e-3, slow=("language_model.",), slow_factor=1 / 3, falls=True),
)
# Of the loss of `saying`: how near [SEG]s are to nothing on generated scenes.
_NOTHING = 0.3


class Words(nn.Module):
    """Says what a phrase means as a vector, by its words and pairs of words alone.

    Args:
        dim: C, of the vector.
    """

    ROWS, MOST, WIDTH = 8192, 12, 128

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(self.ROWS, self.WIDTH, mode="sum")
        nn.init.normal_(self.table.weight, std=0.5)
        self.mlp = nn.Sequential(
            nn.LayerNorm(self.WIDTH),
            nn.Linear(self.WIDTH, 2 * self.WIDTH),
            nn.GELU(),
            nn.Linear(2 * self.WIDTH, dim),
        )

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return f32 [k, C]."""
        rows = [self._rows(text) for text in texts]
        starts = np.cumsum([0, *(len(row) for row in rows)])[:-1]
        vectors: Tensor = self.mlp(self.table(torch.tensor([*chain(*rows)]), torch.from_numpy(starts)))
        return vectors

    def _rows(self, text: str) -> list[int]:
        words = plain_words(text)
        said = [*words, *(f"{one}_{two}" for one, two in pairwise(words))]
        return [zlib.crc32(word.encode()) % self.ROWS for word in said][: self.MOST] or [0]


class Learner(nn.Module, ABC, Generic[B]):
    """What a stage trains, as a module's own parts; all else of the model rests."""

    @abstractmethod
    def batch(self, rng: np.random.Generator, data: Material) -> B:
        """Draw a step's batch."""

    @abstractmethod
    def loss(self, batch: B) -> tuple[Tensor, dict[str, float]]:
        """Return a step's loss and figures."""

    @abstractmethod
    def validate(self, data: Material) -> dict[str, float]:
        """Measure it on what trains nothing."""

    def prepare(self, data: Material) -> None:
        """Find what the loss needs, once the stages before are done."""


@dataclass
class Looked:
    """A step's scenes, and what a teacher says of others, if there is one."""

    scenes: SceneBatch
    nouns: NounBatch | None


class Finding(Learner[Looked]):
    """Stage `cells`: the cells that a phrase means."""

    def __init__(self, model: Svac, words: Words) -> None:
        super().__init__()
        self.cells, self.words = _matching(model), words
        self._model = [model]
        self._lesson: NounLesson | None = None

    @torch.no_grad()
    def prepare(self, data: Material) -> None:
        """Have the trunk's maps come in with mean 0 and deviation 1."""
        for name, layer in (("fine", self.cells.fine), ("coarse", self.cells.coarse)):
            maps = torch.stack([getattr(scene, name) for scene in data.scenes[:200]]).float()
            deviation = maps.std((0, 2, 3)) + 1e-3
            layer.weight /= deviation[None, :, None, None]
            layer.bias -= layer.weight[:, :, 0, 0] @ maps.mean((0, 2, 3))
        if data.views:
            self._lesson = NounLesson(data.views, data.phrases)
            self._lesson.begin(self.cells)

    def batch(self, rng: np.random.Generator, data: Material) -> Looked:
        """Draw scenes, mirrored now and then, of which some channels are lost."""
        mirrored = bool(rng.random() < 0.5)
        drawn = draw(rng, data.scenes, data.weights, count=24, sentences=6, mirrored=mirrored)
        fine, coarse = thinned(rng, drawn.fine, 0.05), thinned(rng, drawn.coarse, 0.1)
        nouns = self._lesson.batch(rng) if self._lesson else None
        return Looked(replace(drawn, fine=fine, coarse=coarse), nouns)

    def loss(self, looked: Looked) -> tuple[Tensor, dict[str, float]]:
        """Judge each cell, the overlap of all of what is seen, and what a teacher knows."""
        batch = looked.scenes
        cells = self.cells.cells(batch.fine, batch.coarse)
        logits = self.cells(cells[batch.owner], self.words(batch.texts))
        target = F.adaptive_avg_pool2d(batch.target[:, None], logits.shape[-2:])[:, 0]
        probability = logits.sigmoid()
        both = (probability * target).sum((1, 2))
        overlap = (both + 0.5) / (probability.sum((1, 2)) + target.sum((1, 2)) - both + 0.5)
        seen = batch.visible.sum().clamp(min=1)
        overlap = (overlap * batch.visible).sum() / seen
        loss = 3 * F.binary_cross_entropy_with_logits(logits, target) + 1.5 * (1 - overlap)
        figures = {"overlap": overlap.item()}
        if looked.nouns and self._lesson:
            nouns = self._lesson.loss(self.cells, self.words, looked.nouns)
            loss, figures["nouns"] = loss + nouns, nouns.item()
        return loss, figures

    def validate(self, data: Material) -> dict[str, float]:
        """Measure the cells alone, by the bag of words."""
        return judge(self._model[0], data.judged, lambda scene: self.words(scene.texts), drawn=False)


class Drawing(Learner[SceneBatch]):
    """Stage `drawing`: the mask decoder that [SEG]s use, and how much the cells' logits weigh in its masks."""

    def __init__(self, model: Svac, words: Words) -> None:
        super().__init__()
        self.decoder, self.weight = _hints(model).sam_mask_decoder, _matching(model).weight
        self._rest = (model, words)

    @torch.no_grad()
    def prepare(self, data: Material) -> None:
        """Begin with cells that count for somewhat less than the decoder."""
        self.weight.fill_(0.6)

    def batch(self, rng: np.random.Generator, data: Material) -> SceneBatch:
        """Draw scenes and sentences of what is seen."""
        return draw(rng, data.scenes, data.weights, count=8, sentences=7, visible=True)

    def loss(self, batch: SceneBatch) -> tuple[Tensor, dict[str, float]]:
        """Judge each mask, and which of the things it prefers."""
        model, words = self._rest
        sam = _hints(model)
        features = encode_frames(sam, astc.sam_pixels(batch.images), fuse=False).take(batch.owner)
        out = decode_seg(sam, features, words(batch.texts), no_object_masking=False, fuse=False)
        clear = torch.ones_like(batch.visible, dtype=torch.bool)
        loss, figures = mask_loss(out, batch.target, batch.visible, clear=clear)
        which, right = choice_loss(out, batch.target, batch.things[batch.owner], clear)
        return loss + 0.5 * which, figures | right | {"weight": self.weight.item()}

    def validate(self, data: Material) -> dict[str, float]:
        """Measure what is drawn, and the cells alone, by the bag of words."""
        model, words = self._rest
        return judge(model, data.judged, lambda scene: words(scene.texts), drawn=True)


@dataclass
class Spoken:
    """A step's clips of photographs with phrases each, and a generated clip with some of its sentences."""

    photographs: list[tuple[Clip, list[str]]]
    generated: Clip


class Saying(Learner[Spoken]):
    """Stage `saying`: the language model that says [SEG]s for the SAM-2 that has seen photographs."""

    nothing: Tensor  # f32 [C], what matches no cell
    spread: float  # of the vectors of phrases

    def __init__(self, model: Svac, words: Words) -> None:
        super().__init__()
        mllm = _speaker(model)
        self.language_model, self.text_hidden_fcs = mllm.language_model, mllm.text_hidden_fcs
        self._rest = (model, words)

    def prepare(self, data: Material) -> None:
        """Find a vector that matches nothing, and how far vectors lie apart."""
        model, words = self._rest
        self.nothing = nothing_vector(_matching(model), words, data)
        with torch.no_grad():
            self.spread = float(words(data.phrases[:800]).std())

    def batch(self, rng: np.random.Generator, data: Material) -> Spoken:
        """Draw clips; what a phrase means does not hang on the photograph, so any will do."""
        photographs = []
        for n in rng.integers(len(data.clips), size=2):
            chosen = rng.choice(len(data.phrases), min(32, len(data.phrases)), replace=False)
            photographs.append((data.clips[n], [varied(rng, data.phrases[k]) for k in chosen]))
        if data.views:  # what only a teacher has named is said as often
            named = [
                f"{rng.choice(['the ', ''])}{noun}" for noun in rng.choice(TEACHER_NOUNS, 32, replace=False)
            ]
            photographs[1] = (photographs[1][0], [tailed(rng, text) for text in named])
        clip = data.generated[int(rng.integers(len(data.generated)))]
        rows = rng.permutation(len(clip.texts))[:24]
        return Spoken(photographs, Clip(clip.tokens, [clip.texts[k] for k in rows]))

    def loss(self, batch: Spoken) -> tuple[Tensor, dict[str, float]]:
        """Judge how far [SEG]s are from what they shall be: 1 is as far as one phrase is from another."""
        said = torch.stack([self._missed(clip, texts) for clip, texts in batch.photographs])
        silent = self._heard(batch.generated)
        return said.sum() + _NOTHING * silent, {"said": said.mean().item(), "silent": silent.item()}

    def _missed(self, clip: Clip, texts: Sequence[str]) -> Tensor:
        model, words = self._rest
        seg = said_of(_speaker(model), model.chat, clip, texts)
        return F.mse_loss(seg, words(texts)[:, None].expand_as(seg)) / self.spread**2

    def _heard(self, clip: Clip) -> Tensor:
        """Return how far the [SEG]s of a generated clip's sentences are from nothing."""
        seg = said_of(_speaker(self._rest[0]), self._rest[0].chat, clip, clip.texts)
        return F.mse_loss(seg, self.nothing.expand_as(seg)) / self.spread**2

    @torch.no_grad()
    def validate(self, data: Material) -> dict[str, float]:
        """Measure [SEG]s on clips kept apart, and what they draw on photographs as they are."""
        model, _ = self._rest
        phrases = [p for p in data.phrases if zlib.crc32(p.encode()) % 40 == 0][:48] or data.phrases[:48]
        missed = [self._missed(clip, phrases) for clip in data.clips_apart]
        silent = [self._heard(clip) for clip in data.generated_apart]
        stills = {id(scene): clip for scene, clip in zip(data.natural, data.stills, strict=True)}

        def say(scene: Scene) -> Tensor:
            return said_of(_speaker(model), model.chat, stills[id(scene)], scene.texts)[:, 0]

        figures = {"said apart": missed, "silent apart": silent}
        means = {name: round(float(torch.stack(rows).mean()), 4) for name, rows in figures.items()}
        return means | judge(model, {"natural": data.natural}, say, drawn=True)


def nothing_vector(matching: SegMatching, words: Words, data: Material, *, steps: int = 150) -> Tensor:
    """Return a vector f32 [C], about as long as those of phrases, that matches no cell of the scenes."""
    with torch.no_grad():
        said = words(data.phrases[:500])
    length = said.norm(dim=1).mean()
    vector = said.mean(0).requires_grad_()
    optimizer, rng = torch.optim.Adam([vector], 0.05), np.random.default_rng(0)
    for _ in range(steps):
        few = [data.scenes[k] for k in rng.integers(len(data.scenes), size=16)]
        with torch.no_grad():
            cells = matching.cells(
                *(torch.stack([getattr(s, name) for s in few]).float() for name in ("fine", "coarse"))
            )
        logits = matching(cells, vector.expand(len(few), -1))
        loss = F.softplus(logits + 4).mean() + 0.1 * F.relu(vector.norm() / length - 1) ** 2
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return vector.detach()


@torch.no_grad()
def judge(
    model: Svac, judged: Mapping[str, Sequence[Scene]], say: Callable[[Scene], Tensor], *, drawn: bool
) -> dict[str, float]:
    """Measure J in per cent by kind of sentence, and how many absent things are found, of the cells and what is drawn.

    Args:
        judged: scenes by name.
        say: gives the vectors f32 [E, C] of a scene's sentences.
        drawn: measure what is drawn, too.
    """
    sam, matching = _hints(model), _matching(model)
    rows: dict[str, list[float]] = defaultdict(list)
    for where, scenes in judged.items():
        for scene in scenes:
            features = encode_frames(sam, astc.sam_pixels(scene.image[None].numpy())).take(
                [0] * len(scene.texts)
            )
            assert features.cells is not None
            seg = say(scene)
            found = {"cells": matching(features.cells, seg)}
            if drawn:
                out = decode_seg(sam, features, seg, no_object_masking=False)
                found["drawn"] = out.logits.masked_fill((out.existence <= 0)[:, None, None], -1.0)
            for name, logits in found.items():
                _judge_masks(rows, f"{where} {name}", scene, logits)
    return {name: round(100 * float(np.mean(values)), 1) for name, values in sorted(rows.items())}


def _judge_masks(rows: dict[str, list[float]], name: str, scene: Scene, logits: Tensor) -> None:
    size = scene.target.shape[-2:]
    found = F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] > 0
    truth = scene.target > 127
    overlap = (found & truth).sum((1, 2)) / (found | truth).sum((1, 2)).clamp(min=1)
    for kind, seen, value, mask in zip(scene.kinds, scene.visible, overlap, found, strict=True):
        if kind == "absent":
            rows[f"{name} absent"].append(float(mask.float().mean() > SMALLEST))
        elif seen:
            rows[f"{name} J"].append(float(value))
            rows[f"{name} J {kind}"].append(float(value))


def speaking_model(base: Svac, hints: SamConfig, weights: Mapping[str, Tensor]) -> Svac:
    """Return `base` with the SAM-2 for frame hints as one that takes [SEG]s, too; what is new has to be trained.

    Args:
        hints: of this SAM-2.
        weights: its own, of a training on photographs or of such a model.
    """
    config = replace(base.config, hints=replace(hints, seg_dim=SEG_DIM, original_decoder=True))
    model = Svac(config, base.tokenizer_file)
    state = model.state_dict()
    state |= {name: value for name, value in base.state_dict().items() if not name.startswith("hint_")}
    for name, value in base.mllm.state_dict(
        prefix="hint_mllm."
    ).items():  # a copy, but for what has another size
        if name in state and state[name].shape == value.shape:
            state[name] = value
    # Cells are learned together with the words, and so from the start.
    weights = {name: value for name, value in weights.items() if not name.startswith("seg_matching.")}
    state |= {f"hint_sam.{name}": value for name, value in weights.items()}
    if not any(name.startswith("original_mask_decoder.") for name in weights):
        decoder = {name: value for name, value in weights.items() if name.startswith("sam_mask_decoder.")}
        state |= {
            f"hint_sam.original_mask_decoder.{name.split('.', 1)[1]}": value
            for name, value in decoder.items()
        }
    model.load_state_dict(state)
    return model.eval().requires_grad_(requires_grad=False)


def learners_of(model: Svac) -> tuple[Learner[Any], ...]:
    """Return what the stages train, one after another."""
    words = Words(_hints(model).hidden_dim)
    return Finding(model, words), Drawing(model, words), Saying(model, words)


def train_sentences(
    model: Svac,
    data: Material,
    work: Path,
    *,
    seed: int = 0,
    scale: float = 1.0,
    plans: Iterable[StagePlan] = PLANS,
) -> None:
    """Train all three stages, or what is left of them; the model becomes the running mean of its weights.

    Args:
        work: folder of checkpoints, curves, and, from the first validation of `saying` on, of `model`.
        scale: steps of every stage, times this.
    """
    torch.manual_seed(seed)  # the words' table begins at random
    for plan, learner in zip(plans, learners_of(model), strict=True):
        learner.prepare(data)
        run = ResumableStage(
            replace(plan, steps=max(1, round(scale * plan.steps))), learner, work, seed, mean_over=150
        )
        validated = time.monotonic()
        for _, batch in run.batches(lambda rng, _, learner=learner: learner.batch(rng, data)):
            run.take(*learner.loss(batch))
            if run.done or time.monotonic() - validated > 1800:
                with run.averaged():
                    run.tell(learner.validate(data))
                    if isinstance(learner, Saying):
                        model.save_pretrained(work / "model", torch.float16)
                validated = time.monotonic()
        learner.load_state_dict(run.mean)
        learner.requires_grad_(requires_grad=False)


def trained(model: Svac, work: Path) -> int | None:
    """Give the model the running means of the stages' checkpoints; returns the step of `saying`, if it has begun."""
    step = None
    for plan, learner in zip(PLANS, learners_of(model), strict=True):
        path = work / f"{plan.number}-{plan.name}.pt"
        if not path.is_file():
            return None
        state = torch.load(path, map_location="cpu", weights_only=True)
        learner.load_state_dict(state["mean"])
        step = int(state["step"])
    return step


def _hints(model: Svac) -> SAM2Base:
    if model.hint_sam is None:
        raise SvacError("The model has no SAM-2 for frame hints.", "Train the stages before on photographs.")
    return model.hint_sam


def _speaker(model: Svac) -> Mllm:
    if model.hint_mllm is None:
        raise SvacError("The model has one language model only.", "Start from `speaking_model`.")
    return model.hint_mllm


def _matching(model: Svac) -> SegMatching:
    found = seg_matching_of(_hints(model))
    if found is None:
        raise SvacError("The model has no cells to compare [SEG]s with.", "Start from `speaking_model`.")
    return found
