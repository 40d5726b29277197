"""Referring expressions: sentences that mean exactly one object of a scene."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from svac_backend.synthetic.shapes import COLORS, DIRECTIONS, SHAPES, ObjectSpec

Kind = Literal["color", "shape", "color_shape", "size", "motion"]
KINDS: tuple[Kind, ...] = ("color", "shape", "color_shape", "size", "motion")
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


@dataclass(frozen=True)
class _Meaning:
    """What an expression says, before the words are chosen."""

    kind: Kind
    target: int
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
        result += [
            Expression(
                text,
                meaning.kind,
                (meaning.target,),
                meaning.color,
                meaning.shape,
                meaning.size,
                meaning.motion,
            )
            for text in dict.fromkeys(texts)
        ]
    return result


def words() -> list[str]:
    """Return every word that an expression can contain, sorted: the vocabulary a tokenizer must know."""
    texts = [
        *_COLOR,
        *_SHAPE,
        *_COLOR_SHAPE,
        *COLORS,
        *SHAPES,
        *DIRECTIONS,
        *_NOUNS,
        *_SYNONYMS.values(),
        "an",
    ]
    texts += [template for group in (*_SIZE.values(), *_MOTION.values()) for template in group]
    return sorted({word for text in texts for word in re.sub(r"\{.\}", " ", text).split()})


def _meanings(objects: Sequence[ObjectSpec]) -> list[_Meaning]:
    found: list[_Meaning] = []
    for i, spec in enumerate(objects):
        color, shape = spec.color, spec.shape
        if _only(objects, i, lambda o, c=color: o.color == c):  # type: ignore[misc]
            found.append(_Meaning("color", i, color=color))
        if _only(objects, i, lambda o, s=shape: o.shape == s):  # type: ignore[misc]
            found.append(_Meaning("shape", i, shape=shape))
        if _only(objects, i, lambda o, c=color, s=shape: o.color == c and o.shape == s):  # type: ignore[misc]
            found.append(_Meaning("color_shape", i, color=color, shape=shape))
        found += _sizes(objects, i)
        found += _motions(objects, i)
    return found


def _sizes(objects: Sequence[ObjectSpec], i: int) -> list[_Meaning]:
    spec = objects[i]
    found: list[_Meaning] = []
    for shape in (None, spec.shape):
        rivals = [o for k, o in enumerate(objects) if k != i and shape in (None, o.shape)]
        if not rivals:
            continue
        if all(spec.radius >= SIZE_MARGIN * o.radius for o in rivals):
            found.append(_Meaning("size", i, shape=shape, size="largest"))
        if all(spec.radius * SIZE_MARGIN <= o.radius for o in rivals):
            found.append(_Meaning("size", i, shape=shape, size="smallest"))
        if all(o.size != spec.size for o in rivals):
            found.append(_Meaning("size", i, shape=shape, size=spec.size))
    return found


def _motions(objects: Sequence[ObjectSpec], i: int) -> list[_Meaning]:
    spec = objects[i]
    found: list[_Meaning] = []
    if spec.motion not in _MOTION:
        return found
    for color, shape in ((None, None), (spec.color, None), (None, spec.shape)):
        rivals = [
            o
            for k, o in enumerate(objects)
            if k != i and color in (None, o.color) and shape in (None, o.shape)
        ]
        if not any(o.motion == spec.motion or spec.motion in o.directions for o in rivals):
            found.append(_Meaning("motion", i, color=color, shape=shape, motion=spec.motion))
    return found


def _only(objects: Sequence[ObjectSpec], i: int, test: Callable[[ObjectSpec], bool]) -> bool:
    return all(test(o) == (k == i) for k, o in enumerate(objects))


def _templates(meaning: _Meaning) -> tuple[str, ...]:
    if meaning.size is not None:
        return _SIZE[meaning.size]
    if meaning.motion is not None:
        return _MOTION[meaning.motion]
    return {"color": _COLOR, "shape": _SHAPE, "color_shape": _COLOR_SHAPE}[meaning.kind]


def _nouns(template: str) -> tuple[str, ...]:
    return _NOUNS if "{n}" in template else ("",)


def _say(template: str, meaning: _Meaning, noun: str, synonyms: bool) -> str:
    def word(name: str | None) -> str:
        return _SYNONYMS.get(name or "", name or "") if synonyms else (name or "")

    if meaning.kind in {"size", "motion"}:
        noun = f"{word(meaning.color)} {word(meaning.shape) or noun}".strip()
    text = template.format(c=word(meaning.color), s=word(meaning.shape), n=noun, m=meaning.motion)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)
