"""Paths of objects: where each is on every frame, chosen so that each stays visible most of the time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.vocabulary import DIRECTION_THRESHOLD

_UNIT = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}


def sample_path(
    motion: str, radius: float, span: tuple[float, float], frames: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the centres of an object, f64 [frames, 2] (x, y), in units of the frame's short side.

    Args:
        motion: one of `vocabulary.MOTIONS`.
        radius: the object's radius; its centre keeps 0.9 radii away from the frame's border.
        span: width and height of the frame, in the same units.
    """
    margin = 0.9 * radius
    room = np.maximum(np.asarray(span) - 2 * margin, 1e-3)
    t = np.linspace(0, 1, frames, dtype=np.float64)
    track: NDArray[np.float64]
    if motion == "still":
        track = np.zeros((frames, 2))
    elif motion in _UNIT:
        unit = np.array(_UNIT[motion])
        length = min(rng.uniform(0.25, 0.7), 0.95 * float(abs(unit) @ room))
        slope = rng.uniform(-0.12, 0.12) * unit[::-1]
        track = _eased(t, rng)[:, None] * (unit + slope) * length
    elif motion == "diagonal":
        lengths = np.minimum(rng.uniform(0.25, 0.55, 2), 0.95 * room) * rng.choice((-1.0, 1.0), 2)
        track = _eased(t, rng)[:, None] * lengths
    elif motion == "circle":
        orbit = min(rng.uniform(0.12, 0.26), 0.48 * float(room.min()))
        sweep = rng.uniform(1.7, 2.6) * np.pi * rng.choice((-1.0, 1.0))
        angle = rng.uniform(0, 2 * np.pi) + sweep * t
        track = orbit * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        heading = rng.uniform(0, 2 * np.pi)
        length = rng.uniform(0.9, 1.8)
        straight = rng.random(2) * room + t[:, None] * length * np.array([np.cos(heading), np.sin(heading)])
        folded = np.abs((straight + room) % (2 * room) - room)  # reflects at both walls
        return folded + margin
    low, high = track.min(axis=0), track.max(axis=0)
    slack = np.maximum(room - (high - low), 0)
    return track - low + margin + rng.random(2) * slack


def directions_of(path: NDArray[np.float64]) -> frozenset[str]:
    """Return the directions towards which a path (units of the short side) moves noticeably in sum."""
    steps = np.diff(path, axis=0)
    forward, backward = np.maximum(steps, 0).sum(axis=0), np.maximum(-steps, 0).sum(axis=0)
    amounts = {"right": forward[0], "down": forward[1], "left": backward[0], "up": backward[1]}
    return frozenset(name for name, amount in amounts.items() if amount >= DIRECTION_THRESHOLD)


def hidden_share(
    path: NDArray[np.float64], radius: float, above: NDArray[np.float64], above_radius: float
) -> NDArray[np.float64]:
    """Return about which share of an object another one hides on each frame, f64 [T]; both are discs."""
    distance = np.sqrt(((path - above) ** 2).sum(axis=1))
    depth = (radius + above_radius - distance) / (2 * min(radius, above_radius))
    return np.clip(depth, 0, 1) * min(1.0, (above_radius / radius) ** 2)


def _eased(t: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Bend time a little, so that speed varies without ever turning back."""
    return t + rng.uniform(-0.6, 0.6) * np.sin(2 * np.pi * t) / (2 * np.pi)
