"""Sentences about short videos of photographs, by rule: kind, colour, clothes, place, size, several, absent things."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lab.train_tiny.photo_phrases import PEOPLE, Noun, missing, sayable
from lab.train_tiny.photographs import CLOTHES

# How often a kind of sentence is chosen where a video offers it.
KINDS: dict[str, float] = {
    "category": 3.0,
    "color": 1.5,
    "wearing": 1.2,
    "position": 1.0,
    "size": 0.4,
    "relation": 0.6,
    "several": 0.6,
    "absent": 1.3,
}
# A region is seen in a video where it covers this share of a frame, in the mean.
_SEEN = 1 / 500
# Hues in OpenCV's degrees, up to which a colour reaches.
_HUES = (
    (7, "red"),
    (20, "orange"),
    (33, "yellow"),
    (85, "green"),
    (130, "blue"),
    (150, "purple"),
    (172, "pink"),
)
# What people add, though a photograph does not tell: it changes nothing of what is meant.
TAILS = (
    *(
        "dancing",
        "running",
        "jumping",
        "walking",
        "standing",
        "sitting",
        "moving",
        "turning",
        "playing",
        "there",
    ),
    *("riding", "on the bike", "on the bicycle", "on the motorbike", "on the scooter", "on the horse"),
    *("on the skateboard", "on the board", "with the parachute", "in the air", "in the street"),
    *("in the middle", "in front", "in the picture", "in the video"),
)
_PERSON = re.compile(
    r"(the |all )?(?:(person|human|pedestrian|figure)|people|humans|pedestrians|figures)\.?", re.I
)
# Such a sentence says already where it is, with whom or in what.
_TOLD = re.compile(r" (on|in|at|of|and|with) ")
COLORS = ("black", "white", "grey", "brown", "red", "orange", "yellow", "green", "blue", "purple", "pink")


@dataclass(frozen=True)
class Sentence:
    """What is said, of what kind it is, and the regions that it means; none if it is not there."""

    text: str
    kind: str
    regions: tuple[int, ...]


def color_of(pixels: NDArray[np.uint8]) -> str | None:
    """Return the colour that most of the pixels, u8 [n, 3] RGB, have; None where none does by a margin."""
    if len(pixels) < 12:
        return None
    hue, saturation, value = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0].astype(int).T
    names = np.full(len(pixels), COLORS.index("red"))
    for limit, name in reversed(_HUES):
        names[hue <= limit] = COLORS.index(name)
    names[(hue >= 5) & (hue <= 20) & (value < 150)] = COLORS.index("brown")
    dull = saturation < 45
    names[dull & (value >= 175)] = COLORS.index("white")
    names[dull & (value < 175)] = COLORS.index("grey")
    names[(value < 55) | (dull & (value < 70))] = COLORS.index("black")
    counts = np.bincount(names, minlength=len(COLORS)) / len(names)
    first, second = np.argsort(counts)[::-1][:2]
    return COLORS[first] if counts[first] > 0.55 and counts[first] > 2.5 * counts[second] else None


class Speaker:
    """Says sentences about one video.

    Args:
        labels: of N regions.
        unmarked: what may be seen beside them.
        frames: u8 [T, S, S, 3].
        masks: bool [N, T, S, S].
    """

    def __init__(
        self,
        labels: Sequence[str],
        unmarked: frozenset[str],
        frames: NDArray[np.uint8],
        masks: NDArray[np.bool_],
    ) -> None:
        area = masks.mean((2, 3))  # [N, T]
        self.seen = [k for k in range(len(labels)) if area[k].mean() > _SEEN]
        faint = {labels[k] for k in range(len(labels)) if k not in self.seen and area[k].any()}
        self.labels, self.unmarked = labels, unmarked | faint
        self.masks, self.area = masks, area.mean(1)
        self.nouns = sayable([labels[k] for k in self.seen], self.unmarked)
        self.gone = missing([labels[k] for k in self.seen], self.unmarked)
        self.colors = {k: self._color(frames, masks[k], int(area[k].argmax())) for k in self.seen}
        places = {k: np.nonzero(masks[k])[:0:-1] for k in self.seen}  # x and y
        sides = masks.shape[:1:-1]
        self.where = {
            k: tuple(float(line.mean()) / side for line, side in zip(lines, sides, strict=True))
            for k, lines in places.items()
        }

    @staticmethod
    def _color(frames: NDArray[np.uint8], mask: NDArray[np.bool_], t: int) -> str | None:
        return color_of(frames[t][mask[t]])

    def say(self, rng: np.random.Generator, count: int) -> list[Sentence]:
        """Return `count` sentences, kinds first; fewer kinds where the video offers fewer, none where it has none."""
        makers: dict[str, Callable[[np.random.Generator], list[Sentence]]] = {
            "category": self._categories,
            "color": self._colors,
            "wearing": self._wearing,
            "position": self._positions,
            "size": self._sizes,
            "relation": self._relations,
            "several": self._several,
            "absent": self._absent,
        }
        made = {kind: found for kind, make in makers.items() if (found := make(rng))}
        if not made:
            return []
        kinds = [*made]
        weights = np.array([KINDS[kind] for kind in kinds])
        told = []
        for _ in range(count):
            of_kind = made[kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]]
            told.append(_varied(rng, of_kind[int(rng.integers(len(of_kind)))]))
        return told

    def meant(self, noun: Noun) -> tuple[int, ...]:
        """Return the regions that a noun means."""
        return tuple(k for k in self.seen if self.labels[k] in noun.labels)

    def _categories(self, _: np.random.Generator) -> list[Sentence]:
        found = []
        for noun in self.nouns:
            regions = self.meant(noun)
            many = len(regions) > 1 and not _overlap(self.masks, regions)
            if many:
                texts = [f"the {noun.plural}", f"all {noun.plural}", noun.plural]
            else:
                texts = [f"the {noun.word}", f"the {noun.word}", noun.word]
            if noun.labels == {noun.word}:  # what it is called by most people
                texts *= 3
            found += [Sentence(text, "category", regions) for text in texts]
        return found

    def _colors(self, rng: np.random.Generator) -> list[Sentence]:
        found = []
        for noun in self.nouns:
            regions = self.meant(noun)
            colors = [self.colors[k] for k in regions]
            if None in colors:
                continue
            for color in sorted({color for color in colors if color}):
                chosen = tuple(k for k, of in zip(regions, colors, strict=True) if of == color)
                word = noun.plural if len(chosen) > 1 else noun.word
                found.append(Sentence(f"the {color} {word}", "color", chosen))
            strange = [color for color in ("red", "blue", "green", "yellow", "pink") if color not in colors]
            if rng.random() < 0.3 and not {"orange", "purple", "brown"} & set(colors):
                found.append(
                    Sentence(f"the {strange[int(rng.integers(len(strange)))]} {noun.word}", "absent", ())
                )
        return found

    def _people(self) -> dict[int, dict[str, int]]:
        """Return the people whose clothes are marked, and their clothes by label."""
        people: dict[int, dict[str, int]] = {}
        for person in (k for k in self.seen if self.labels[k] == "person"):
            own: dict[str, int] = {}
            for k in self.seen:
                if self.labels[k] in CLOTHES - {"skin"}:
                    both = (self.masks[k] & self.masks[person]).sum()
                    if both > 0.8 * self.masks[k].sum():
                        own[self.labels[k]] = k
            if own:
                people[person] = own
        return people

    def _wearing(self, _: np.random.Generator) -> list[Sentence]:
        found: list[Sentence] = []
        people = self._people()
        if len(people) < sum(self.labels[k] == "person" for k in self.seen):
            return []  # of some nobody knows what they wear
        worn = sorted({label for own in people.values() for label in own} - {"hair"})
        for label in worn:
            if label in self.unmarked:
                continue
            who = tuple(person for person, own in people.items() if label in own)
            subject = "people" if len(who) > 1 else "person"
            word = label if Noun(label, frozenset()).plural == label else f"a {label}"
            how = (
                "with"
                if label in {"bag", "purse", "wallet", "glasses", "sunglasses", "hat", "scarf"}
                else "in"
            )
            found.append(Sentence(f"the {subject} {how} {word}", "wearing", who))
            colors = {person: self.colors[own[label]] for person, own in people.items() if label in own}
            if None in colors.values():
                continue
            for color in sorted({color for color in colors.values() if color}):
                who = tuple(person for person, of in colors.items() if of == color)
                subject = "people" if len(who) > 1 else "person"
                the = "" if word == label else "the "
                found.append(Sentence(f"the {subject} {how} {the}{color} {label}", "wearing", who))
        return found

    def _pairs(self) -> list[tuple[Noun, tuple[int, ...]]]:
        """Return nouns for two things or more that lie apart."""
        every = [(noun, self.meant(noun)) for noun in self.nouns]
        return [
            (noun, regions)
            for noun, regions in every
            if 2 <= len(regions) <= 4 and not _overlap(self.masks, regions)
        ]

    def _positions(self, _: np.random.Generator) -> list[Sentence]:
        found = []
        for noun, regions in self._pairs():
            for axis, names in enumerate((("left", "right"), ("top", "bottom"))):
                order = sorted(regions, key=lambda k: self.where[k][axis])
                for end, next_, name in ((order[0], order[1], names[0]), (order[-1], order[-2], names[1])):
                    if abs(self.where[end][axis] - self.where[next_][axis]) < 0.12:
                        continue
                    texts = [f"the {noun.word} {'on the' if axis == 0 else 'at the'} {name}"]
                    if axis == 0:
                        texts += [f"the {name} {noun.word}", f"the {name}most {noun.word}"]
                    found += [Sentence(text, "position", (end,)) for text in texts]
        return found

    def _sizes(self, _: np.random.Generator) -> list[Sentence]:
        found = []
        for noun, regions in self._pairs():
            order = sorted(regions, key=lambda k: self.area[k])
            pairs = ((order[-1], order[-2], ("largest", "big")), (order[0], order[1], ("smallest", "small")))
            for one, other, words in pairs:
                ratio = self.area[one] / self.area[other]
                if max(ratio, 1 / ratio) > 1.6:
                    found += [Sentence(f"the {word} {noun.word}", "size", (one,)) for word in words]
        return found

    def _relations(self, _: np.random.Generator) -> list[Sentence]:
        found = []
        pairs = self._pairs()
        single = [(noun, regions[0]) for noun in self.nouns if len(regions := self.meant(noun)) == 1]
        for noun, regions in pairs:
            for anchor, at in single:
                if anchor.labels & noun.labels or _overlap(self.masks, (*regions, at)):
                    continue
                left = tuple(k for k in regions if self.where[k][0] < self.where[at][0] - 0.1)
                right = tuple(k for k in regions if self.where[k][0] > self.where[at][0] + 0.1)
                for side, chosen in (("left", left), ("right", right)):
                    if len(chosen) == 1 and len(left) + len(right) == len(regions):
                        found.append(
                            Sentence(f"the {noun.word} {side} of the {anchor.word}", "relation", chosen)
                        )
        return found

    def _several(self, rng: np.random.Generator) -> list[Sentence]:
        found = []
        for _ in range(3):
            if len(self.nouns) < 2:
                break
            one, other = (self.nouns[k] for k in rng.choice(len(self.nouns), 2, replace=False))
            if one.labels & other.labels:
                continue
            regions = tuple(sorted({*self.meant(one), *self.meant(other)}))
            words = [noun.plural if len(self.meant(noun)) > 1 else noun.word for noun in (one, other)]
            found.append(Sentence(f"the {words[0]} and the {words[1]}", "several", regions))
        return found

    def _absent(self, rng: np.random.Generator) -> list[Sentence]:
        if not self.gone:
            return []
        chosen = rng.choice(len(self.gone), min(4, len(self.gone)), replace=False)
        return [Sentence(f"the {self.gone[k].word}", "absent", ()) for k in chosen]


def _overlap(masks: NDArray[np.bool_], regions: Sequence[int]) -> bool:
    """Say whether regions share more than their edges: parts of one thing."""
    return bool((masks[list(regions)].sum(0) > 1).mean() > 1e-3)


def varied(rng: np.random.Generator, text: str) -> str:
    """Say the same in other words now and then: what people are called, and what is added to a phrase."""
    if (found := _PERSON.fullmatch(text)) and rng.random() < 0.25:
        noun = Noun(PEOPLE[int(rng.integers(len(PEOPLE)))], frozenset())
        text = f"{found[1] or ''}{noun.word if found[2] else noun.plural}"
    return tailed(rng, text)


def tailed(rng: np.random.Generator, text: str) -> str:
    """Add what changes nothing of what is meant, now and then."""
    if not _TOLD.search(text) and rng.random() < 0.2:
        text = f"{text.rstrip('.')} {TAILS[int(rng.integers(len(TAILS)))]}"
    return text


def _varied(rng: np.random.Generator, said: Sentence) -> Sentence:
    text = said.text
    if rng.random() < 0.08:
        text += "."
    if rng.random() < 0.08:
        text = text.capitalize()
    if rng.random() < 0.06 and text.startswith("the "):
        text = text.removeprefix("the ")
    return Sentence(text, said.kind, said.regions)
