"""Backgrounds: muted textures that look a little like photographs, pictures of places, and the camera's noise.

Places are landscapes, walls, rooms, lights out of focus, and heaps of things.
"""

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


Image = NDArray[np.float32]


def draw_backdrop(
    height: int, width: int, avoid: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a background, u8 [height, width, 3].

    Args:
        height, width: its size in pixels.
        avoid: f32 [N, 3], the things' colours; plain backgrounds keep away from them, places are paler.
        rng: of all choices.
    """
    if rng.random() < 0.4:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        return make_background(kind, height, width, avoid, rng)
    places = (_landscape, _room, _bricks, _lights, _heap, _grass)
    image = places[int(rng.integers(len(places)))](height, width, rng)
    gray = image.mean(axis=2, keepdims=True)
    image = gray + (image - gray) * np.float32(rng.uniform(0.35, 0.75))
    return np.clip(image, 0, 255).astype(np.uint8)


def _color(rng: np.random.Generator, low: float = 60, high: float = 200) -> Image:
    """Return a muted colour, f32 [3]."""
    return (rng.uniform(low, high) + rng.uniform(-45, 45, 3)).astype(np.float32)


def _noise(height: int, width: int, rng: np.random.Generator, cells: tuple[int, ...]) -> Image:
    """Return value noise around 0, f32 [height, width]."""
    total = np.zeros((height, width), np.float32)
    for weight, count in enumerate(cells):
        grid = rng.random((count, max(2, count * width // height)), dtype=np.float32) - 0.5
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) / (weight + 1)
    return total


def _fade(top: Image, bottom: Image, height: int, width: int) -> Image:
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.repeat(top + share * (bottom - top), width, axis=1)


def _landscape(height: int, width: int, rng: np.random.Generator) -> Image:
    sky = np.array([150, 180, 215], np.float32) + rng.uniform(-40, 30, 3).astype(np.float32)
    image = _fade(sky, sky + 35, height, width)
    image += 50 * np.maximum(_noise(height, width, rng, (4, 9, 18)), 0)[..., None]
    x = np.arange(width, dtype=np.float32) / width
    y = np.arange(height, dtype=np.float32)[:, None] / height
    level = rng.uniform(0.3, 0.5)
    for layer in range(int(rng.integers(2, 5))):
        ridge = np.zeros(width, np.float32)
        for wave in (1.5, 3.7, 9.0):
            ridge += np.sin(2 * np.pi * (wave * x + rng.random())).astype(np.float32) * rng.uniform(
                0.01, 0.06
            )
        ground = np.array([110, 125, 90], np.float32) + rng.uniform(-40, 40, 3).astype(np.float32)
        ground = ground - 12 * layer
        speckle = 45 * _noise(height, width, rng, (14 + 10 * layer, 40))[..., None]
        edge = np.clip((y - (level + ridge / (layer + 1))) * height, 0, 1)[..., None]
        image += edge * (ground + speckle - image)
        level += rng.uniform(0.1, 0.22)
    return image


def _room(height: int, width: int, rng: np.random.Generator) -> Image:
    wall, floor = _color(rng, 120, 215), _color(rng, 70, 150)
    image = _fade(wall, wall - 25, height, width)
    line = int(height * rng.uniform(0.45, 0.7))
    depth = np.arange(1, height - line + 1, dtype=np.float32)[:, None] / max(height - line, 1)
    x = (np.arange(width, dtype=np.float32)[None] - width * rng.uniform(0.3, 0.7)) / width
    boards = np.sin(np.pi * rng.integers(6, 14) * x / (0.35 + depth)) > 0.96
    rows = np.sin(np.pi * rng.integers(5, 9) / (0.25 + depth)) > 0.97
    lower = floor * (0.75 + 0.4 * depth[..., None]) - 28 * (boards | rows)[..., None]
    image[line:] = lower
    image[max(line - 3, 0) : line] = wall * 0.7
    for _ in range(int(rng.integers(0, 3))):
        left, top = int(rng.uniform(0, 0.8) * width), int(rng.uniform(0.05, 0.3) * height)
        right, bottom = left + int(rng.uniform(0.12, 0.3) * width), top + int(rng.uniform(0.1, 0.3) * height)
        cv2.rectangle(image, (left, top), (right, min(bottom, line)), (_color(rng) * 0.6).tolist(), -1)
        inner = (left + 3, top + 3), (right - 3, min(bottom, line) - 3)
        cv2.rectangle(image, *inner, _color(rng, 110, 210).tolist(), -1)
    return image + 18 * _noise(height, width, rng, (5, 30))[..., None]


def _bricks(height: int, width: int, rng: np.random.Generator) -> Image:
    tall = max(5, int(height * rng.uniform(0.05, 0.12)))
    wide = int(tall * rng.uniform(1.8, 2.6))
    row, column = np.arange(height) // tall, np.arange(width)
    shifted = column[None] + (row[:, None] % 2) * (wide // 2)
    number = (row[:, None] * 31 + shifted // wide * 7) % 64
    tone = rng.uniform(-16, 16, 64).astype(np.float32)[number]
    joint = ((np.arange(height) % tall)[:, None] < 1) | (shifted % wide < 1)
    brick = _color(rng, 90, 170)
    image = brick + tone[..., None] + 22 * _noise(height, width, rng, (20, 50))[..., None]
    return np.where(joint[..., None], brick * 0.75 + 45, image).astype(np.float32)


def _lights(height: int, width: int, rng: np.random.Generator) -> Image:
    base = _color(rng, 35, 110)
    image = _fade(base, base * 1.3, height, width)
    for _ in range(int(rng.integers(12, 30))):
        spot = np.zeros((height, width), np.float32)
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        cv2.circle(spot, centre, int(height * rng.uniform(0.03, 0.13)), 1.0, -1, lineType=cv2.LINE_8)
        image += spot[..., None] * _color(rng, 20, 60).clip(0)
    blur = 0.012 * height
    return cv2.GaussianBlur(image, (0, 0), blur).astype(np.float32, copy=False)


def _heap(height: int, width: int, rng: np.random.Generator) -> Image:
    image = np.full((height, width, 3), _color(rng), np.float32)
    for _ in range(int(rng.integers(18, 40))):
        middle = rng.random(2) * (width, height)
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        reach = height * rng.uniform(0.06, 0.3)
        points = middle + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(image, [points.round().astype(np.int32)], _color(rng).tolist())
    image = cv2.GaussianBlur(image, (0, 0), height * rng.uniform(0.004, 0.02)).astype(np.float32, copy=False)
    return image + 25 * _noise(height, width, rng, (8, 30))[..., None]


def _grass(height: int, width: int, rng: np.random.Generator) -> Image:
    base = np.array([105, 120, 80], np.float32) + rng.uniform(-35, 45, 3).astype(np.float32)
    image = _fade(base * 0.85, base * 1.15, height, width)
    fine = rng.random((height // 3 + 1, width), dtype=np.float32) - 0.5
    blades = cv2.resize(fine, (width, height), interpolation=cv2.INTER_LINEAR)
    image += (55 * blades + 50 * _noise(height, width, rng, (4, 11, 25)))[..., None]
    return image
