"""The words of the synthetic world: which colours, shapes, sizes and motions exist and what each means."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
