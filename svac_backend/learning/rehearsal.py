"""Rehearsal: what a model must not forget while it learns from corrections.

It rehearses what the shipped weights were trained on: rich scenes and sentences about them. Their ground truth is
known, but the embedded model gets many of the sentences wrong. Trained on the truth of what it cannot tell, it would
learn to answer nothing, everywhere. So it gets the truth where it knows it, and its own answer elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from svac_backend.atomic import atomic_write
from svac_backend.learning.examples import Example
from svac_backend.learning.measure import truth_of
from svac_backend.learning.videos import VideoRef
from svac_backend.masks.metrics import iou
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.svac.astc import plan
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import make_rich_scene
from svac_backend.synthetic.rich.staging import RichConfig
from svac_backend.video.reader import ArrayVideo

Progress = Callable[[float, str], None]

# Real videos are squashed into the model's square input, so generated ones are, too.
SCENES = RichConfig(width=192, height=192, aspects=(*[16 / 9] * 4, 4 / 3, 1.0, 9 / 16), per_kind=4)

# People write "the white van", not "the white object". The model knows no van, but should still heed "white".
_NOUNS = (
    "van man woman boy girl player rider shirt bag box ball cup bottle table lamp door phone boat train "
    "flower toy block item thing goat deer"
)
NOUNS = tuple(_NOUNS.split())

# Weights for choosing among the kinds of expressions that a scene offers; rare kinds weigh more.
_WEIGHTS: dict[str, float] = {
    "category": 1.6,
    "color": 1.3,
    "color_category": 1.6,
    "texture": 1.2,
    "size": 1.1,
    "position": 1.0,
    "motion": 1.5,
    "change": 1.8,
    "speed": 1.2,
    "presence": 2.5,
    "order": 2.0,
    "relation": 1.2,
    "relation_time": 1.8,
    "several": 1.0,
    "absent": 1.0,
}
# Kinds that can be decided by looking at one thing alone. With these the language model first learns to find things.
_EASY: dict[str, float] = {
    "color": 5.0,
    "color_category": 2.0,
    "category": 1.0,
    "texture": 1.5,
    "position": 0.7,
    "size": 0.5,
    "absent": 0.3,
}


class MadeScene(Protocol):
    """The scene that any generator makes.

    Attributes:
        frames: u8 [T, H, W, 3] RGB.
        masks: bool [N, T, H, W], the visible part of every object.
        fps: frames per second.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    fps: float


def generated(seeds: Iterable[int], config: RichConfig, *, each: int = 4) -> list[Example]:
    """Return sentences about generated scenes, as in the embedded model's training; some refer to nothing there.

    Args:
        seeds: the seed of each scene.
        config: what the scenes look like.
        each: number of sentences about each scene.
    """
    look = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
    found = []
    for seed in seeds:
        scene = make_rich_scene(seed, config)
        said = [
            (s.text, s.targets) for s in sentences_of(scene.expressions, each, np.random.default_rng(seed))
        ]
        found += from_scene(f"scene-{look}-{seed}", lambda s=seed: make_rich_scene(s, config), scene, said)  # type: ignore[misc]
    return found


def from_scene(
    key: str, make: Callable[[], MadeScene], scene: MadeScene, said: Sequence[tuple[str, Sequence[int]]]
) -> list[Example]:
    """Return examples of a generated scene.

    Args:
        key: names the scene.
        make: makes it again.
        scene: the scene.
        said: expressions, each with the numbers of the objects that it refers to; none if nothing there fits.
    """

    def source() -> ArrayVideo:
        again = make()
        return ArrayVideo(again.frames, again.fps)

    video, frames = VideoRef(key, source), frozenset(range(len(scene.frames)))
    found = []
    for text, targets in said:
        union = np.asarray(scene.masks[list(targets)].any(axis=0))
        masks = {i: to_coco(mask) for i, mask in enumerate(union) if mask.any()}
        found.append(Example(video, text, masks, frames))
    return found


