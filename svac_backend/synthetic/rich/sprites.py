"""Things drawn once per scene: shapes with textures, and glyphs in their own or another colour."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.rich.description import Look
from svac_backend.synthetic.rich.glyphs import draw_glyph
from svac_backend.synthetic.rich.kinds import KINDS
from svac_backend.synthetic.shapes import Sprite, extent, outline

_SHIFT = 4
_RING_HOLE = 0.55
_SECOND = {"white": 238.0, "black": 26.0}


def draw_thing(look: Look, radius_px: float, rng: np.random.Generator) -> Sprite:
    """Draw a thing upright.

    Args:
        look: what it looks like.
        radius_px: radius of the circle of equal area, in pixels.
        rng: of shading and grain, which change nothing that is said.

    Returns:
        The sprite, RGB multiplied by coverage.
    """
    shade, grain = rng.uniform(0.0, 0.16), rng.uniform(0.0, 0.07)
    turn, rim = rng.uniform(0, 2 * np.pi), rng.random() < 0.25
    cells = rng.uniform(-1, 1, (12, 12)).astype(np.float32)
    if KINDS[look.kind].family != "shape":
        return _glyph(look, radius_px, shade * np.cos(turn))
    return _shape(look, radius_px, shade, grain, turn, rim, cells)


def _shape(
    look: Look,
    radius_px: float,
    shade: float,
    grain: float,
    turn: float,
    rim: bool,
    cells: NDArray[np.float32],
) -> Sprite:
    reach = extent(look.kind) * radius_px + 2.5  # OpenCV fills up to a pixel beyond
    side = 2 * int(np.ceil(reach)) + 1
    centre = (side - 1) / 2
    coverage = np.zeros((side, side), np.uint8)
    points = outline(look.kind) * radius_px + centre
    cv2.fillPoly(coverage, [_fixed(points)], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    if look.kind == "ring":
        hole = outline("circle") * (radius_px * _RING_HOLE) + centre
        cv2.fillPoly(coverage, [_fixed(hole)], 0, lineType=cv2.LINE_AA, shift=_SHIFT)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    light = 1 + shade * (np.cos(turn) * ramp[None, :] + np.sin(turn) * ramp[:, None])
    amount = 0.3 if look.texture == "grainy" else grain
    light = light + amount * cv2.resize(cells, (side, side), interpolation=cv2.INTER_LINEAR)
    surface = light[:, :, None] * np.asarray(look.rgb, np.float32) + ((light - 1) * 40)[:, :, None]
    pattern = _pattern(look, side, radius_px)
    if pattern is not None:
        surface += pattern[:, :, None] * (_SECOND[look.second] * light[:, :, None] - surface)
    if rim and radius_px >= 9 and look.kind != "ring":
        line = np.zeros((side, side), np.uint8)
        width = max(1, round(0.15 * radius_px))
        cv2.polylines(line, [_fixed(points)], True, 255, width, lineType=cv2.LINE_AA, shift=_SHIFT)
        surface *= (1 - line.astype(np.float32) * (0.4 / 255))[:, :, None]
    np.clip(surface, 0, 255, out=surface)
    surface *= (coverage.astype(np.float32) / 255)[:, :, None]
    return Sprite(np.dstack([surface.astype(np.uint8), coverage]), reach)


def _pattern(look: Look, side: int, radius_px: float) -> NDArray[np.float32] | None:
    """Return the share of the second colour, f32 [side, side]; None where there is none."""
    if look.texture not in {"striped", "dotted", "checked"}:
        return None
    line = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / radius_px
    x = np.cos(look.turn) * line[None, :] + np.sin(look.turn) * line[:, None]
    y = -np.sin(look.turn) * line[None, :] + np.cos(look.turn) * line[:, None]
    u, v = np.sin(np.pi * look.cells * x), np.sin(np.pi * look.cells * y)
    sharp = np.float32(radius_px / 5)
    if look.texture == "striped":
        value = u - 0.25
    elif look.texture == "checked":
        value = u * v * 1.5
    else:
        value = np.cos(np.pi * look.cells * 1.15 * x) * np.cos(np.pi * look.cells * 1.15 * y) - 0.45
    return np.clip(value * sharp + 0.5, 0, 1).astype(np.float32)


def _glyph(look: Look, radius_px: float, light: float) -> Sprite:
    rgba, radius = _dyed(look.kind, look.rgb if look.color else None)
    size = max(3, round(rgba.shape[0] * radius_px / radius))
    way = cv2.INTER_AREA if size < rgba.shape[0] else cv2.INTER_LINEAR
    small = cv2.resize(rgba, (size, size), interpolation=way)
    if look.flip:
        small = np.ascontiguousarray(small[:, ::-1])
    colors = np.minimum(small[..., :3].astype(np.float32) * (1 + light), small[..., 3:])
    return Sprite(np.dstack([colors.astype(np.uint8), small[..., 3]]), size / 2 + 1.0)


@lru_cache(maxsize=256)
def _dyed(kind: str, rgb: tuple[int, int, int] | None) -> tuple[NDArray[np.uint8], float]:
    """Return a glyph, multiplied by coverage, in its own colours or in light and shade of one."""
    glyph = draw_glyph(kind)
    colors = glyph.rgba[..., :3].astype(np.float32)
    cover = glyph.rgba[..., 3:].astype(np.float32) / 255
    if rgb is not None:
        bright = colors @ np.array([0.299, 0.587, 0.114], np.float32)
        inside = cover[..., 0] > 0.5
        mean = float(bright[inside].mean())
        share = np.clip((bright / max(mean, 1.0) - 1) * 0.75 + 1, 0.4, 1.3)[..., None]
        colors = np.clip(share * np.asarray(rgb, np.float32) + np.maximum(share - 1, 0) * 90, 0, 255)
    return np.dstack([(colors * cover).astype(np.uint8), glyph.rgba[..., 3]]), glyph.radius


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return coordinates as the fixed-point numbers that OpenCV draws with."""
    return np.round(points * (1 << _SHIFT)).astype(np.int32)
