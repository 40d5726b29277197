"""Photographs become videos: a moving camera over one, and cut-outs of others that move, bend and hide each other.

Everything follows from the random generator that is handed in. Masks are of what can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lab.train_tiny.mask_batch import SMALLEST
from lab.train_tiny.memory_batch import Sequences
from lab.train_tiny.photographs import CLOTHES, Photograph
from svac_backend.svac import astc

_GRID = 4  # control points of bending, a side


@dataclass
class _Layer:
    """A picture and how it moves: per frame where its middle is, how large it is and how it is turned and bent.

    Attributes:
        image: f32 [h, w, 3]; alpha: f32 [h, w].
        regions: bool [n, h, w], which masks move with it; labels: what each of them shows.
        unmarked: what the picture may show beside them.
        middle: f32 [T, 2], (x, y) in shares of the frame.
        scale: f32 [T, 2], sides of the frame per pixel of the picture, x and y.
        angle: f32 [T], radians; bend: f32 [T, 2, _GRID, _GRID], in pixels of the picture.
        light: f32 [T], a factor.
    """

    image: NDArray[np.float32]
    alpha: NDArray[np.float32]
    regions: NDArray[np.bool_]
    labels: tuple[str, ...]
    unmarked: frozenset[str]
    middle: NDArray[np.float64]
    scale: NDArray[np.float64]
    angle: NDArray[np.float64]
    bend: NDArray[np.float64]
    light: NDArray[np.float64]


class _CutOut(NamedTuple):
    """What a photograph shows in one region, as in `_Layer`."""

    image: NDArray[np.float32]
    alpha: NDArray[np.float32]
    regions: NDArray[np.bool_]
    labels: tuple[str, ...]
    unmarked: frozenset[str]


@dataclass
class Composition:
    """A short video before it is painted: it can be painted at several sizes.

    Attributes:
        length: T.
        seed: of what painting leaves to chance.
    """

    layers: list[_Layer]
    length: int
    seed: int

    @property
    def labels(self) -> tuple[str, ...]:
        """What each of the N masks shows."""
        return tuple(label for layer in self.layers for label in layer.labels)

    @property
    def unmarked(self) -> frozenset[str]:
        """What may be seen beside the N masks."""
        return frozenset[str]().union(*(layer.unmarked for layer in self.layers))

    def paint(
        self, size: int, frames: Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return frames u8 [T, S, S, 3] and masks bool [N, T, S, S], of all frames or of these."""
        chosen = range(self.length) if frames is None else frames
        return _paint(np.random.default_rng(self.seed), self.layers, size, chosen)


def compose(
    rng: np.random.Generator,
    photos: Sequence[Photograph],
    *,
    length: int,
    paces: tuple[float, float, float] = (0.25, 1.0, 1.8),
    whole: bool = False,
) -> Composition:
    """Put a short video together.

    Args:
        photos: to take backgrounds and cut-outs from.
        length: T.
        paces: how fast everything moves from one frame to the next: slowly, normally or fast.
        whole: cut things out, and not their parts, and keep all regions: whatever is seen is marked or `unmarked`.
    """
    aspect = float(np.exp(rng.uniform(np.log(0.7), np.log(1.9))))
    pace = float(rng.choice(paces, p=[0.3, 0.5, 0.2]))
    layers = [_background(rng, _pick(rng, photos), aspect, length, pace, None if whole else 3)]
    actors = int(rng.choice(4, p=[0.3, 0.3, 0.25, 0.15]))
    if not len(layers[0].regions) and not actors:
        actors = 1
    for _ in range(actors):
        last = layers[-1]
        if len(layers) > 1 and rng.random() < 0.25:  # a look-alike
            picture = _CutOut(last.image, last.alpha, last.regions, last.labels, last.unmarked)
        else:
            cut = _cut_out(rng, _pick(rng, photos), whole=whole)
            if cut is None:
                continue
            picture = cut
        layers.append(_actor(rng, picture, aspect, length, pace))
    return Composition(layers, length, int(rng.integers(2**31)))


