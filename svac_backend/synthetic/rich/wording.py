"""Sentences for what is meant, out of the wordings of `words`."""

from __future__ import annotations

import re

import numpy as np

from svac_backend.synthetic.rich.kinds import KINDS, plural
from svac_backend.synthetic.rich.nouns import Noun
from svac_backend.synthetic.rich.words import WORDINGS

_GENERIC = ("object", "thing", "one")
_SYNONYM_SHARE, _FRAME_SHARE = 0.2, 0.12
_COMMANDS = ("find {t}", "segment {t}", "show me {t}", "track {t}", "please segment {t}", "{t}.")


def wordings(key: str, *, held_out: bool | None) -> tuple[str, ...]:
    """Return the wordings of a key: those of training, those kept from it, or (None) all."""
    return tuple(w.lstrip("*") for w in WORDINGS[key] if held_out is None or w.startswith("*") == held_out)


def name_of(noun: Noun, rng: np.random.Generator, *, many: bool = False) -> str:
    """Return a noun in words, without article."""
    return " ".join([*_adjectives(noun, rng), _base(noun, rng, many=many)])


def say(
    key: str,
    noun: Noun,
    others: tuple[Noun, ...],
    rng: np.random.Generator,
    *,
    count: int = 1,
    held_out: bool = False,
) -> str:
    """Return a sentence, lower case, nearly always without a full stop.

    Args:
        key: what is said of the noun; `noun` and `color` say nothing else.
        others: the things that it speaks of.
        count: of the things meant; more than one is said in the plural.
        held_out: in words that training does not use.
    """
    many = count > 1
    choice = wordings(key, held_out=held_out)
    template = choice[int(rng.integers(len(choice)))]
    base = _base(noun, rng, many=many)
    text = " ".join([*_adjectives(noun, rng), base])
    named = {slot: f"the {name_of(n, rng)}" for slot, n in zip("xy", others, strict=False)}
    body = template if "{n}" in template or "{b}" in template else "{n} " + template
    body = re.sub(r"([\w']+)\|([\w']+)", r"\2" if many else r"\1", body)
    asks = template.startswith("that ") and template[5] != "{" and rng.random() < _FRAME_SHARE
    if asks and not held_out:
        return body.replace("{n} that ", f"which {text} ").format(**named) + "?"
    article = _article(rng, count) if key in {"noun", "color"} else _the(rng, count)
    said = (article + body).format(n=text, b=base, c=noun.color, **named)
    said = re.sub(r"\ba (?=[aeiou])", "an ", said)
    if rng.random() < _FRAME_SHARE:
        said = _COMMANDS[int(rng.integers(len(_COMMANDS)))].format(t=said)
    return said


def _base(noun: Noun, rng: np.random.Generator, *, many: bool) -> str:
    if noun.name is None:
        name = _GENERIC[int(rng.integers(3))]
    else:
        names = KINDS[noun.name].names if noun.name in KINDS else (noun.name,)
        other = len(names) > 1 and rng.random() < _SYNONYM_SHARE
        name = names[int(rng.integers(1, len(names)))] if other else names[0]
    return plural(name) if many else name


def _adjectives(noun: Noun, rng: np.random.Generator) -> list[str]:
    words = [w for w in (noun.texture, noun.color) if w]
    if noun.color == "gray" and rng.random() < _SYNONYM_SHARE:
        words[-1] = "grey"
    return words[::-1] if len(words) == 2 and rng.random() < 0.3 else words


def _article(rng: np.random.Generator, count: int) -> str:
    if count > 1:
        return _the(rng, count)
    return ("the ", "the ", "the ", "a ", "")[int(rng.integers(5))]


def _the(rng: np.random.Generator, count: int) -> str:
    if count == 1:
        return "the "
    number = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}.get(count)
    choice = (
        ["the ", "all ", "all the "]
        + ([f"the {number} "] if number else [])
        + (["both "] if count == 2 else [])
    )
    return choice[int(rng.integers(len(choice)))]
