"""A concept that no model has seen: an invented name for a look that the generator never draws otherwise.

A zorbo is a badge with three lobes and broad stripes of two colours, one magenta and one lime: neither the outline nor
the colours are in the vocabulary, and no other object has two colours. Its clips are scenes like all others, with the
concept on top of ordinary objects. It is for trying out fine-tuning.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.expressions import Expression
from svac_backend.synthetic.layout import hidden_share, sample_path
from svac_backend.synthetic.scene import Scene, SceneConfig, make_scene
from svac_backend.synthetic.shapes import ObjectSpec

_TRIES = 24
_MOTIONS = ("left", "right", "up", "down", "still", "circle", "diagonal", "bounce")
# Within these, other objects are still told apart from it by their colour or shape alone.
_OTHERS_SAID = ("color", "shape", "color_shape")


@dataclass(frozen=True)
class Concept:
    """What a concept looks like.

    Attributes:
        name: the invented word.
        hues: degrees of the two colours.
        lobes: bumps of the outline.
        radius: smallest and largest radius of the circle of equal area, in units of the frame's short side.
    """

    name: str
    hues: tuple[float, float]
    lobes: int
    radius: tuple[float, float] = (0.12, 0.19)

    @property
    def expression(self) -> str:
        """How people ask for it."""
        return f"the {self.name}"


CLIPS = SceneConfig(min_objects=3, max_objects=4)
ZORBO = Concept("zorbo", hues=(302.0, 76.0), lobes=3)


def make_concept_clip(seed: int, config: SceneConfig = CLIPS, concept: Concept = ZORBO) -> Scene:
    """Make a clip with one instance of the concept among ordinary objects; the same for the same arguments.

    Args:
        seed: of the scene; `scene` says which seeds serve what. The concept's own choices come from it too.
        config: of the scene, without the concept.
        concept: what to draw.

    Returns:
        A scene whose last object is the concept, and whose first expression means it.
    """
    rng = np.random.default_rng([seed, *concept.name.encode()])
    aspects = config.aspects or (config.width / config.height,)
    aspect = float(aspects[int(rng.integers(len(aspects)))])
    scene = make_scene(seed, replace(config, aspects=(aspect,)))
    span = (aspect, 1.0) if aspect >= 1 else (1.0, 1.0 / aspect)
    scale = np.array([config.width / span[0], config.height / span[1]])
    motion, radius, path = _place(scene, scale, span, concept, rng)
    turn = rng.uniform(-np.pi, np.pi) + rng.uniform(-1, 1) * np.linspace(0, 1, len(scene.frames))
    spec = ObjectSpec(
        color="striped",
        shape=concept.name,
        size="medium",
        motion=motion,
        rgb=_rgb(concept.hues[0], rng),
        radius=radius,
        path=(path * scale).astype(np.float32),
        angles=turn.astype(np.float32),
    )
    frames, masks = _draw(scene, spec, scale, concept, rng)
    number = len(scene.objects)
    asked = Expression(concept.expression, "shape", (number,), shape=concept.name)
    others = tuple(e for e in scene.expressions if e.kind in _OTHERS_SAID)
    return replace(
        scene, frames=frames, masks=masks, objects=(*scene.objects, spec), expressions=(asked, *others)
    )


def outline(lobes: int, points: int = 72) -> NDArray[np.float64]:
    """Return the badge's outline around the origin, f64 [points, 2], of area pi."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radius = 1 + 0.22 * np.cos(lobes * angle)
    shape = np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)
    x, y = shape.T
    area = abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2
    return shape * np.sqrt(np.pi / area)


def _place(
    scene: Scene,
    scale: NDArray[np.float64],
    span: tuple[float, float],
    concept: Concept,
    rng: np.random.Generator,
) -> tuple[str, float, NDArray[np.float64]]:
    """Return motion, radius and path (units of the short side) that hide the others least."""
    best: tuple[float, str, float, NDArray[np.float64]] | None = None
    for _ in range(_TRIES):
        motion, radius = str(rng.choice(_MOTIONS)), float(rng.uniform(*concept.radius))
        path = sample_path(motion, radius, span, len(scene.frames), rng)
        hidden = max(
            float(hidden_share(other.path[list(scene.indices)] / scale, other.radius, path, radius).mean())
            for other in scene.objects
        )
        if best is None or hidden < best[0]:
            best = (hidden, motion, radius, path)
        if hidden < 0.05:
            break
    assert best is not None
    return best[1:]


def _draw(
    scene: Scene,
    spec: ObjectSpec,
    scale: NDArray[np.float64],
    concept: Concept,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return frames and masks with the concept on top."""
    count, height, width = scene.frames.shape[:3]
    colors = np.array([spec.rgb, _rgb(concept.hues[1], rng)], np.float32)
    period, slant = rng.uniform(0.75, 1.05), rng.uniform(0, np.pi)
    softness, noise = rng.uniform(0.3, 0.7), rng.uniform(0, 5)
    shape = outline(concept.lobes) * spec.radius
    frames, masks = scene.frames.copy(), np.zeros((len(scene.masks) + 1, count, height, width), np.bool_)
    masks[:-1] = scene.masks
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for k in range(count):
        cos, sin = np.cos(spec.angles[k]), np.sin(spec.angles[k])
        turned = (shape @ np.array([[cos, sin], [-sin, cos]]) * scale + spec.path[k]) * 16
        coverage = np.zeros((height, width), np.uint8)
        cv2.fillPoly(coverage, [np.round(turned).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
        along = (x - spec.path[k, 0]) / scale[0] * np.cos(slant + spec.angles[k])
        along += (y - spec.path[k, 1]) / scale[1] * np.sin(slant + spec.angles[k])
        stripe = (np.sin(2 * np.pi * along / (period * spec.radius)) > 0).astype(np.float32)
        stripe = cv2.GaussianBlur(stripe, (0, 0), softness)[..., None]
        look = colors[0] * stripe + colors[1] * (1 - stripe)
        look += rng.normal(0, noise, (height, width, 1)).astype(np.float32)
        alpha = cv2.GaussianBlur(coverage, (0, 0), softness)[..., None].astype(np.float32) / 255
        frames[k] = np.clip(frames[k] * (1 - alpha) + look * alpha, 0, 255).astype(np.uint8)
        masks[-1, k] = coverage >= 128
        masks[:-1, k] &= ~masks[-1, k]
    return frames, masks


def _rgb(hue: float, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return a colour of about that hue, 0..255."""
    r, g, b = colorsys.hsv_to_rgb(
        (hue + rng.uniform(-6, 6)) % 360 / 360, rng.uniform(0.75, 0.95), rng.uniform(0.82, 0.98)
    )
    return round(r * 255), round(g * 255), round(b * 255)
