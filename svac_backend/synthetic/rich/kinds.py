"""What things can be: their names, families, which of them training never sees, and their pictures.

Pictures are the glyphs of Noto Color Emoji, where that font is installed: Debian and Ubuntu have it as
`fonts-noto-color-emoji`. Nothing of it is kept in this project.
"""

from __future__ import annotations

import logging
import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from svac_backend.errors import SvacError
from svac_backend.synthetic.shapes import COLORS, SHAPES, extent

_log = logging.getLogger(__name__)

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


# The only size at which the font has pictures.
_SIZE = 109
_NAME = "NotoColorEmoji.ttf"
_FOLDERS = (
    "/usr/share/fonts/truetype/noto",
    "/usr/share/fonts/noto",
    "/usr/share/fonts/google-noto-emoji",
    "/usr/share/fonts/noto-emoji",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
)
# Broad boxes of what might be called by a colour's name: hue in degrees, saturation and value 0..1.
_CALLED: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-18, 14), (0.5, 1), (0.35, 1)),
    "orange": ((10, 44), (0.5, 1), (0.6, 1)),
    "yellow": ((38, 68), (0.35, 1), (0.6, 1)),
    "green": ((68, 172), (0.2, 1), (0.2, 1)),
    "cyan": ((165, 205), (0.2, 1), (0.4, 1)),
    "blue": ((190, 255), (0.25, 1), (0.25, 1)),
    "purple": ((250, 315), (0.18, 1), (0.25, 1)),
    "pink": ((300, 370), (0.15, 0.75), (0.6, 1)),
    "white": ((0, 360), (0, 0.16), (0.8, 1)),
    "black": ((0, 360), (0, 1), (0, 0.25)),
    "gray": ((0, 360), (0, 0.3), (0.25, 0.88)),
    "brown": ((0, 45), (0.25, 1), (0.15, 0.75)),
}
_SOME = 0.05


@dataclass(frozen=True)
class Glyph:
    """A picture of a thing.

    Attributes:
        rgba: u8 [S, S, 4], not multiplied by coverage; its centre of area lies in the middle.
        radius: radius in pixels of the circle of equal area.
        colors: colour names that someone might give it.
    """

    rgba: NDArray[np.uint8]
    radius: float
    colors: frozenset[str]


@lru_cache(maxsize=1)
def font_file() -> Path | None:
    """Return the font, or None where it is not installed; `SVAC_EMOJI_FONT` names another place of it."""
    named = os.environ.get("SVAC_EMOJI_FONT")
    places = [Path(named)] if named else [Path(folder).expanduser() / _NAME for folder in _FOLDERS]
    return next((place for place in places if place.is_file()), None) if features.check("freetype2") else None


@lru_cache(maxsize=1)
def has_things() -> bool:
    """Return whether pictures of things can be drawn; says so once where they cannot."""
    if font_file() is None:
        _log.warning(
            "Noto Color Emoji is not installed: rich scenes have shapes only. Install fonts-noto-color-emoji."
        )
        return False
    return True


@lru_cache(maxsize=128)
def draw_glyph(name: str) -> Glyph:
    """Draw the glyph of a kind.

    Raises:
        SvacError: the font is missing or has no such picture.
    """
    path = font_file()
    if path is None:
        raise SvacError(
            f"There is no picture of a {name}: the font Noto Color Emoji is not installed.",
            "Install fonts-noto-color-emoji, or make scenes of shapes only (things=False).",
        )
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    pen = ImageDraw.Draw(canvas)
    pen.text((12, 12), chr(KINDS[name].code), font=_font(str(path)), embedded_color=True)
    picture = np.asarray(canvas)
    alpha = picture[..., 3].astype(np.float64) / 255
    area = alpha.sum()
    if area < 1000:
        raise SvacError(
            f"{path} has no picture of a {name}.", "Use the font of the package fonts-noto-color-emoji."
        )
    y, x = np.nonzero(alpha > 0.02)
    ys, xs = np.mgrid[: alpha.shape[0], : alpha.shape[1]]
    cx, cy = float((alpha * xs).sum() / area), float((alpha * ys).sum() / area)
    reach = int(np.ceil(max(np.abs(x - cx).max(), np.abs(y - cy).max()))) + 3
    side = 2 * reach + 1
    shift = np.array([[1, 0, reach - cx], [0, 1, reach - cy]])
    premultiplied = picture.copy()
    premultiplied[..., :3] = (picture[..., :3] * alpha[..., None]).round().astype(np.uint8)
    moved = cv2.warpAffine(premultiplied, shift, (side, side), flags=cv2.INTER_LINEAR)
    cover = np.maximum(moved[..., 3:].astype(np.float32), 1) / 255
    rgba: NDArray[np.uint8] = np.dstack([np.clip(moved[..., :3] / cover, 0, 255), moved[..., 3:]]).astype(
        np.uint8
    )
    return Glyph(rgba, float(np.sqrt(area / np.pi)), _colors(rgba))


@lru_cache(maxsize=128)
def reach_of(kind: str) -> float:
    """Return how far a thing reaches from its centre, in radii of the circle of equal area."""
    if not KINDS[kind].code:
        return extent(kind)
    glyph = draw_glyph(kind)
    y, x = np.nonzero(glyph.rgba[..., 3] > 100)
    middle = (len(glyph.rgba) - 1) / 2
    return float(np.hypot(y - middle, x - middle).max()) / glyph.radius


@lru_cache(maxsize=2)
def _font(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, _SIZE)


def _colors(rgba: NDArray[np.uint8]) -> frozenset[str]:
    """Return the names that a part of the picture could be called by."""
    seen = rgba[rgba[..., 3] > 200][:, :3].astype(np.float32) / 255
    hsv = cv2.cvtColor(seen[None], cv2.COLOR_RGB2HSV)[0]
    found = set()
    for name in COLORS:
        (low, high), (s0, s1), (v0, v1) = _CALLED[name]
        turned = (hsv[:, 0] - low) % 360
        inside = (turned <= high - low) & (hsv[:, 1] >= s0) & (hsv[:, 1] <= s1)
        inside &= (hsv[:, 2] >= v0) & (hsv[:, 2] <= v1)
        if inside.mean() > _SOME:
            found.add(name)
    return frozenset(found)
