"""Shapes: the colours, shapes, sizes and motions that exist and what each means, outlines, and sprites.

A sprite is an object drawn once, to be pasted on every frame.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

_SHIFT = 4  # fractional bits of cv2.fillPoly's coordinates
_RING_HOLE = 0.5
# Some objects have a darker edge, which tells them apart from others of their colour.
_RIM_SHARE = 0.35
_RIM_DARK = 0.4
# On a smaller object (in pixels) or a thin one the edge would be most of it and change its colour.
_RIM_RADIUS = 13.0
# Largest tilt in degrees at which a shape still deserves its name (a square on its corner is a diamond).
# Shapes that are missing here turn freely.
MAX_TILT: dict[str, float] = {"square": 18, "cross": 20, "heart": 30, "diamond": 15}


@lru_cache(maxsize=32)
def outline(shape: str) -> NDArray[np.float64]:
    """Return the outline of a shape around the origin, f64 [K, 2] (x right, y down), of area pi.

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
        a = 0.36  # half the width of an arm
        corner = np.array([(-a, -1), (a, -1), (a, -a)])
        turns = [corner @ np.array([(c, s), (-s, c)]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        points = np.concatenate(turns)
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
        rgba: u8 [S, S, 4], RGB multiplied by coverage, and coverage.
        reach: distance in sprite pixels from the centre within which everything lies.
    """

    rgba: NDArray[np.uint8]
    reach: float


def draw_sprite(shape: str, rgb: tuple[int, int, int], radius_px: float, rng: np.random.Generator) -> Sprite:
    """Draw a shape with slight shading and texture.

    Args:
        radius_px: radius of the circle of equal area, in pixels.
    """
    reach = extent(shape) * radius_px + 2.5  # OpenCV fills up to a pixel beyond
    side = 2 * int(np.ceil(reach)) + 1
    centre = (side - 1) / 2
    coverage = np.zeros((side, side), np.uint8)
    fill(coverage, outline(shape) * radius_px + centre, 255)
    if shape == "ring":
        fill(coverage, outline("circle") * (radius_px * _RING_HOLE) + centre, 0)

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
    if rng.random() < _RIM_SHARE and radius_px >= _RIM_RADIUS and shape != "ring":
        rim = np.zeros((side, side), np.uint8)
        trace(rim, outline(shape) * radius_px + centre, max(1, round(0.15 * radius_px)))
        surface *= (1 - rim.astype(np.float32) * (_RIM_DARK / 255))[:, :, None]
    surface *= (coverage.astype(np.float32) / 255)[:, :, None]
    rgba = np.dstack([surface.astype(np.uint8), coverage])
    return Sprite(rgba=rgba, reach=reach)


def _regular(sides: int) -> NDArray[np.float64]:
    angles = np.arange(sides) * 2 * np.pi / sides - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def fill(image: NDArray[np.uint8], points: NDArray[np.float64], value: int) -> None:
    """Fill an outline, f64 [K, 2] in pixels, on a picture u8 [H, W]."""
    cv2.fillPoly(image, [_fixed(points)], value, lineType=cv2.LINE_AA, shift=_SHIFT)


def trace(image: NDArray[np.uint8], points: NDArray[np.float64], width: int) -> None:
    """Draw the line of an outline, f64 [K, 2] in pixels and `width` pixels wide, on a picture u8 [H, W]."""
    cv2.polylines(image, [_fixed(points)], True, 255, width, lineType=cv2.LINE_AA, shift=_SHIFT)


def lay(
    frame: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    n: int,
    picture: NDArray[np.uint8],
    left: int,
    top: int,
) -> None:
    """Lay the picture of object n on a frame and into masks [N, H, W], taking what it hides from those below.

    Args:
        picture: u8 [h, w, 4], RGB multiplied by coverage, and coverage; it lies within the frame.
    """
    rows, columns = slice(top, top + picture.shape[0]), slice(left, left + picture.shape[1])
    coverage = np.ascontiguousarray(picture[:, :, 3])
    color = cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB)
    clear = cv2.cvtColor(255 - coverage, cv2.COLOR_GRAY2RGB)
    region = frame[rows, columns]
    region[...] = cv2.add(color, cv2.multiply(region, clear, scale=1 / 255))
    covered = coverage >= 128
    masks[:n, rows, columns] &= ~covered
    masks[n, rows, columns] = covered


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return coordinates as the fixed-point numbers that OpenCV draws with."""
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


# Colour name -> HSV box: hue in degrees, saturation and value 0..1. The boxes do not touch, so that a name is
# never a matter of taste, even after shading and the brightness jitter of a scene.
_HSV: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-8, 7), (0.78, 1.0), (0.65, 0.98)),
    "orange": ((24, 33), (0.85, 1.0), (0.88, 1.0)),
    "yellow": ((51, 59), (0.72, 1.0), (0.88, 1.0)),
    "green": ((100, 145), (0.60, 1.0), (0.45, 0.85)),
    "cyan": ((177, 189), (0.60, 1.0), (0.80, 1.0)),
    "blue": ((214, 238), (0.72, 1.0), (0.60, 1.0)),
    "purple": ((270, 286), (0.58, 0.90), (0.48, 0.78)),
    "pink": ((325, 340), (0.36, 0.58), (0.95, 1.0)),
    "white": ((0, 360), (0.00, 0.04), (0.94, 1.0)),
    "black": ((0, 360), (0.00, 0.20), (0.02, 0.11)),
    "gray": ((0, 360), (0.00, 0.06), (0.42, 0.58)),
    "brown": ((20, 29), (0.60, 0.80), (0.32, 0.46)),
}

