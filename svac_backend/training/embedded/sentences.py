"""Sentences for training: the scenes' own, names the generator does not draw, and objects that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from svac_backend.svac.prompts import IMG_CONTEXT, IMG_END, IMG_START, SEG
from svac_backend.synthetic.rich.kinds import FAMILIES, HELD_OUT_KINDS, KINDS
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichConfig, RichScene, describe
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED
from svac_backend.synthetic.vocabulary import COLORS

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
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", IMG_START, IMG_END, IMG_CONTEXT]
SPECIAL += ["<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", SEG, "<p>", "</p>", "<vp>", "</vp>"]


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
    """

    text: str
    kind: str
    targets: tuple[int, ...]
    color: str | None
    texture: str | None
    name: str | None


def sentences_of(
    scene: RichScene, count: int, rng: np.random.Generator, *, easy: float = 0.0
) -> list[Sentence]:
    """Choose `count` sentences about a scene: first the kind, then the sentence; some with a strange noun.

    Args:
        easy: share of sentences that are of the kinds that one look decides.
    """
    by_kind: dict[str, list[RichExpression]] = {}
    for expression in scene.expressions:
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
        out.append(Sentence(text, said.kind, said.targets, said.color, said.texture, said.name))
    return out


def train_tokenizer(question: str, *, scenes: int = 600, vocabulary: int = 1024) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the generator's language; any other text falls back to bytes."""

    def corpus() -> Iterator[str]:
        config = RichConfig(per_kind=6)
        for seed in range(FIRST_TRAIN_SEED, FIRST_TRAIN_SEED + scenes):
            for expression in describe(seed, config)[1]:
                yield question.format(exp=expression.text)
        for noun in (
            *NOUNS,
            *FAMILIES,
            *(n for k in KINDS.values() if k.name not in HELD_OUT_KINDS for n in k.names),
        ):
            for color in COLORS:
                yield question.format(exp=f"the {color} {noun}")
        yield from ["user\nassistant\nIt is ."] * 200

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer
