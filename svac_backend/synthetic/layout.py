"""Layouts: what plain scenes look like, which objects one has, and paths on which each is mostly visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.synthetic.backgrounds import KINDS
from svac_backend.synthetic.shapes import (
    COLORS,
    DIRECTION_THRESHOLD,
    MAX_TILT,
    MOTIONS,
    SHAPES,
    SIZE_RADII,
    SIZES,
    ObjectSpec,
    sample_rgb,
)

_UNIT = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}


def sample_path(
    motion: str, radius: float, span: tuple[float, float], frames: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the centres of an object, f64 [frames, 2] (x, y), in units of the frame's short side.

    Args:
        motion: one of `MOTIONS`.
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


_T = TypeVar("_T")
_TRIES = 12
# At most this share of an object may be hidden, on all but this share of frames.
_MAX_HIDDEN = 0.45
_MAX_HIDDEN_FRAMES = 0.15
_DRIFT = 0.03


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like.

    Attributes:
        width, height: size of the frames in pixels.
        frames: length of the clip; motions cover the whole of it.
        min_objects, max_objects: bounds of the number of objects.
        fps: frame rate that the clip is written with.
        colors, shapes, sizes, motions: the names to choose from.
        backgrounds: the kinds of background to choose from.
        aspects: display aspect ratios (width / height) to choose from. A clip of 16:9 that a model sees
            squashed into a square is made by width == height and `(16 / 9,)`. None: square pixels.
        noise: largest standard deviation of the camera's noise, in grey levels.
        blur: share of scenes that are slightly out of focus.
        drift: share of scenes whose camera drifts.
    """

    width: int = 128
    height: int = 128
    frames: int = 20
    min_objects: int = 2
    max_objects: int = 5
    fps: float = 12.0
    colors: tuple[str, ...] = COLORS
    shapes: tuple[str, ...] = SHAPES
    sizes: tuple[str, ...] = SIZES
    motions: tuple[str, ...] = MOTIONS
    backgrounds: tuple[str, ...] = KINDS
    aspects: tuple[float, ...] | None = None
    noise: float = 5.0
    blur: float = 0.2
    drift: float = 0.3

    def __post_init__(self) -> None:
        """Refuse what no scene can be made of.

        Raises:
            SvacError: for sizes, counts or names that make no sense.
        """
        if min(self.width, self.height) < 32 or self.frames < 1 or self.fps <= 0:
            raise SvacError(
                f"No scene of {self.width}x{self.height}, {self.frames} frames, {self.fps} fps can be made.",
                "Use at least 32x32 pixels, one frame and a positive frame rate.",
            )
        if self.noise < 0 or not (0 <= self.blur <= 1 and 0 <= self.drift <= 1):
            raise SvacError(
                f"A scene cannot have noise {self.noise}, blur {self.blur}, drift {self.drift}.",
                "Use a noise of 0 or more, and shares from 0 to 1 for blur and drift.",
            )
        if self.aspects is not None and (not self.aspects or not all(0.2 <= a <= 5 for a in self.aspects)):
            raise SvacError(f"A scene cannot have the aspects {self.aspects}.", "Use ratios from 0.2 to 5.")
        if not 1 <= self.min_objects <= self.max_objects:
            raise SvacError(
                f"A synthetic scene cannot have {self.min_objects} to {self.max_objects} objects.",
                "Use 1 <= min_objects <= max_objects.",
            )
        for name, known in (
            ("colors", COLORS),
            ("shapes", SHAPES),
            ("sizes", SIZES),
            ("motions", MOTIONS),
            ("backgrounds", KINDS),
        ):
            unknown = sorted(set(getattr(self, name)) - set(known))
            if unknown or not getattr(self, name):
                raise SvacError(
                    f"A synthetic scene has no {name} {unknown or '(none given)'}.",
                    f"Choose from {', '.join(known)}.",
                )


@dataclass(frozen=True)
class Layout:
    """The geometry of a scene.

    Attributes:
        objects: bottom first.
        drift: f64 [T, 2], how far (x, y) the camera has moved the world, in pixels.
        scale: pixels per unit of the frame's short side, along x and y.
    """

    objects: tuple[ObjectSpec, ...]
    drift: NDArray[np.float64]
    scale: tuple[float, float]


@dataclass(frozen=True)
class _Placed:
    size: str
    motion: str
    radius: float
    path: NDArray[np.float64]


