"""What objects can be: their names, families, and which of them training never sees."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from svac_backend.synthetic.vocabulary import SHAPES

# Family -> "code point, name, other names"; code points are those of Unicode emoji.
_GLYPHS: dict[str, str] = {
    "animal": (
        "1F415 dog puppy|1F408 cat kitty|1F40E horse|1F404 cow|1F416 pig|1F411 sheep lamb|1F418 elephant"
        "|1F407 rabbit bunny|1F41F fish|1F426 bird|1F986 duck|1F438 frog|1F422 turtle tortoise|1F40D snake"
        "|1F98B butterfly|1F40C snail|1F577 spider|1F419 octopus|1F980 crab|1F427 penguin|1F433 whale|1F981 lion"
        "|1F412 monkey|1F989 owl"
    ),
    "vehicle": (
        "1F697 car automobile|1F68C bus|1F69A truck lorry|1F682 locomotive|1F6B2 bicycle bike|1F3CD motorcycle"
        "|2708 airplane plane|1F681 helicopter|1F680 rocket|26F5 sailboat|1F69C tractor"
    ),
    "fruit": (
        "1F34E apple|1F34C banana|1F353 strawberry|1F34B lemon|1F347 bunch_of_grapes|1F34D pineapple|1F350 pear"
    ),
    "plant": "1F333 tree|1F33B sunflower|1F335 cactus|1F344 mushroom",
    "": (
        "26BD soccer_ball|1F3C0 basketball|1F388 balloon|2602 umbrella|1F3B8 guitar|1F4D5 book"
        "|23F0 alarm_clock|1F511 key|1F3A9 hat|1F45F shoe sneaker|1F4F7 camera|1FA91 chair|1F514 bell"
        "|1F381 gift present|1F528 hammer|1F916 robot|1F3E0 house|26C4 snowman|1F451 crown|1F9F8 teddy_bear"
        "|1F355 slice_of_pizza|1F382 cake|1F955 carrot|1F6B6 person pedestrian"
    ),
}
_SHAPE_NAMES = {"ellipse": ("ellipse", "oval"), "ring": ("ring", "donut"), "cross": ("cross", "plus sign")}
_PLURALS = {
    "sheep": "sheep",
    "fish": "fish",
    "person": "people",
    "bus": "buses",
    "snowman": "snowmen",
    "cross": "crosses",
    "octopus": "octopuses",
    "slice of pizza": "slices of pizza",
    "bunch of grapes": "bunches of grapes",
}
# Never drawn in training: a model meets them as "the animal", "the blue object" or "the one that stops".
HELD_OUT_KINDS: frozenset[str] = frozenset(
    {
        "frog",
        "owl",
        "lion",
        "tractor",
        "motorcycle",
        "pear",
        "cactus",
        "hammer",
        "camera",
        "crown",
        "pentagon",
    }
)
# A sentence about the first word may or may not mean what is called by the others: then it is not said.
_DOUBTFUL: tuple[frozenset[str], ...] = (
    frozenset({"square", "diamond"}),
    frozenset({"circle", "ellipse"}),
    frozenset({"pentagon", "hexagon"}),
    frozenset({"circle", "ring", "soccer ball", "basketball"}),
    frozenset({"bird", "duck", "owl", "penguin"}),
    frozenset({"tree", "cactus"}),
    frozenset({"car", "truck", "bus", "tractor", "locomotive"}),
    frozenset({"bicycle", "motorcycle"}),
)
# Their own look has stripes or spots.
PATTERNED: frozenset[str] = frozenset(
    {
        "butterfly",
        "mushroom",
        "soccer ball",
        "balloon",
        "strawberry",
        "turtle",
        "snake",
        "snail",
        "fish",
        "cow",
    }
    | {"pineapple", "gift", "cake", "umbrella", "bunch of grapes", "basketball", "slice of pizza"}
)
# Turning these by any angle changes nothing that can be seen.
ROUND: frozenset[str] = frozenset({"circle", "ring"})


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        name: its first name, which is unique.
        names: all its names.
        family: `animal`, `vehicle`, `fruit`, `plant`, `shape`, or empty.
        code: its emoji; 0 for shapes.
    """

    name: str
    names: tuple[str, ...]
    family: str
    code: int = 0


def _kinds() -> dict[str, Kind]:
    found = {s: Kind(s, _SHAPE_NAMES.get(s, (s,)), "shape") for s in SHAPES}
    for family, text in _GLYPHS.items():
        for entry in text.split("|"):
            code, *names = entry.split()
            spoken = tuple(name.replace("_", " ") for name in names)
            found[spoken[0]] = Kind(spoken[0], spoken, family, int(code, 16))
    return found


KINDS: dict[str, Kind] = _kinds()
FAMILIES: tuple[str, ...] = ("animal", "vehicle", "fruit", "plant", "shape")
# Colours that a glyph is dyed in; neutral ones would hide what it shows.
DYES: tuple[str, ...] = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown")


def held_out_pair(color: str, kind: str) -> bool:
    """Return whether training never shows this kind in this colour; about one pair in nine."""
    return zlib.crc32(f"{color} {kind}".encode()) % 9 == 4


def allowed(color: str | None, kind: str) -> bool:
    """Return whether training may show this kind in this colour; None is its own look."""
    return kind not in HELD_OUT_KINDS and not (color is not None and held_out_pair(color, kind))


def is_a(kind: str, name: str) -> int:
    """Return whether a kind is called `name` (a kind's first name): 1, 0 where people differ, -1."""
    if kind == name:
        return 1
    return 0 if any(kind in group and name in group for group in _DOUBTFUL) else -1


def plural(name: str) -> str:
    """Return the plural of a name."""
    if name in _PLURALS:
        return _PLURALS[name]
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")