def make_pseudo_videos(
    rng: np.random.Generator,
    photos: Sequence[Photograph],
    *,
    size: int,
    scenes: int,
    length: int,
    given: tuple[int, ...] = (0,),
    most: int = 5,
) -> Sequences:
    """Make a batch of scenes; each object, `most` of a scene, is visible on one of the given frames at least."""
    images, rows, masks = [], [], []
    while len(images) < scenes:
        frames, visible = compose(rng, photos, length=length).paint(size)
        shown = [
            k for k, mask in enumerate(visible) if (mask[list(given)].mean((1, 2)) > 1.5 * SMALLEST).any()
        ]
        if not shown:
            continue
        shown = [int(k) for k in rng.permutation(shown)[:most]]
        rows += [len(images)] * len(shown)
        images.append(frames)
        masks.append(visible[shown])
    every = torch.from_numpy(np.concatenate(masks))
    return Sequences(
        pixels=astc.sam_pixels(np.concatenate(images)),
        frame=torch.tensor(rows)[:, None] * length + torch.arange(length),
        masks=every,
        target=F.avg_pool2d(every.float(), 2),
        present=(every.flatten(2).float().mean(2) > SMALLEST).float(),
    )


def _pick(rng: np.random.Generator, photos: Sequence[Photograph]) -> Photograph:
    """Choose a photograph; scenes of many things as often as portraits and cats together."""
    while True:
        photo = photos[int(rng.integers(len(photos)))]
        if photo.name.startswith("coco/") or rng.random() < 0.35:
            return photo


def _background(
    rng: np.random.Generator, photo: Photograph, aspect: float, length: int, pace: float, most: int | None
) -> _Layer:
    image, masks = photo.read()
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[..., ::-1]
    height, width = image.shape[:2]
    # The camera sees a part of the photograph, of the video's shape.
    side = np.array([min(width, height * aspect), min(width, height * aspect) / aspect])
    zoom = _way(rng, length, 1.0, pace * 0.12, low=0.55, high=1.0) * rng.uniform(0.75, 1.0)
    room = np.array([width, height]) - side * zoom.max()
    middle = np.stack([_way(rng, length, rng.random(), pace * 0.25, low=0.0, high=1.0) for _ in range(2)], 1)
    look = np.array([width, height]) / 2 + (middle - 0.5) * room
    scale = 1 / (side * zoom[:, None])
    angle = _way(rng, length, rng.normal(0, 0.05), pace * 0.04, low=-0.3, high=0.3)
    centre = 0.5 - (look - np.array([width, height]) / 2) * scale
    chosen = rng.permutation(len(masks))[:most]
    return _Layer(
        image.astype(np.float32),
        np.ones((height, width), np.float32),
        masks[chosen],
        tuple(photo.labels[k] for k in chosen),
        photo.unmarked,
        centre,
        scale,
        angle,
        _bends(rng, length, pace * 0.02 * min(height, width)) * (rng.random() < 0.5),
        _lights(rng, length),
    )


