"""Outlines of the shapes, and sprites: an object's colour and coverage, drawn once and pasted on every frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

_SHIFT = 4  # fractional bits of cv2.fillPoly's coordinates
_RING_HOLE = 0.55
# Largest tilt in degrees at which a shape still deserves its name (a square on its corner is a diamond); shapes
# that are missing turn freely.
MAX_TILT: dict[str, float] = {"square": 18, "cross": 20, "heart": 30, "diamond": 15}


@lru_cache(maxsize=32)
def outline(shape: str) -> NDArray[np.float64]:
    """Return the outline of a shape, f64 [K, 2] (x right, y down), around the origin with the unit circle's area.

    Raises:
        KeyError: for a shape that does not exist.
    """
    if shape in {"circle", "ring"}:
        points = _regular(48)
    elif shape == "ellipse":
        points = _regular(48) * (1.0, 0.54)
    elif shape == "star":
        points = _regular(10)
        points[1::2] *= 0.44
    elif shape == "heart":
        t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        points = np.stack([16 * np.sin(t) ** 3, -y], axis=1)
    elif shape == "cross":
        a, b = 0.36, 1.0
        points = np.array(
            [
                (-a, -b),
                (a, -b),
                (a, -a),
                (b, -a),
                (b, a),
                (a, a),
                (a, b),
                (-a, b),
                (-a, a),
                (-b, a),
                (-b, -a),
                (-a, -a),
            ]
        )
    elif shape == "diamond":
        points = _regular(4) * (0.62, 1.0)
    else:
        sides = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}[shape]
        points = _regular(sides)
        if shape == "square":
            points = np.array([(-1.0, -1), (1, -1), (1, 1), (-1, 1)])
    x, y = points.T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum() / 2
    centre = ((points + np.roll(points, -1, axis=0)) * cross[:, None]).sum(axis=0) / (6 * area)
    return (points - centre) * np.sqrt(np.pi / abs(area))


def extent(shape: str) -> float:
    """Return the distance of the outline's farthest point from its centre, in radii."""
    return float(np.linalg.norm(outline(shape), axis=1).max())


@dataclass(frozen=True)
class Sprite:
    """An object drawn once, ready to be warped onto frames.

    Attributes:
        color: u8 [S, S, 3], RGB multiplied by coverage.
        clear: u8 [S, S, 3], 255 minus coverage, three times (as OpenCV multiplies equal channels fastest).
        reach: distance in sprite pixels from the centre within which everything lies.
    """

    color: NDArray[np.uint8]
    clear: NDArray[np.uint8]
    reach: float


def draw_sprite(shape: str, rgb: tuple[int, int, int], radius_px: float, rng: np.random.Generator) -> Sprite:
    """Draw a shape with slight shading and texture.

    Args:
        radius_px: radius of the circle of equal area, in pixels.
    """
    reach = extent(shape) * radius_px + 1.5
    side = 2 * int(np.ceil(reach)) + 1
    centre = (side - 1) / 2
    coverage = np.zeros((side, side), np.uint8)
    _fill(coverage, outline(shape) * radius_px + centre, 255)
    if shape == "ring":
        _fill(coverage, outline("circle") * (radius_px * _RING_HOLE) + centre, 0)

    # Light falls from one side; a coarse noise makes the surface uneven. Both stay within the colour's name.
    depth, turn = rng.uniform(0.0, 0.13), rng.uniform(0, 2 * np.pi)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    shade = 1 + depth * (np.cos(turn) * ramp[None, :] + np.sin(turn) * ramp[:, None])
    grain = rng.uniform(0.0, 0.06)
    cells = rng.uniform(-grain, grain, (int(rng.integers(3, 9)),) * 2).astype(np.float32)
    shade = (shade + cv2.resize(cells, (side, side), interpolation=cv2.INTER_LINEAR)).astype(np.float32)
    # Black stays black under a multiplication, so some of the light is added.
    surface = shade[:, :, None] * np.asarray(rgb, np.float32) + ((shade - 1) * 40)[:, :, None]
    np.clip(surface, 0, 255, out=surface)
    surface *= (coverage.astype(np.float32) / 255)[:, :, None]
    return Sprite(
        color=surface.astype(np.uint8),
        clear=cv2.merge([255 - coverage] * 3),
        reach=reach,
    )


def _regular(sides: int) -> NDArray[np.float64]:
    angles = np.arange(sides) * 2 * np.pi / sides - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _fill(image: NDArray[np.uint8], points: NDArray[np.float64], value: int) -> None:
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(image, [fixed], value, lineType=cv2.LINE_AA, shift=_SHIFT)
