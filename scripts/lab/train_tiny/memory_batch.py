"""Batches for the memory stage: short sequences of frames, the masks of all their objects, and prompts for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lab.train_tiny.mask_batch import SMALLEST, center, random_pixel
from svac_backend.svac import astc
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED
from svac_backend.synthetic.shapes import COLORS, sample_rgb

TRAIN_SEEDS = range(FIRST_TRAIN_SEED, FIRST_TRAIN_SEED + 2**31)
MAX_STRIDE = 6
CLIP_LENGTHS = (12, 61)


@dataclass
class Sequences:
    """B scenes of T frames each, and the N objects of all of them.

    Attributes:
        pixels: f32 [B*T, 3, S, S].
        frame: i64 [N, T], which of the B*T frames an object's frame t is.
        masks: bool [N, T, H, W], the visible part.
        target: f32 [N, T, H/2, W/2]; present: f32 [N, T].
    """

    pixels: Tensor
    frame: Tensor
    masks: Tensor
    target: Tensor
    present: Tensor

    def to(self, device: torch.device) -> Sequences:
        """Return the same on a device."""
        return Sequences(**{name: value.to(device) for name, value in vars(self).items()})


def make_sequences(
    rng: np.random.Generator,
    config: RichConfig,
    *,
    scenes: int,
    length: int,
    given: tuple[int, ...],
    seeds: range = TRAIN_SEEDS,
) -> Sequences:
    """Make a batch.

    Args:
        scenes: B.
        length: T.
        given: positions of the frames that will be prompted; each object is visible on one of them.
        seeds: of the scenes to draw from.
    """
    images: list[NDArray[np.uint8]] = []
    rows: list[int] = []
    masks: list[NDArray[np.bool_]] = []
    while len(images) < scenes:
        clip = replace(config, frames=int(rng.integers(*CLIP_LENGTHS)))
        indices = _indices(rng, clip.frames, length)
        scene = make_rich_scene(int(rng.integers(seeds.start, seeds.stop)), clip, indices, words=False)
        frames, visible = scene.frames, scene.masks
        if rng.random() < 0.4:
            frames, visible = _move_camera(rng, frames, visible)
        if rng.random() < 0.35:
            frames, visible = _hide_one(rng, frames, visible, given)
        shown = [k for k, mask in enumerate(visible) if (mask[list(given)].mean((1, 2)) > SMALLEST).any()]
        if shown:
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


def _indices(rng: np.random.Generator, frames: int, length: int) -> list[int]:
    """Choose frames forward or backward in time, at an even or an uneven stride."""
    stride = int(rng.integers(1, max(1, min(MAX_STRIDE, (frames - 1) // max(1, length - 1))) + 1))
    gaps = np.full(length - 1, stride) if rng.random() < 0.5 else rng.integers(1, stride + 1, length - 1)
    path = np.concatenate([[0], np.cumsum(gaps)])
    path = path + rng.integers(0, frames - path[-1])
    return [int(i) for i in (path if rng.random() < 0.5 else path[::-1])]


def _move_camera(
    rng: np.random.Generator, frames: NDArray[np.uint8], masks: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Look at a part of the picture that moves, so that objects leave, come and grow."""
    count, height, width = frames.shape[:3]
    way = np.linspace(0, 1, count)
    zoom, x, y = (
        start + (stop - start) * way
        for start, stop in (rng.uniform(1.0, 1.8, 2), rng.uniform(0, 1, 2), rng.uniform(0, 1, 2))
    )
    seen, shown = np.empty_like(frames), np.empty_like(masks)
    for t in range(count):
        left, top = x[t] * width * (1 - 1 / zoom[t]), y[t] * height * (1 - 1 / zoom[t])
        matrix = np.array([[zoom[t], 0, -left * zoom[t]], [0, zoom[t], -top * zoom[t]]])
        seen[t] = cv2.warpAffine(frames[t], matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        for k in range(len(masks)):
            shown[k, t] = cv2.warpAffine(masks[k, t].astype(np.uint8) * 255, matrix, (width, height)) > 128
    return seen, shown


def _hide_one(
    rng: np.random.Generator, frames: NDArray[np.uint8], masks: NDArray[np.bool_], given: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cover one object, wholly or in part, on some frames that are not prompted."""
    free = [t for t in range(len(frames)) if t not in given]
    if not free:
        return frames, masks
    frames, masks = frames.copy(), masks.copy()
    chosen, first = int(rng.integers(len(masks))), int(rng.integers(len(free)))
    colour = [int(c) for c in sample_rgb(COLORS[int(rng.integers(len(COLORS)))], rng)]
    grow, shift, round_ = rng.uniform(0.6, 1.5), rng.uniform(-0.4, 0.4, 2), rng.random() < 0.5
    for t in free[first : first + int(rng.integers(1, 4))]:
        ys, xs = np.nonzero(masks[chosen, t])
        if not len(xs):
            continue
        half = np.array([np.ptp(xs) + 1, np.ptp(ys) + 1]) / 2
        middle = np.array([xs.mean(), ys.mean()]) + shift * half * (grow - 0.6)
        reach = half * grow * (1.4 if round_ else 1.0)
        cover = np.zeros(frames.shape[1:3], np.uint8)
        if round_:
            cv2.ellipse(
                cover, tuple(int(v) for v in middle), tuple(int(v) + 1 for v in reach), 0, 0, 360, 1, -1
            )
        else:
            low, high = (middle - reach).astype(int), (middle + reach).astype(int) + 1
            cv2.rectangle(cover, tuple(int(v) for v in low), tuple(int(v) for v in high), 1, -1)
        frames[t][cover > 0] = colour
        masks[:, t] &= cover == 0
    return frames, masks


def make_clicks(rng: np.random.Generator, masks: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Click on objects as a person would: on the object once or twice, and sometimes beside it.

    Args:
        masks: bool [N, H, W]; an object that is not there gets no clicks, only padding.
        others: bool [N, H, W], the other objects of each frame, which negative clicks like to be on.

    Returns:
        Coordinates f32 [N, P, 2] in 0..1 and labels f32 [N, P]: 1 on, 0 off, -1 padding.
    """
    rows = []
    for mask, other in zip(masks.numpy(), others.numpy(), strict=True):
        row: list[tuple[float, float, float]] = []
        if mask.mean() > SMALLEST:
            row.append((*(center(mask) if rng.random() < 0.4 else random_pixel(mask, rng)), 1.0))
            if rng.random() < 0.3:
                row.append((*random_pixel(mask, rng), 1.0))
            for _ in range(int(rng.choice(3, p=[0.4, 0.4, 0.2]))):
                near = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
                beside = other if other.any() and rng.random() < 0.6 else near & ~mask
                if beside.any():
                    row.append((*random_pixel(beside, rng), 0.0))
        rows.append(row)
    return _padded(rows)


def make_boxes(rng: np.random.Generator, masks: Tensor, *, jitter: float = 0.08) -> tuple[Tensor, Tensor]:
    """Draw boxes around objects, as two points with SAM-2's labels 2 and 3; arguments and result as `make_clicks`."""
    rows = []
    for mask in masks.numpy():
        row: list[tuple[float, float, float]] = []
        if mask.mean() > SMALLEST:
            ys, xs = np.nonzero(mask)
            height, width = mask.shape
            box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)
            size = np.array([box[2] - box[0], box[3] - box[1]] * 2)
            box = box + rng.normal(0, jitter, 4).clip(-0.2, 0.2) * size
            box = (box / [width, height, width, height]).clip(0, 1)
            row = [(box[0], box[1], 2.0), (box[2], box[3], 3.0)]
        rows.append(row)
    return _padded(rows)


def point_at(
    rng: np.random.Generator, masks: Tensor, others: Tensor, *, boxes: bool
) -> tuple[Tensor, Tensor]:
    """Point at objects with boxes, some of them with clicks, or with clicks alone; the rest as `make_clicks`."""
    points = make_clicks(rng, masks, others)
    if not boxes:
        return points
    corners = make_boxes(rng, masks)
    # A box comes first, and may come with clicks.
    both = [torch.cat(pair, 1) for pair in zip(corners, points, strict=True)]
    return (both[0], both[1]) if rng.random() < 0.3 else corners


def _padded(rows: list[list[tuple[float, float, float]]]) -> tuple[Tensor, Tensor]:
    most = max(1, *(len(row) for row in rows))
    table = torch.tensor([row + [(0.0, 0.0, -1.0)] * (most - len(row)) for row in rows], dtype=torch.float32)
    return table[..., :2].contiguous(), table[..., 2].contiguous()
