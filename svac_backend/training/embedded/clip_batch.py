"""Batches of whole clips for the language stages: the MLLM's images, sentences, and frames with their masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from svac_backend.svac import preprocess
from svac_backend.svac.astc import clip_images
from svac_backend.svac.clips import plan
from svac_backend.svac.config import SvacConfig
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED, SceneConfig, make_scene
from svac_backend.synthetic.vocabulary import COLORS, SHAPES
from svac_backend.training.embedded.mask_stage import TARGET, center
from svac_backend.training.embedded.sentences import Sentence, sentences_of


@dataclass
class ClipBatch:
    """B scenes with E sentences each; N clips, I images a scene, t tokens an image.

    Attributes:
        pixels: f32 [B, I, 3, S, S] for the vision tower.
        sentences: B lists of E.
        color, shape, size: i64 [B, E], -1 where not said. present: f32 [B, E].
        point: f32 [B, E, N, 2], the object's place in each clip's anchor frame, 0..1; NaN where it is not visible.
        token: i64 [B, E, N], the visual token of the clip's anchor image that covers it; -1 where not visible.
        seen_colors, seen_shapes: f32 [B, I, t, classes], 1 where the token's cell holds that colour or shape.
        sam_pixels: f32 [B, F, 3, S', S'] of F frames; frame_clip: i64 [B, F], their clips.
        target: f32 [B, E, F, TARGET, TARGET]; visible: f32 [B, E, F].
    """

    pixels: Tensor
    sentences: list[list[Sentence]]
    color: Tensor
    shape: Tensor
    size: Tensor
    present: Tensor
    point: Tensor
    token: Tensor
    seen_colors: Tensor
    seen_shapes: Tensor
    sam_pixels: Tensor
    frame_clip: Tensor
    target: Tensor
    visible: Tensor


def make_clip_batch(
    rng: np.random.Generator,
    config: SvacConfig,
    scenes: SceneConfig,
    *,
    batch: int,
    sentences: int,
    frames: int,
) -> ClipBatch:
    """Make a batch; `frames` frames of each scene carry masks (0 for stages that need none)."""
    clips = plan(scenes.frames, config.method)
    clip_of = dict(clips.decode)
    rows = []
    for _ in range(batch):
        scene = make_scene(int(FIRST_TRAIN_SEED + rng.integers(2**31)), scenes)
        said = sentences_of(scene, sentences, rng)
        rows.append(_one(scene, said, config, clips, clip_of, rng, frames))
    stacked = {key: torch.stack([row[key] for row, _ in rows]) for key in rows[0][0]}
    return ClipBatch(sentences=[said for _, said in rows], **stacked)


def _one(scene, said, config, clips, clip_of, rng, frames):  # type: ignore[no-untyped-def]
    method, vision = config.method, config.vision.image_size
    side = int(vision // config.vision.patch_size * config.downsample_ratio)
    images, seen = [], []
    colors = [COLORS.index(o.color) for o in scene.objects]
    shapes = [SHAPES.index(o.shape) for o in scene.objects]
    for n in range(clips.num_clips):
        frame_ids = clips.clip(n)
        images += clip_images([scene.frames[i] for i in frame_ids], method.grid, compress=method.astc)
        # The masks take the frames' way through ASTC, which tells what each visual token can see.
        cover = []
        for mask in scene.masks:
            tiles = clip_images(
                [np.repeat(mask[i][..., None].astype(np.uint8), 3, 2) for i in frame_ids],
                method.grid,
                compress=method.astc,
            )
            cover.append(
                torch.stack(
                    [F.adaptive_avg_pool2d(torch.from_numpy(t[..., 0]).float()[None], side)[0] for t in tiles]
                )
            )
        seen.append(torch.stack(cover, 1))  # [2, objects, side, side]
    area = torch.cat(seen).flatten(2)  # [I, objects, t]
    seen_colors = torch.zeros(len(images), side * side, len(COLORS))
    seen_shapes = torch.zeros(len(images), side * side, len(SHAPES))
    for k, (color, shape) in enumerate(zip(colors, shapes, strict=True)):
        seen_colors[:, :, color] = torch.maximum(seen_colors[:, :, color], (area[:, k] > 0.08).float())
        seen_shapes[:, :, shape] = torch.maximum(seen_shapes[:, :, shape], (area[:, k] > 0.08).float())
    point = torch.full((len(said), clips.num_clips, 2), torch.nan)
    for e, sentence in enumerate(said):
        for n in range(clips.num_clips):
            if sentence.target >= 0:
                mask = scene.masks[sentence.target, clips.clip(n)[0]]
                if mask.sum() >= 12:
                    point[e, n] = torch.tensor(center(mask))
    cell = (point.nan_to_num(0) * side).long().clamp(max=side - 1)
    token = torch.where(point.isnan().any(-1), -1, cell[..., 1] * side + cell[..., 0])
    chosen = (
        np.sort(rng.choice(len(scene.frames), size=frames, replace=False)) if frames else np.zeros(0, int)
    )
    target = torch.zeros(len(said), frames, TARGET, TARGET)
    for e, sentence in enumerate(said):
        if sentence.target >= 0 and frames:
            masks = torch.from_numpy(scene.masks[sentence.target, chosen]).float()
            target[e] = F.adaptive_avg_pool2d(masks[:, None], TARGET)[:, 0]
    size = config.sam.image_size
    sam_images = [preprocess.resize(scene.frames[i], size) for i in chosen]
    row = {
        "pixels": preprocess.mllm_pixels(np.stack([preprocess.resize(image, vision) for image in images])),
        "color": torch.tensor([s.color for s in said]),
        "shape": torch.tensor([s.shape for s in said]),
        "size": torch.tensor([s.size for s in said]),
        "present": torch.tensor([float(s.target >= 0) for s in said]),
        "point": point,
        "token": token,
        "seen_colors": seen_colors,
        "seen_shapes": seen_shapes,
        "sam_pixels": preprocess.sam_pixels(np.stack(sam_images))
        if frames
        else torch.zeros(0, 3, size, size),
        "frame_clip": torch.tensor([clip_of[int(i)] for i in chosen], dtype=torch.long),
        "target": target,
        "visible": (target.flatten(2).sum(2) > 3).float() if frames else torch.zeros(len(said), 0),
    }
    return row, said
