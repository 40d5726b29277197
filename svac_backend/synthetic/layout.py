"""Layouts: which objects a scene has, and where each is on every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.motion import directions_of, hidden_share, sample_path
from svac_backend.synthetic.shapes import MAX_TILT
from svac_backend.synthetic.vocabulary import SIZE_RADII, ObjectSpec, sample_rgb

_T = TypeVar("_T")
_TRIES = 12
# At most this share of an object may be hidden, on all but this share of frames.
_MAX_HIDDEN = 0.45
_MAX_HIDDEN_FRAMES = 0.15
_DRIFT = 0.03


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


def sample_layout(
    rng: np.random.Generator,
    *,
    width: int,
    height: int,
    frames: int,
    counts: tuple[int, int],
    colors: tuple[str, ...],
    shapes: tuple[str, ...],
    sizes: tuple[str, ...],
    motions: tuple[str, ...],
    aspects: tuple[float, ...] | None,
    drift_share: float,
) -> Layout:
    """Choose the objects of a scene and their paths; arguments as in `SceneConfig`."""
    aspect = width / height if aspects is None else aspects[int(rng.integers(len(aspects)))]
    span = (aspect, 1.0) if aspect >= 1 else (1.0, 1.0 / aspect)
    scale = (width / span[0], height / span[1])
    count = int(rng.integers(counts[0], counts[1] + 1))
    placed: list[_Placed] = []
    while len(placed) < count:
        candidate = _place(placed, span, frames, sizes, motions, rng, must=len(placed) < counts[0])
        if candidate is None:
            break
        placed.append(candidate)

    drift: NDArray[np.float64] = np.zeros((frames, 2))
    if rng.random() < drift_share and frames > 1:
        reach = rng.uniform(-_DRIFT, _DRIFT, 2)
        drift = np.linspace(-0.5, 0.5, frames)[:, None] * reach * scale
    looks = _looks(len(placed), colors, shapes, rng)
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
    placed: list[_Placed],
    span: tuple[float, float],
    frames: int,
    sizes: tuple[str, ...],
    motions: tuple[str, ...],
    rng: np.random.Generator,
    *,
    must: bool,
) -> _Placed | None:
    """Return an object that leaves all visible; the least bad one if there `must` be one, else None."""
    best, best_hidden = None, np.inf
    motion = motions[int(rng.integers(len(motions)))]
    for attempt in range(_TRIES):
        # Where large objects do not fit any more, small ones may.
        size = (
            sizes[int(rng.integers(len(sizes)))]
            if attempt < _TRIES // 2
            else min(sizes, key=SIZE_RADII.__getitem__)
        )
        radius = float(rng.uniform(*SIZE_RADII[size]))
        candidate = _Placed(size, motion, radius, sample_path(motion, radius, span, frames, rng))
        hidden = _hidden_frames([*placed, candidate])
        if hidden < best_hidden:
            best, best_hidden = candidate, hidden
        if hidden <= _MAX_HIDDEN_FRAMES:
            return candidate
    return best if must else None


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