COLORS: tuple[str, ...] = tuple(_HSV)
SHAPES: tuple[str, ...] = (
    "circle",
    "square",
    "triangle",
    "star",
    "pentagon",
    "hexagon",
    "heart",
    "cross",
    "ring",
    "diamond",
    "ellipse",
)
SIZES: tuple[str, ...] = ("small", "medium", "large")
DIRECTIONS: tuple[str, ...] = ("left", "right", "up", "down")
MOTIONS: tuple[str, ...] = (*DIRECTIONS, "still", "circle", "diagonal", "bounce")

# Size name -> radius of the circle of equal area, in units of the frame's short side.
SIZE_RADII: dict[str, tuple[float, float]] = {
    "small": (0.070, 0.090),
    "medium": (0.115, 0.145),
    "large": (0.180, 0.225),
}

# Accumulated movement towards a direction, in units of the short side, from which an object counts as moving
# that way. Keeps "moving left" away from scenes where another object drifts left too.
DIRECTION_THRESHOLD = 0.10


@dataclass(frozen=True)
class ObjectSpec:
    """One object of a scene.

    Attributes:
        color, shape, size, motion: names out of `COLORS`, `SHAPES`, `SIZES`, `MOTIONS`.
        rgb: its mean colour, 0..255.
        radius: radius of the circle of equal area, in units of the frame's short side.
        directions: all of `DIRECTIONS` that it moves towards noticeably at some time.
        path: f32 [T, 2], centre (x, y) in pixels on every frame of the whole clip, camera drift included.
        angles: f32 [T], rotation in radians on every frame of the whole clip.
    """

    color: str
    shape: str
    size: str
    motion: str
    rgb: tuple[int, int, int] = (0, 0, 0)
    radius: float = 0.1
    directions: frozenset[str] = frozenset()
    path: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, 2), np.float32), compare=False, repr=False
    )
    angles: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros(0, np.float32), compare=False, repr=False
    )


def sample_rgb(color: str, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return one RGB colour, 0..255, that people call `color`."""
    hue, saturation, value = (float(rng.uniform(low, high)) for low, high in _HSV[color])
    r, g, b = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(r * 255), round(g * 255), round(b * 255)
