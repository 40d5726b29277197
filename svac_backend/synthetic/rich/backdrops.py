"""Backgrounds that look like pictures of places: landscapes, walls, rooms, lights out of focus, heaps of things."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.backgrounds import KINDS as PLAIN
from svac_backend.synthetic.backgrounds import make_background

Image = NDArray[np.float32]
PLACES: tuple[str, ...] = ("landscape", "room", "bricks", "lights", "heap", "grass")


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
        kind = PLAIN[int(rng.integers(len(PLAIN)))]
        return make_background(kind, height, width, avoid, rng)
    place = PLACES[int(rng.integers(len(PLACES)))]
    image = {
        "landscape": _landscape,
        "room": _room,
        "bricks": _bricks,
        "lights": _lights,
        "heap": _heap,
        "grass": _grass,
    }[place](height, width, rng)
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
