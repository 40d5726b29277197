"""What there is to learn from: a video, an expression, and masks on the frames that a person answered for.

What the shipped weights were taught, so that fine-tuning can rehearse it: rich scenes and sentences about them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.truth import open_truth
from svac_backend.learning.videos import FileVideo, MadeScene, MadeVideo, PictureFolder, VideoRef
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.store.corrections import Correction
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene

# Real videos are squashed into the model's squares, so generated ones are too.
SCENES = RichConfig(width=192, height=192, aspects=(*[16 / 9] * 4, 4 / 3, 1.0, 9 / 16), per_kind=4)

# A visitor writes "the white van", not "the white object". The model knows no van; it should still hear "white".
NOUNS = (
    *(
        "van",
        "man",
        "woman",
        "boy",
        "girl",
        "player",
        "rider",
        "shirt",
        "bag",
        "box",
        "ball",
        "cup",
        "bottle",
    ),
    *(
        "table",
        "lamp",
        "door",
        "phone",
        "boat",
        "train",
        "flower",
        "toy",
        "block",
        "item",
        "thing",
        "goat",
        "deer",
    ),
)

# How often a kind of expression is chosen where a scene offers it; rare ones more often.
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
# What one look at one thing decides. The language model learns to find anything by these first.
_EASY: dict[str, float] = {
    "color": 5.0,
    "color_category": 2.0,
    "category": 1.0,
    "texture": 1.5,
    "position": 0.7,
    "size": 0.5,
    "absent": 0.3,
}


@dataclass(frozen=True)
class Sentence:
    """One training expression.

    Attributes:
        text, kind, targets: as in `RichExpression`.
        color, texture, name: what its noun says, or None.
        says: what it says of the noun, as in `RichExpression`.
    """

    text: str
    kind: str
    targets: tuple[int, ...]
    color: str | None
    texture: str | None
    name: str | None
    says: str = "noun"


def sentences_of(
    expressions: Sequence[RichExpression], count: int, rng: np.random.Generator, *, easy: float = 0.0
) -> list[Sentence]:
    """Choose `count` of the sentences about a scene: first the kind, then the sentence; some with a strange noun.

    Args:
        easy: share of sentences that are of the kinds that one look decides.
    """
    by_kind: dict[str, list[RichExpression]] = {}
    for expression in expressions:
        by_kind.setdefault(expression.kind, []).append(expression)
    kinds = sorted(by_kind)
    every = np.array([_WEIGHTS[kind] for kind in kinds])
    simple = np.array([_EASY.get(kind, 0.0) for kind in kinds])
    out: list[Sentence] = []
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
        out.append(Sentence(text, said.kind, said.targets, said.color, said.texture, said.name, said.says))
    return out


@dataclass(frozen=True)
class Example:
    """One object of one video, and the sentence that means it.

    Attributes:
        video: its frames.
        expression: the sentence.
        masks: 0-based frame -> mask. A frame of `drawn` or `accepted` without one shows no such object.
        drawn: frames on which a person drew or changed the mask.
        accepted: frames that a person left as they were predicted, and submitted.
        anchor: f32 [N, d_model], the [SEG] embeddings that the model shall keep for it; None: free to change.
    """

    video: VideoRef
    expression: str
    masks: Mapping[int, CocoRle]
    drawn: frozenset[int]
    accepted: frozenset[int] = frozenset()
    anchor: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames whose truth is known, ascending."""
        return tuple(sorted(self.drawn | self.accepted))


def from_corrections(corrections: Iterable[Correction], find: Callable[[Correction], Path]) -> list[Example]:
    """Return what can be learned from; corrections without an expression or a frame are left out.

    Args:
        corrections: what persons submitted.
        find: returns the file of a correction's video.
    """
    found = []
    for one in corrections:
        frames = frozenset(one.drawn) | frozenset(one.accepted)
        if not one.expression.strip() or not frames:
            continue
        # What names the video stays the same when its file is fetched again.
        name = one.annotation.video or f"{one.hostname}{one.video_url}"
        video = FileVideo(Path(find(one)), name)
        masks = {i: mask for i, mask in one.track.masks.items() if i in frames}
        drawn = frozenset(one.drawn)
        found.append(Example(video, one.expression, masks, drawn, frozenset(one.accepted) - drawn))
    return found


def from_mevis(root: Path, split: str) -> list[Example]:
    """Return the examples of a folder in the layout of MeViS; every frame counts as drawn.

    Raises:
        SvacError: no such folder or split, or masks that do not belong to it.
    """
    benchmark = open_benchmark("mevis", root, split)
    truth = open_truth(benchmark)
    if truth is None:
        raise SvacError(
            f"The split {split!r} in {root} has no masks to learn from.",
            "Give a split that has mask_dict.json, such as train or valid_u.",
        )
    found = []
    for video in benchmark.videos:
        for expression in video.expressions:
            target = truth.target(video, expression)
            masks = {}
            for i in range(len(video.frames)):
                mask = target.mask(i)
                if mask is not None and mask.any():
                    masks[i] = to_coco(mask)
            frames = frozenset(range(len(video.frames)))
            found.append(Example(PictureFolder(video.folder, video.frames), expression.text, masks, frames))
    return found


def from_scene(
    key: str, make: Callable[[], MadeScene], scene: MadeScene, said: Sequence[tuple[str, Sequence[int]]]
) -> list[Example]:
    """Return examples of a generated scene.

    Args:
        key: names the scene.
        make: makes it again.
        scene: the scene.
        said: expressions and the numbers of the objects that each means, none if it is not there.
    """
    video, frames = MadeVideo(key, make), frozenset(range(len(scene.frames)))
    found = []
    for text, targets in said:
        union = np.asarray(scene.masks[list(targets)].any(axis=0))
        masks = {i: to_coco(mask) for i, mask in enumerate(union) if mask.any()}
        found.append(Example(video, text, masks, frames))
    return found


def generated(seeds: Iterable[int], config: RichConfig, *, each: int = 4) -> list[Example]:
    """Return sentences about generated scenes, as the embedded model was trained on; some mean nothing that is there.

    Args:
        seeds: a scene each.
        config: what they look like.
        each: sentences about each.
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


def split_by_video(
    examples: Sequence[Example], *, share: float = 0.2, least: int = 2
) -> tuple[list[Example], list[Example]]:
    """Part the examples by video into those to learn from and those to be held out.

    A video's side follows from its key alone, so that it stays when others come; where too few would be held out, the
    next ones in the order of their hashes join them.

    Args:
        examples: all.
        share: of the videos that is held out, in the long run.
        least: held out at least, as long as as many are left.

    Returns:
        To learn from, held out.
    """
    place = {e.video.key: hash_of(e.video.key) for e in examples}
    order = sorted(place, key=place.__getitem__)
    count = sum(place[key] < share for key in order)
    held = set(order[: max(count, min(least, len(order) // 2))])
    return [e for e in examples if e.video.key not in held], [e for e in examples if e.video.key in held]


def hash_of(key: str) -> float:
    """Return a number 0..1 that follows from the text alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
