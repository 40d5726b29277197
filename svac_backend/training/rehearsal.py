"""What the shipped weights were taught: sentences about plain scenes, strange names, and objects that are not there."""

from __future__ import annotations

import numpy as np

from svac_backend.synthetic.scene import Scene, SceneConfig
from svac_backend.synthetic.vocabulary import COLORS

# What the shipped weights were made from. Real videos are squashed into the model's squares, so these are too.
SCENES = SceneConfig(aspects=(1.0, 4 / 3, 16 / 9, 9 / 16))

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


def sentences_of(scene: Scene, count: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Choose `count` sentences about a scene, each with the number of its object; -1: it is not there.

    Kinds come evenly, some with a strange noun.
    """
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
            out.append((f"the {color} {noun}", -1))
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
        out.append((text, expression.targets[0]))
    return out