def _cut_out(rng: np.random.Generator, photo: Photograph, *, whole: bool = False) -> _CutOut | None:
    """Cut one region out, with a part of it (clothing) as a region of its own now and then.

    Args:
        whole: a thing with all its parts.
    """
    image, masks = photo.read()
    areas = masks.mean((1, 2))
    large = np.flatnonzero(areas > 0.01)
    if whole and photo.tags is not None:
        large = large[large == 0]  # the person
    if not len(large):
        return None
    # A person rather than a shoe.
    weight = areas[large] ** 0.5
    one = int(rng.choice(large, p=weight / weight.sum()))
    ys, xs = np.nonzero(masks[one])
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    window = slice(top, bottom), slice(left, right)
    mask = masks[one][window]
    within = {k: int((part[window] & mask).sum()) for k, part in enumerate(masks) if k != one}
    inside = [k for k, area in within.items() if 0.03 * mask.sum() < area > 0.9 * masks[k].sum()]
    if whole:
        inside = [k for k, area in within.items() if area > 0.9 * masks[k].sum()]
        unmarked = {photo.labels[k] for k, area in within.items() if area and k not in inside}
        chosen = [one, *inside]
    else:
        unmarked = set()
        chosen = [one]
        if inside and rng.random() < 0.4:
            chosen.append(inside[int(rng.integers(len(inside)))])
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0) * mask
    return _CutOut(
        image[window].astype(np.float32),
        alpha,
        np.stack([masks[k][window] & mask for k in chosen]),
        tuple(photo.labels[k] for k in chosen),
        # In a person's outline nothing is to be seen but them: no car.
        frozenset(unmarked | (photo.unmarked & CLOTHES if photo.labels[one] == "person" else set())),
    )


def _actor(rng: np.random.Generator, picture: _CutOut, aspect: float, length: int, pace: float) -> _Layer:
    image, alpha, regions, labels, unmarked = picture
    if rng.random() < 0.5:
        image, alpha, regions = image[:, ::-1], alpha[:, ::-1], regions[..., ::-1]
    height, width = alpha.shape
    large = float(
        np.exp(rng.uniform(np.log(0.12), np.log(0.75)))
    )  # its longer side beside the frame's shorter one
    shorter = np.array([1 / aspect, 1.0]) if aspect > 1 else np.array([1.0, aspect])
    scale = large * shorter / max(height, width)
    wide = 1 + 0.5 * _way(rng, length, 0.0, pace * 0.05, low=-0.4, high=0.4)
    growth = np.exp(_way(rng, length, 0.0, pace * 0.1, low=-0.8, high=0.8))
    middle = np.stack(
        [_way(rng, length, rng.uniform(0.1, 0.9), pace * 0.09, low=-0.1, high=1.1) for _ in range(2)], 1
    )
    return _Layer(
        image,
        alpha,
        regions,
        labels,
        unmarked,
        middle,
        scale * growth[:, None] * wide[:, None] ** [1, 0],
        _way(rng, length, rng.normal(0, 0.15), pace * 0.1, low=-1.2, high=1.2),
        _bends(rng, length, pace * 0.06 * min(height, width)),
        _lights(rng, length),
    )


def _way(
    rng: np.random.Generator, length: int, start: float, step: float, *, low: float, high: float
) -> NDArray[np.float64]:
    """Return a smooth walk [T] from `start` whose steps are about `step`, reflected where it would leave its range."""
    speed, walk = rng.normal(0, step), [start]
    for _ in range(length - 1):
        speed = 0.85 * speed + 0.45 * rng.normal(0, step)
        if not low <= walk[-1] + speed <= high:
            speed = -0.7 * speed
        walk.append(float(np.clip(walk[-1] + speed, low, high)))
    return np.array(walk)


def _bends(rng: np.random.Generator, length: int, most: float) -> NDArray[np.float64]:
    """Return displacements of control points [T, 2, _GRID, _GRID] that change smoothly and begin at none."""
    steps = rng.normal(0, most, (length, 2, _GRID, _GRID))
    for t in range(1, length):
        steps[t] = 0.7 * steps[t - 1] + 0.5 * steps[t]
    steps -= steps[0].copy()
    return np.asarray(steps)