def sentences_of(
    expressions: Sequence[RichExpression], count: int, rng: np.random.Generator, *, easy: float = 0.0
) -> list[RichExpression]:
    """Choose `count` of the sentences about a scene: first the kind, then the sentence; some get an unknown noun.

    Args:
        easy: share of sentences of the kinds that can be decided by looking at one thing.
    """
    by_kind: dict[str, list[RichExpression]] = {}
    for expression in expressions:
        by_kind.setdefault(expression.kind, []).append(expression)
    kinds = sorted(by_kind)
    every = np.array([_WEIGHTS[kind] for kind in kinds])
    simple = np.array([_EASY.get(kind, 0.0) for kind in kinds])
    out: list[RichExpression] = []
    for _ in range(count):
        weights = simple if rng.random() < easy and simple.any() else every
        of_kind = by_kind[kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]]
        said = of_kind[int(rng.integers(len(of_kind)))]
        text = said.text
        if said.kind == "color" and said.says == "color" and rng.random() < 0.2:
            text = f"{rng.choice(['the ', 'a ', ''])}{said.color} {rng.choice(NOUNS)}"
        if rng.random() < 0.1:
            text += "."
        if rng.random() < 0.1:
            text = text.capitalize()
        out.append(replace(said, text=text))
    return out


Masks = dict[str, CocoRle]
Answered = tuple[list[Masks | None], list[NDArray[np.float32]]]

# Mean IoU from which on a model counts as knowing what a sentence refers to.
_KNOWN = 0.5


def as_answered(
    model: Svac, examples: Sequence[Example], kept: Path, mark: str, *, progress: Progress | None = None
) -> list[Example]:
    """Return the examples with the ground truth where the model knows it, and with its own answer elsewhere.

    For objects that are there, the [SEG] embeddings become anchors, too.

    Args:
        model: the model before training.
        examples: examples with known ground truth on every frame of `Example.frames`.
        kept: folder of the answers; those of an earlier attempt with the same mark are used again.
        mark: identifies model and examples.
        progress: called with a fraction 0..1 and a message.
    """
    found = _read(kept, mark)
    if found is None:
        found = _answers(model, examples, progress)
        _write(kept, mark, *found)
    answers, anchors = found
    return [
        replace(
            example,
            masks=example.masks if answer is None else {int(i): rle for i, rle in answer.items()},
            anchor=anchor if anchor.size else None,
        )
        for example, answer, anchor in zip(examples, answers, anchors, strict=True)
    ]


def _answers(model: Svac, examples: Sequence[Example], progress: Progress | None) -> Answered:
    """Return the model's answer for each example, None where the ground truth is to be used, and its embeddings."""
    by_video: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        if example.masks:  # for what is not there, the truth is used
            by_video.setdefault(example.video.key, []).append(number)
    found: list[Masks | None] = [None] * len(examples)
    anchors: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(examples)
    for done, numbers in enumerate(by_video.values()):
        if progress:
            progress(done / len(by_video), f"scene {done + 1} of {len(by_video)}")
        chosen = [examples[n] for n in numbers]
        texts = [example.expression for example in chosen]
        masks: list[Masks] = [{} for _ in numbers]
        fits: list[list[float]] = [[] for _ in numbers]
        with chosen[0].video.open() as video:
            embeddings = model.seg_embeddings(video, plan(len(video), model.config.method), texts)
            for frame in model.segment(video, texts):
                for k, (mask, example) in enumerate(zip(frame.masks, chosen, strict=True)):
                    if frame.index not in example.frames:
                        continue
                    fits[k].append(iou(mask, truth_of(example, frame.index, (mask.shape[0], mask.shape[1]))))
                    if mask.any():
                        masks[k][str(frame.index)] = to_coco(mask)
        for k, number in enumerate(numbers):
            anchors[number] = embeddings[k].float().cpu().numpy()
            if sum(fits[k]) < _KNOWN * len(fits[k]):
                found[number] = masks[k]
    return found, anchors


def _write(folder: Path, mark: str, answers: list[Masks | None], anchors: list[NDArray[np.float32]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "anchors.npz").open("wb") as file:
        np.savez(file, *anchors)
    # Written last: without this file the rest does not count.
    atomic_write(folder / "answers.json", json.dumps({"mark": mark, "answers": answers}))


def _read(folder: Path, mark: str) -> Answered | None:
    """Read the answers of an earlier attempt; None if there are none."""
    try:
        kept = json.loads((folder / "answers.json").read_text())
        if kept["mark"] != mark:
            return None
        with np.load(folder / "anchors.npz", allow_pickle=False) as file:
            return kept["answers"], [file[f"arr_{k}"] for k in range(len(kept["answers"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
