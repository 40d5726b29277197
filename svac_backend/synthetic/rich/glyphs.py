"""Pictures of things: the glyphs of Noto Color Emoji, where that font is installed.

Debian and Ubuntu have it as `fonts-noto-color-emoji`. Nothing of it is kept in this project.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from svac_backend.errors import SvacError
from svac_backend.synthetic.rich.kinds import KINDS
from svac_backend.synthetic.shapes import extent
from svac_backend.synthetic.vocabulary import COLORS

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
