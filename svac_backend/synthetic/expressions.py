"""Referring expressions: sentences that mean exactly one object of a scene."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from svac_backend.synthetic.shapes import ObjectSpec

Kind = Literal["color", "shape", "color_shape", "size", "motion"]
# "The largest object" is said only if the next one is clearly smaller.
SIZE_MARGIN = 1.2

_SYNONYMS: dict[str, str] = {"gray": "grey", "ellipse": "oval", "ring": "donut", "cross": "plus sign"}
_SYNONYM_SHARE = 0.15

_COLOR = (
    "the {c} object",
    "the {c} one",
    "the {c} thing",
    "the {c} shape",
    "the object that is {c}",
    "the thing that is {c}",
    "{c} object",
    "a {c} object",
    "the {c} object in the video",
)
_SHAPE = (
    "the {s}",
    "{s}",
    "a {s}",
    "the {s} in the video",
    "the object that is a {s}",
    "the object shaped like a {s}",
    "the thing that looks like a {s}",
)
_COLOR_SHAPE = (
    "the {c} {s}",
    "{c} {s}",
    "a {c} {s}",
    "the {s} that is {c}",
    "the {c} {s} in the video",
    "the object that is a {c} {s}",
)
_SIZE = {
    "largest": ("the largest {n}", "the biggest {n}", "the {n} that is the largest", "largest {n}"),
    "smallest": ("the smallest {n}", "the tiniest {n}", "the {n} that is the smallest", "smallest {n}"),
    "large": ("the large {n}", "the big {n}", "the {n} that is large"),
    "small": ("the small {n}", "the little {n}", "the {n} that is small"),
    "medium": ("the medium {n}", "the medium sized {n}"),
}
_DIRECTION = (
    "the {n} moving {m}",
    "the {n} that moves {m}",
    "the {n} going {m}",
    "the {n} that is moving {m}",
    "the {n} that goes {m}",
)
_SIDEWAYS = ("the {n} moving to the {m}", "the {n} that moves to the {m}")
_MOTION = {
    "left": _DIRECTION + _SIDEWAYS,
    "right": _DIRECTION + _SIDEWAYS,
    "up": (*_DIRECTION, "the {n} that rises", "the {n} moving upwards"),
    "down": (*_DIRECTION, "the {n} that sinks", "the {n} moving downwards"),
    "still": (
        "the {n} that stays still",
        "the {n} that does not move",
        "the {n} standing still",
        "the {n} that is not moving",
        "the still {n}",
    ),
    "circle": (
        "the {n} moving in a circle",
        "the {n} that moves in circles",
        "the {n} going around in a circle",
    ),
}
_NOUNS = ("object", "thing", "one", "shape")


@dataclass(frozen=True)
class Expression:
    """A sentence and what it means.

    Attributes:
        text: the sentence, lower case, without a full stop.
        kind: the attribute that it needs: `color`, `shape`, `color_shape`, `size` or `motion`.
        targets: indices of the objects that it means; exactly one in this version.
        color, shape, size, motion: the attributes that it names, else None; `size` may also be `largest` or
            `smallest`.
    """

    text: str
    kind: Kind
    targets: tuple[int, ...]
    color: str | None = None
    shape: str | None = None
    size: str | None = None
    motion: str | None = None


def expressions_of(
    objects: Sequence[ObjectSpec], rng: np.random.Generator, *, paraphrases: int | None = 1
) -> list[Expression]:
    """Return every unambiguous way to mean one object, each in random words.

    Args:
        objects: the scene's objects.
        rng: chooses the words.
        paraphrases: how many wordings of each meaning; None gives all of them (the order is then fixed).
    """
    result: list[Expression] = []
    for meaning in _meanings(objects):
        templates = _templates(meaning)
        if paraphrases is None:
            texts = [
                _say(template, meaning, noun, False) for template in templates for noun in _nouns(template)
            ]
        else:
            picks = rng.permutation(len(templates))[:paraphrases]
            texts = []
            for pick in picks:
                nouns = _nouns(templates[pick])
                noun = nouns[int(rng.integers(len(nouns)))]
                texts.append(_say(templates[pick], meaning, noun, bool(rng.random() < _SYNONYM_SHARE)))
        result += [replace(meaning, text=text) for text in dict.fromkeys(texts)]
    return result


def _meanings(objects: Sequence[ObjectSpec]) -> list[Expression]:
    """Return all that can be said without doubt, before the words are chosen."""
    found: list[Expression] = []
    for i, spec in enumerate(objects):
        looks: tuple[tuple[Kind, str | None, str | None], ...] = (
            ("color", spec.color, None),
            ("shape", None, spec.shape),
            ("color_shape", spec.color, spec.shape),
        )
        found += [
            Expression("", kind, (i,), color=color, shape=shape)
            for kind, color, shape in looks
            if not _rivals(objects, i, color, shape)
        ]
        found += _sizes(objects, i)
        found += _motions(objects, i)
    return found


def _rivals(objects: Sequence[ObjectSpec], i: int, color: str | None, shape: str | None) -> list[ObjectSpec]:
    """Return the objects beside object i that have a colour and a shape; None stands for any."""
    return [
        o for k, o in enumerate(objects) if k != i and color in (None, o.color) and shape in (None, o.shape)
    ]


def _sizes(objects: Sequence[ObjectSpec], i: int) -> list[Expression]:
    spec = objects[i]
    found: list[Expression] = []
    for shape in (None, spec.shape):
        rivals = _rivals(objects, i, None, shape)
        if not rivals:
            continue
        if all(spec.radius >= SIZE_MARGIN * o.radius for o in rivals):
            found.append(Expression("", "size", (i,), shape=shape, size="largest"))
        if all(spec.radius * SIZE_MARGIN <= o.radius for o in rivals):
            found.append(Expression("", "size", (i,), shape=shape, size="smallest"))
        if all(o.size != spec.size for o in rivals):
            found.append(Expression("", "size", (i,), shape=shape, size=spec.size))
    return found


def _motions(objects: Sequence[ObjectSpec], i: int) -> list[Expression]:
    motion = objects[i].motion
    if motion not in _MOTION:
        return []
    return [
        Expression("", "motion", (i,), color=color, shape=shape, motion=motion)
        for color, shape in ((None, None), (objects[i].color, None), (None, objects[i].shape))
        if not any(o.motion == motion or motion in o.directions for o in _rivals(objects, i, color, shape))
    ]


def _templates(meaning: Expression) -> tuple[str, ...]:
    if meaning.size is not None:
        return _SIZE[meaning.size]
    if meaning.motion is not None:
        return _MOTION[meaning.motion]
    return {"color": _COLOR, "shape": _SHAPE, "color_shape": _COLOR_SHAPE}[meaning.kind]


def _nouns(template: str) -> tuple[str, ...]:
    return _NOUNS if "{n}" in template else ("",)


def _say(template: str, meaning: Expression, noun: str, synonyms: bool) -> str:
    def word(name: str | None) -> str:
        return _SYNONYMS.get(name or "", name or "") if synonyms else (name or "")

    if meaning.kind in {"size", "motion"}:
        noun = f"{word(meaning.color)} {word(meaning.shape) or noun}".strip()
    text = template.format(c=word(meaning.color), s=word(meaning.shape), n=noun, m=meaning.motion)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)
