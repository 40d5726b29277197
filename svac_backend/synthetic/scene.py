"""Scenes: coloured shapes that move over a textured background, with their masks, from a seed.

The same seed and configuration give the same bytes on the same numpy and OpenCV. Seeds are split by use, so
that nothing that is measured or shown was trained on:

    validation   0 ..     9 999
    demo    10 000 ..    19 999
    train 1 000 000 and above
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.synthetic.backgrounds import NOISE_MARGIN, make_background, noise_bank
from svac_backend.synthetic.expressions import Expression, expressions_of
from svac_backend.synthetic.layout import Layout, SceneConfig, sample_layout
from svac_backend.synthetic.shapes import ObjectSpec, Sprite, draw_sprite, lay

VALIDATION_SEEDS = range(0, 10_000)
DEMO_SEEDS = range(10_000, 20_000)
FIRST_TRAIN_SEED = 1_000_000


@dataclass
class Scene:
    """A clip with its truth.

    Attributes:
        frames: u8 [T, H, W, 3] RGB.
        masks: bool [N, T, H, W], the visible part of every object.
        objects: the N objects; a later one hides an earlier one.
        expressions: every unambiguous meaning in one wording each.
        indices: which frames of the whole clip these T are, 0-based.
        seed: where it came from.
        fps: frame rate of the whole clip.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    objects: tuple[ObjectSpec, ...]
    expressions: tuple[Expression, ...]
    indices: tuple[int, ...]
    seed: int
    fps: float


def make_scene(seed: int, config: SceneConfig | None = None, indices: Sequence[int] | None = None) -> Scene:
    """Make the scene of a seed.

    Args:
        seed: see the module's docstring for which seeds serve what.
        config: what it looks like; None takes the defaults.
        indices: render these frames of the clip only, 0-based, in this order; each is the same as in
            the whole clip. None renders all.

    Raises:
        SvacError: for a negative seed or an index outside the clip.
    """
    config = config or SceneConfig()
    chosen = tuple(range(config.frames)) if indices is None else tuple(int(i) for i in indices)
    if seed < 0 or any(not 0 <= i < config.frames for i in chosen):
        raise SvacError(
            f"Scene {seed} has no such frames: the clip has {config.frames}.",
            "Use a seed of 0 or more and frame indices within the clip.",
        )
    layout_rng, look_rng, words_rng = (
        np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(3)
    )
    layout = sample_layout(config, layout_rng)
    frames, masks = _render(layout, config, chosen, look_rng)
    return Scene(
        frames=frames,
        masks=masks,
        objects=layout.objects,
        expressions=tuple(expressions_of(layout.objects, words_rng)),
        indices=chosen,
        seed=seed,
        fps=config.fps,
    )


def _render(
    layout: Layout, config: SceneConfig, indices: tuple[int, ...], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw the chosen frames. All random choices are made up front, so that a subset equals the whole."""
    height, width = config.height, config.width
    scale = max(layout.scale)
    sprites = [draw_sprite(o.shape, o.rgb, o.radius * scale, rng) for o in layout.objects]
    colors = np.array([o.rgb for o in layout.objects], np.float32)
    kind = config.backgrounds[int(rng.integers(len(config.backgrounds)))]
    pad = int(np.ceil(np.abs(layout.drift).max())) + 1
    background = make_background(kind, height + 2 * pad, width + 2 * pad, colors, rng)
    contrast, brightness = rng.uniform(0.93, 1.06), rng.uniform(-8, 8)
    amplitude = rng.uniform(0.0, config.noise) / 32
    blurred = rng.random() < config.blur
    blur_sigma = rng.uniform(0.4, 0.8) * max(1.0, min(height, width) / 128)
    offsets = rng.integers(0, NOISE_MARGIN, (config.frames, 2))
    noise = noise_bank(height, width)

    frames = np.empty((len(indices), height, width, 3), np.uint8)
    masks = np.zeros((len(layout.objects), len(indices), height, width), np.bool_)
    steady = not layout.drift.any()
    for k, t in enumerate(indices):
        if steady:
            frame = background[pad:-pad, pad:-pad].copy()
        else:
            shift = np.eye(2, 3)
            shift[:, 2] = layout.drift[t] - pad
            moved = cv2.warpAffine(background, shift, (width, height), flags=cv2.INTER_LINEAR)
            frame = np.asarray(moved, np.uint8)
        for n, spec in enumerate(layout.objects):
            _paste(frame, masks[:, k], n, sprites[n], spec, t, layout.scale)
        if blurred:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), blur_sigma), np.uint8)
        top, left = offsets[t]
        grain = noise[top : top + height, left : left + width]
        cv2.addWeighted(frame, contrast, grain, amplitude, brightness - 128 * amplitude, dst=frames[k])
    return frames, masks


def _paste(
    frame: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    n: int,
    sprite: Sprite,
    spec: ObjectSpec,
    t: int,
    scale: tuple[float, float],
) -> None:
    """Draw object n on the frame and into masks [N, H, W], taking what it hides from those below."""
    height, width = frame.shape[:2]
    (cx, cy), angle = spec.path[t], float(spec.angles[t])
    ax, ay = scale[0] / max(scale), scale[1] / max(scale)
    reach_x, reach_y = sprite.reach * ax + 1, sprite.reach * ay + 1
    left, top = max(int(cx - reach_x), 0), max(int(cy - reach_y), 0)
    right, bottom = min(int(cx + reach_x) + 2, width), min(int(cy + reach_y) + 2, height)
    if right <= left or bottom <= top:
        return
    cos, sin, centre = np.cos(angle), np.sin(angle), (sprite.rgba.shape[0] - 1) / 2
    matrix = np.array([[ax * cos, -ax * sin, cx - left], [ay * sin, ay * cos, cy - top]])
    matrix[:, 2] -= matrix[:, :2].sum(axis=1) * centre
    warped = cv2.warpAffine(sprite.rgba, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    lay(frame, masks, n, np.asarray(warped, np.uint8), left, top)