def _lights(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    return np.exp(_way(rng, length, rng.normal(0, 0.15), 0.04, low=-0.5, high=0.4))


def _paint(
    rng: np.random.Generator, layers: Sequence[_Layer], size: int, chosen: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    counts = [len(layer.regions) for layer in layers]
    frames = np.empty((len(chosen), size, size, 3), np.uint8)
    masks = np.zeros((sum(counts), len(chosen), size, size), np.bool_)
    tint = rng.normal(1, 0.06, 3).astype(np.float32)
    soft, noise = rng.random() < 0.25, float(rng.choice([0.0, 3.0, 8.0], p=[0.6, 0.25, 0.15]))
    quality = int(rng.integers(25, 80)) if rng.random() < 0.4 else 0
    blurred = rng.random() < 0.4
    for at, t in enumerate(chosen):
        canvas = np.zeros((size, size, 3), np.float32)
        first = 0
        for number, layer in enumerate(layers):
            image, alpha, regions = _placed(layer, t, size, whole=number == 0)
            if blurred and t:
                way = (layer.middle[t] - layer.middle[t - 1]) * size * 0.5
                image, alpha = (_smeared(part, way) for part in (image, alpha))
            canvas += alpha[..., None] * (image - canvas)
            hidden = alpha > 0.5
            masks[:first, at] &= ~hidden
            masks[first : first + len(regions), at] = regions & hidden if number else regions
            first += len(regions)
        canvas *= tint
        if soft:
            canvas = cv2.GaussianBlur(canvas, (3, 3), 0)
        if noise:
            canvas += rng.standard_normal(canvas.shape, np.float32) * noise
        frame = canvas.clip(0, 255).astype(np.uint8)
        if quality:
            packed = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            frame = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        frames[at] = frame
    return frames, masks


def _placed(
    layer: _Layer, t: int, size: int, *, whole: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return a layer's picture, alpha and regions on frame t, [S, S, ...] each."""
    height, width = layer.alpha.shape
    line = np.arange(size, dtype=np.float32) + 0.5
    x, y = ((line - float(layer.middle[t, k]) * size) / float(layer.scale[t, k] * size) for k in (0, 1))
    # Turned in the picture, whose pixels are square.
    cos, sin = float(np.cos(layer.angle[t])), float(np.sin(layer.angle[t]))
    u = cos * x + (sin * y + width / 2)[:, None]
    v = (cos * y + height / 2)[:, None] - sin * x
    if layer.bend[t].any():
        grid = [
            cv2.resize(part.astype(np.float32), (32, 32), interpolation=cv2.INTER_CUBIC)
            for part in layer.bend[t]
        ]
        across, down = np.clip(u / width, 0, 1) * 31, np.clip(v / height, 0, 1) * 31
        du, dv = (cv2.remap(part, across, down, cv2.INTER_LINEAR) for part in grid)
        u, v = u + du, v + dv
    u, v = u - 0.5, v - 0.5
    border = cv2.BORDER_REFLECT_101 if whole else cv2.BORDER_CONSTANT
    image = cv2.remap(layer.image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    alpha = layer.alpha if whole else cv2.remap(layer.alpha, u, v, cv2.INTER_LINEAR, borderMode=border)
    if whole:
        alpha = np.ones((size, size), np.float32)
    regions = np.zeros((len(layer.regions), size, size), np.bool_)
    for found, region in zip(regions, layer.regions, strict=True):
        # Beyond the photograph its picture is mirrored, and so is what is marked on it: no second copy counts.
        found[:] = cv2.remap(region.view(np.uint8) * 255, u, v, cv2.INTER_LINEAR, borderMode=border) > 127
    return image * np.float32(layer.light[t]), alpha, regions


def _smeared(part: NDArray[np.float32], way: NDArray[np.float64]) -> NDArray[np.float32]:
    """Blur along a way in pixels (x, y)."""
    reach = int(min(15, np.abs(way).max()))
    if reach < 2:
        return part
    kernel = np.zeros((2 * (reach // 2) + 1,) * 2, np.float32)
    middle, half = reach // 2, way / np.abs(way).max() * (reach // 2)
    ends = [
        (round(float(middle + sign * half[0])), round(float(middle + sign * half[1]))) for sign in (-1, 1)
    ]
    cv2.line(kernel, *ends, 1.0)
    return np.asarray(cv2.filter2D(part, -1, kernel / kernel.sum()), np.float32)
