"""Text as small pictures: names of objects and titles, in whatever script people write."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from svac_backend.errors import SvacError

_PADDING = 3
# Pillow looks these up in the system's font folders. The first that knows every letter of a text is taken.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
)
_UNASSIGNED = "\uffff"  # no font has it, so it shows what a font draws for letters it does not know

_Font = ImageFont.FreeTypeFont


@lru_cache(maxsize=256)
def text_picture(text: str, size: int, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return one line of text on a coloured ground.

    Args:
        text: letters that no installed font knows are shown without their accents, or as `?`.
        size: height of the font in pixels.
        background: RGB 0..255; the ink is black or white, whichever is easier to read on it.

    Returns:
        u8 [h, w, 3] RGB, read-only; every text of one size has the same height, or nearly.
    """
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    font, text = _font_for(text, size)
    left, top, right, bottom = font.getbbox(text)
    _, usual_top, _, usual_bottom = font.getbbox("Ag")
    top, bottom = min(top, usual_top), max(bottom, usual_bottom)
    width, height = (int(np.ceil(side)) + 2 * _PADDING for side in (right - left, bottom - top))
    image = Image.new("RGB", (width, height), background)
    luminance = float(np.dot(background, (0.299, 0.587, 0.114)))
    ink = (0, 0, 0) if luminance > 120 else (255, 255, 255)
    ImageDraw.Draw(image).text((_PADDING - left, _PADDING - top), text, fill=ink, font=font)
    return np.asarray(image)


def _font_for(text: str, size: int) -> tuple[_Font, str]:
    """Return a font that knows every letter of the text, or else a font and a text plain enough for it."""
    fonts = [font for name in _FONTS if (font := _installed(name, size)) is not None]
    for font in fonts:
        if _knows(font, text):
            return font, text
    font = fonts[0] if fonts else _built_in(size)
    return font, "".join(letter if _knows(font, letter) else _plain(letter) for letter in text)


def _plain(letter: str) -> str:
    """Return the ASCII letter under an accent, or `?`."""
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode("ascii") or "?"


def _knows(font: _Font, text: str) -> bool:
    unknown = bytes(font.getmask(_UNASSIGNED))
    return all(letter == " " or bytes(font.getmask(letter)) != unknown for letter in set(text))


@lru_cache(maxsize=64)
def _installed(name: str, size: int) -> _Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # not on this system: the next name is tried
        return None


@lru_cache(maxsize=8)
def _built_in(size: int) -> _Font:
    font = ImageFont.load_default(size)  # knows ASCII only
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise SvacError(
            "This Pillow was built without FreeType.", "Install Pillow from a wheel: pip install pillow."
        )
    return font
