"""Nouns: what a thing can be called, and of which things that is true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svac_backend.synthetic.rich.clauses import Truth
from svac_backend.synthetic.rich.description import Look
from svac_backend.synthetic.rich.glyphs import draw_glyph
from svac_backend.synthetic.rich.kinds import FAMILIES, HELD_OUT_KINDS, KINDS, PATTERNED, held_out_pair, is_a

_SAID_TEXTURES = frozenset({"striped", "dotted", "checked"})
# A glyph dyed in the first has parts that could be called by the others.
_SHADES = {"orange": {"brown"}, "yellow": {"orange", "brown"}, "pink": {"red", "purple"}, "cyan": {"blue"}}


@dataclass(frozen=True)
class Noun:
    """A name with what is put before it.

    Attributes:
        color, texture: said before the name, or None.
        name: a kind's first name or a family; None says "object".
        truth: i8 [N].
    """

    color: str | None
    texture: str | None
    name: str | None
    truth: Truth

    @property
    def plain(self) -> bool:
        """Whether it says nothing."""
        return self.color is None and self.texture is None and self.name is None

    @property
    def novel(self) -> tuple[str, ...]:
        """What of it training never says: `kind`, `combination`."""
        found = []
        if self.name in HELD_OUT_KINDS:
            found.append("kind")
        if self.color and self.name in KINDS and held_out_pair(self.color, self.name):
            found.append("combination")
        return tuple(found)


def color_truth(look: Look, color: str) -> int:
    """Return whether a look is called by a colour's name: 1, 0 where people differ, -1."""
    if look.color is None:
        return 0 if color in draw_glyph(look.kind).colors else -1
    if look.color == color:
        return 1
    textured = look.texture in _SAID_TEXTURES and color == look.second
    dyed = KINDS[look.kind].code and color in _SHADES.get(look.color, ())
    return 0 if textured or dyed else -1


def texture_truth(look: Look, texture: str) -> int:
    """Return whether a look is called by a texture's name: 1, 0 where people differ, -1."""
    if look.texture == texture:
        return 1
    return 0 if look.kind in PATTERNED else -1


def name_truth(look: Look, name: str) -> int:
    """Return whether a look is called by a kind's or family's name: 1, 0 where people differ, -1."""
    if name in FAMILIES:
        return 1 if KINDS[look.kind].family == name else -1
    return is_a(look.kind, name)


def make_noun(
    looks: tuple[Look, ...], color: str | None = None, texture: str | None = None, name: str | None = None
) -> Noun:
    """Judge a noun for all things."""
    truth = np.ones(len(looks), np.int8)
    for n, look in enumerate(looks):
        if color is not None:
            truth[n] = min(truth[n], color_truth(look, color))
        if texture is not None:
            truth[n] = min(truth[n], texture_truth(look, texture))
        if name is not None:
            truth[n] = min(truth[n], name_truth(look, name))
    return Noun(color, texture, name, truth)


def nouns_of(looks: tuple[Look, ...]) -> list[Noun]:
    """Return every noun that is true of some thing, the plain one first."""
    said: dict[tuple[str | None, str | None, str | None], None] = {(None, None, None): None}
    for look in looks:
        family = KINDS[look.kind].family or None
        texture = look.texture if look.texture in _SAID_TEXTURES else None
        for name in (None, family, look.kind):
            said[None, None, name] = None
            if look.color:
                said[look.color, None, name] = None
            if texture and name != family:
                said[None, texture, name] = None
    if any(look.color and look.texture in _SAID_TEXTURES for look in looks):
        for look in looks:
            if look.texture in _SAID_TEXTURES:
                said[look.color, look.texture, look.kind] = None
    return [make_noun(looks, color, texture, name) for color, texture, name in said]
