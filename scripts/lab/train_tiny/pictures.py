"""Batches of pictures for the stage `looking`: what stands where on them, for patches and for visual tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.train_tiny.clip_batch import areas, side_of
from lab.train_tiny.mask_batch import CellLabels, label, random_scene, shares
from svac_backend.svac import astc
from svac_backend.svac.astc import ClipPlan, clip_images
from svac_backend.svac.config import SvacConfig
from svac_backend.synthetic.rich.scene import RichConfig, RichScene

OUTLINE = 5  # figures of `Labels.outline`
_LONE = 2  # frames of each scene that are shown alone


@dataclass
class Labels:
    """What covers each of c cells of n pictures.

    Attributes:
        seen: kind, colour and texture.
        outline: f32 [n, c, OUTLINE]: how far the middle of the thing is from the cell's (x, y; in fifths of the
            picture), then the logarithms of its width, height and the root of its area, about 0 on average; NaN where
            no thing is.
    """

    seen: CellLabels
    outline: Tensor


@dataclass
class Pictures:
    """n pictures.

    Attributes:
        pixels: f32 [n, 3, S, S] for the vision tower.
        patches, tokens: what covers its patches and what covers the visual tokens.
    """

    pixels: Tensor
    patches: Labels
    tokens: Labels


def make_pictures(
    rng: np.random.Generator, config: SvacConfig, scenes: RichConfig, *, batch: int
) -> Pictures:
    """Make of each of `batch` scenes two frames, and a clip's anchor frame and composite.

    Many scenes teach more than many frames of few, but to stage one costs as much as to paint twenty frames of it.
    """
    method, vision = config.method, config.vision
    sides = (vision.image_size // vision.patch_size, side_of(config))
    pixels: list[NDArray[np.uint8]] = []
    labels: tuple[list[Labels], list[Labels]] = ([], [])
    for _ in range(batch):
        count = _LONE + method.frames_per_clip
        chosen = rng.choice(scenes.frames, size=min(count, scenes.frames), replace=False)
        scene = random_scene(rng, scenes, sorted(chosen.tolist()), words=False)
        clip = clip_images(list(scene.frames[_LONE:]), method.grid, compress=method.astc)
        pixels += [astc.resize(image, vision.image_size) for image in (*scene.frames[:_LONE], *clip)]
        for side, into in zip(sides, labels, strict=True):
            into.append(_labels(scene, method.grid, side))
    patches, tokens = (_joined(parts) for parts in labels)
    return Pictures(astc.mllm_pixels(np.stack(pixels)), patches, tokens)


def _labels(scene: RichScene, grid: tuple[int, int], side: int) -> Labels:
    masks, count = scene.masks, len(scene.frames) - _LONE
    plan = ClipPlan(tuple(range(count)), (), None, count, count)
    alone = shares(masks[:, :_LONE], side).reshape(len(masks), _LONE, -1)
    when = np.repeat(np.arange(_LONE)[:, None], side * side, axis=1)
    area, times = areas(masks[:, _LONE:], plan, grid, side)
    area, times = np.concatenate([alone, area], axis=1), np.concatenate([when, times + _LONE])
    seen = label(area, scene.objects)
    outline = _outlines(masks)[area.argmax(axis=0), times]
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side
    own = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    outline[..., :2] = (outline[..., :2] - own) * 5
    outline[seen.kind.numpy() < 0] = np.nan
    return Labels(seen, torch.from_numpy(outline))


def _outlines(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the figures of things, bool [K, T, H, W]: f32 [K, T, OUTLINE], the middle in 0..1."""

    def extent(shown: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        size = shown.shape[-1]
        return shown.argmax(-1) / size, 1 - shown[..., ::-1].argmax(-1) / size

    (left, right), (top, bottom) = (
        extent(np.asarray(masks.any(axis=2))),
        extent(np.asarray(masks.any(axis=3))),
    )
    sizes = (right - left, bottom - top, np.sqrt(masks.mean(axis=(2, 3))))
    logs = (
        np.log(np.maximum(size, 0.02) / usual) for size, usual in zip(sizes, (0.18, 0.18, 0.15), strict=True)
    )
    return np.stack([(left + right) / 2, (top + bottom) / 2, *logs], axis=-1).astype(np.float32)


def _joined(parts: list[Labels]) -> Labels:
    seen = {f.name: torch.cat([getattr(part.seen, f.name) for part in parts]) for f in fields(CellLabels)}
    return Labels(CellLabels(**seen), torch.cat([part.outline for part in parts]))
