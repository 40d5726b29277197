"""Sentences for training: the scenes' own, names the generator does not draw, and objects that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from svac_backend.svac.prompts import IMG_CONTEXT, IMG_END, IMG_START, SEG
from svac_backend.synthetic.scene import Scene, SceneConfig, make_scene
from svac_backend.synthetic.vocabulary import COLORS, SHAPES
from svac_backend.training.embedded.oracle import SIZES

# A visitor writes "the white dog", not "the white object". The model knows no dog; it should still hear "white".
NOUNS = (
    "dog",
    "cat",
    "car",
    "truck",
    "bus",
    "van",
    "bike",
    "bird",
    "horse",
    "cow",
    "sheep",
    "person",
    "man",
    "woman",
    "boy",
    "girl",
    "player",
    "rider",
    "shirt",
    "hat",
    "bag",
    "box",
    "ball",
    "cup",
    "bottle",
    "chair",
    "table",
    "lamp",
    "door",
    "book",
    "phone",
    "plane",
    "boat",
    "train",
    "fish",
    "flower",
    "tree",
    "robot",
    "toy",
    "block",
    "animal",
    "vehicle",
    "item",
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", IMG_START, IMG_END, IMG_CONTEXT]
SPECIAL += ["<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", SEG, "<p>", "</p>", "<vp>", "</vp>"]


@dataclass(frozen=True)
class Sentence:
    """One training expression. Attributes are indices into the vocabularies, -1 where not said; target -1: absent."""

    text: str
    kind: str
    target: int
    color: int
    shape: int
    size: int


def sentences_of(scene: Scene, count: int, rng: np.random.Generator) -> list[Sentence]:
    """Choose `count` sentences about a scene: kinds evenly, some with a strange noun, some of absent objects."""
    by_kind: dict[str, list[int]] = {}
    for k, expression in enumerate(scene.expressions):
        by_kind.setdefault(expression.kind, []).append(k)
    kinds = sorted(by_kind)
    out = []
    for _ in range(count):
        absent = sorted(set(COLORS) - {o.color for o in scene.objects})
        if absent and rng.random() < 0.1:
            color = str(rng.choice(absent))
            noun = str(rng.choice(["object", "one", "thing", "shape", *NOUNS]))
            out.append(Sentence(f"the {color} {noun}", "absent", -1, COLORS.index(color), -1, -1))
            continue
        expression = scene.expressions[int(rng.choice(by_kind[str(rng.choice(kinds))]))]
        text = expression.text
        if expression.kind == "color" and rng.random() < 0.3:
            article = str(rng.choice(["the ", "a ", ""]))
            text = f"{article}{expression.color} {rng.choice(NOUNS)}"
        if rng.random() < 0.1:
            text += "."
        if rng.random() < 0.1:
            text = text.capitalize()
        out.append(
            Sentence(
                text,
                expression.kind,
                expression.targets[0],
                COLORS.index(expression.color) if expression.color else -1,
                SHAPES.index(expression.shape) if expression.shape else -1,
                SIZES.index(expression.size) if expression.size else -1,
            )
        )
    return out


def train_tokenizer(question: str, *, scenes: int = 400, vocabulary: int = 640) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the generator's language; any other text falls back to bytes."""

    def corpus() -> Iterator[str]:
        config = SceneConfig(frames=2)
        for seed in range(1_000_000, 1_000_000 + scenes):
            for expression in make_scene(seed, config, indices=[0]).expressions:
                yield question.format(exp=expression.text)
        for noun in NOUNS:
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
