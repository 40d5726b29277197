"""Backgrounds: muted textures that look a little like photographs, and the camera's noise."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

KINDS: tuple[str, ...] = ("gradient", "noise", "stripes", "checker", "blobs", "photo")
_NOISE_SEED = 20_240_229
NOISE_MARGIN = 64


def make_background(
    kind: str,
    height: int,
    width: int,
    avoid: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Return a background u8 [height, width, 3].

    Args:
        kind: one of `KINDS`.
        avoid: f32 [N, 3], RGB colours of the objects; the background's own colours keep away from them as
            far as a handful of random choices allows, so that a gray square is not lost on gray.
    """
    base = _palette(avoid, rng)
    if kind == "gradient":
        image = _upsample(base[rng.permutation(4)].reshape(2, 2, 3), height, width, smooth=False)
    elif kind == "noise":
        image = _mix(_value_noise(height, width, rng, octaves=(3, 6, 12, 24)), base)
    elif kind == "stripes":
        turn, period = rng.uniform(0, np.pi), rng.uniform(0.06, 0.25) * min(height, width)
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        phase = (np.cos(turn) * x[None, :] + np.sin(turn) * y[:, None]) * np.float32(2 * np.pi / period)
        image = _mix(np.clip(np.sin(phase) * rng.uniform(0.7, 3) + 0.5, 0, 1), base)
    elif kind == "checker":
        cells = int(rng.integers(3, 9))
        board = (np.indices((cells, cells * width // height + 1)).sum(axis=0) % 2).astype(np.float32)
        image = _mix(cv2.resize(board, (width, height), interpolation=cv2.INTER_AREA), base)
    elif kind == "blobs":
        image = _upsample(base[rng.integers(0, 4, (5, 6))], height, width, smooth=True)
    else:
        coarse = _upsample(base[rng.integers(0, 4, (4, 5))], height, width, smooth=True)
        image = coarse + 70 * (_value_noise(height, width, rng, octaves=(8, 20, 50)) - 0.5)[:, :, None]
    if kind != "photo" and rng.random() < 0.5:
        strength = rng.uniform(8, 30)
        image = image + strength * (_value_noise(height, width, rng, octaves=(10, 40)) - 0.5)[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def noise_bank(height: int, width: int) -> NDArray[np.uint8]:
    """Return Gaussian noise u8 [height + 64, width + 64, 3] around 128 with standard deviation 32.

    Drawing fresh noise for each frame would cost more than all the rest; frames take shifted windows of this.
    """
    shape = (height + NOISE_MARGIN, width + NOISE_MARGIN, 3)
    noise = np.random.default_rng(_NOISE_SEED).standard_normal(shape, dtype=np.float32)
    return np.clip(noise * 32 + 128, 0, 255).astype(np.uint8)


def _palette(avoid: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return four related muted colours, f32 [4, 3]: the best of six draws by distance to `avoid`."""
    best: NDArray[np.float32] = np.zeros((4, 3), np.float32)
    best_distance = -1.0
    for _ in range(6):
        hue, saturation, value = rng.random(), rng.uniform(0.02, 0.38), rng.uniform(0.22, 0.85)
        hsv = rng.uniform(0.03, 0.16, (4, 3)) * rng.choice((-1.0, 1.0), (4, 3)) + (hue, saturation, value)
        hsv = np.clip(hsv, (-1, 0, 0.12), (2, 0.42, 0.9))
        colors = np.array([colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in hsv], np.float32)
        colors *= 255
        distance = float(np.linalg.norm(colors[:, None] - avoid[None], axis=2).min()) if len(avoid) else 255.0
        if distance > best_distance:
            best, best_distance = colors, distance
        if distance > 75:
            break
    return best


def _upsample(grid: NDArray[np.float32], height: int, width: int, *, smooth: bool) -> NDArray[np.float32]:
    interpolation = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    image = cv2.resize(np.ascontiguousarray(grid, np.float32), (width, height), interpolation=interpolation)
    return image.astype(np.float32, copy=False)


def _mix(weight: NDArray[np.float32], base: NDArray[np.float32]) -> NDArray[np.float32]:
    weight = weight.astype(np.float32, copy=False)[:, :, None]
    return base[0] + weight * (base[1] - base[0])


def _value_noise(
    height: int, width: int, rng: np.random.Generator, *, octaves: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return multi-scale value noise f32 [height, width] around 0.5: each octave has half the weight."""
    total = np.full((height, width), 0.5, np.float32)
    weight = 1.0
    for cells in octaves:
        grid = rng.random((cells, max(2, cells * width // height)), dtype=np.float32) - 0.5
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        weight *= 0.5
    return total