def sample_layout(config: SceneConfig, rng: np.random.Generator) -> Layout:
    """Choose the objects of a scene and their paths."""
    aspect, frames = config.width / config.height, config.frames
    if config.aspects is not None:
        aspect = config.aspects[int(rng.integers(len(config.aspects)))]
    span = (aspect, 1.0) if aspect >= 1 else (1.0, 1.0 / aspect)
    scale = (config.width / span[0], config.height / span[1])
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    placed: list[_Placed] = []
    while len(placed) < count:
        candidate = _place(placed, span, config, rng)
        if candidate is None:
            break
        placed.append(candidate)

    drift: NDArray[np.float64] = np.zeros((frames, 2))
    if rng.random() < config.drift and frames > 1:
        reach = rng.uniform(-_DRIFT, _DRIFT, 2)
        drift = np.linspace(-0.5, 0.5, frames)[:, None] * reach * scale
    looks = _looks(len(placed), config.colors, config.shapes, rng)
    objects = []
    for item, (color, shape) in zip(placed, looks, strict=True):
        objects.append(
            ObjectSpec(
                color=color,
                shape=shape,
                size=item.size,
                motion=item.motion,
                rgb=sample_rgb(color, rng),
                radius=item.radius,
                directions=directions_of(item.path),
                path=(item.path * scale + drift - 0.5).astype(np.float32),
                angles=_angles(shape, frames, rng),
            )
        )
    return Layout(tuple(objects), drift, scale)


def _place(
    placed: list[_Placed], span: tuple[float, float], config: SceneConfig, rng: np.random.Generator
) -> _Placed | None:
    """Return an object that leaves all visible; else the least bad one if the scene needs it, or None."""
    best, best_hidden = None, np.inf
    motions, sizes = config.motions, config.sizes
    motion = motions[int(rng.integers(len(motions)))]
    for attempt in range(_TRIES):
        # Where large objects do not fit any more, small ones may.
        size = (
            sizes[int(rng.integers(len(sizes)))]
            if attempt < _TRIES // 2
            else min(sizes, key=SIZE_RADII.__getitem__)
        )
        radius = float(rng.uniform(*SIZE_RADII[size]))
        candidate = _Placed(size, motion, radius, sample_path(motion, radius, span, config.frames, rng))
        hidden = _hidden_frames([*placed, candidate])
        if hidden < best_hidden:
            best, best_hidden = candidate, hidden
        if hidden <= _MAX_HIDDEN_FRAMES:
            return candidate
    return best if len(placed) < config.min_objects else None


def _hidden_frames(placed: list[_Placed]) -> float:
    """Return the largest share of frames on which some object is hidden too much."""
    worst = 0.0
    for i, below in enumerate(placed):
        hidden = np.zeros(len(below.path))
        for above in placed[i + 1 :]:
            hidden += hidden_share(below.path, below.radius, above.path, above.radius)
        worst = max(worst, float((hidden > _MAX_HIDDEN).mean()))
    return worst


def _looks(
    count: int, colors: tuple[str, ...], shapes: tuple[str, ...], rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Return a colour and a shape per object.

    Half of the scenes share a colour or a shape between objects, so that one word alone is not enough there.
    """
    mode = rng.random()
    color_pool: Sequence[str] = colors
    shape_pool: Sequence[str] = shapes
    if mode < 0.5:  # every name at most once, as long as there are enough
        return list(zip(_draw(colors, count, rng), _draw(shapes, count, rng), strict=True))
    if 0.6 <= mode < 0.7:
        shape_pool = _some(shapes, 1, rng)
    elif 0.7 <= mode < 0.8:
        color_pool = _some(colors, 1, rng)
    elif mode >= 0.8:
        color_pool, shape_pool = _some(colors, 2, rng), _some(shapes, 3, rng)
    pairs = [(color, shape) for color in color_pool for shape in shape_pool]
    return _draw(pairs, count, rng)


def _some(names: Sequence[_T], count: int, rng: np.random.Generator) -> list[_T]:
    return [names[i] for i in rng.permutation(len(names))[:count]]


def _draw(names: Sequence[_T], count: int, rng: np.random.Generator) -> list[_T]:
    """Draw without repetition if there are enough names, else with it."""
    if count <= len(names):
        return _some(names, count, rng)
    return [names[int(i)] for i in rng.integers(0, len(names), count)]


def _angles(shape: str, frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the rotation on every frame: mostly constant, sometimes turning or swaying."""
    tilt = np.deg2rad(MAX_TILT.get(shape, 180.0))
    t = np.linspace(0, 1, frames)
    start = rng.uniform(-tilt, tilt)
    if rng.random() < 0.7:
        return np.full(frames, start, np.float32)
    if shape in MAX_TILT:
        return (tilt * np.sin(start + 2 * np.pi * rng.uniform(0.5, 1.5) * t)).astype(np.float32)
    return (start + rng.uniform(-1, 1) * np.pi * t).astype(np.float32)
