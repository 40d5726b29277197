"""What the shipped weights were taught, so that fine-tuning can rehearse it: rich scenes and sentences about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichConfig

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
