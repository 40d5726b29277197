"""Stage `masks`: SAM-2's part learns to draw what the oracle prompt names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from svac_backend.svac import preprocess
from svac_backend.svac.grounding import decode, encode_frames, without_memory
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED, SceneConfig, make_scene
from svac_backend.synthetic.vocabulary import COLORS, SHAPES
from svac_backend.training.embedded.losses import mask_loss
from svac_backend.training.embedded.oracle import SIZES, Oracle, place
from svac_backend.training.embedded.schedule import Schedule

TARGET = 64  # cells a side on which masks are compared


@dataclass
class MaskBatch:
    """n frames and k (frame, prompt) pairs.

    Attributes:
        pixels: f32 [n, 3, S, S]; frame: i64 [k]; color, shape, size: i64 [k], -1 where not said.
        point: f32 [k, 2] in 0..1, NaN where not said; target: f32 [k, TARGET, TARGET]; present: f32 [k].
    """

    pixels: Tensor
    frame: Tensor
    color: Tensor
    shape: Tensor
    size: Tensor
    point: Tensor
    target: Tensor
    present: Tensor


def center(mask: np.ndarray) -> tuple[float, float]:
    """Return the mask's pixel nearest to its centroid as (x, y) in 0..1."""
    ys, xs = np.nonzero(mask)
    k = np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2)
    return (xs[k] + 0.5) / mask.shape[1], (ys[k] + 0.5) / mask.shape[0]


def random_pixel(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return a random pixel of the mask as (x, y) in 0..1."""
    ys, xs = np.nonzero(mask)
    k = rng.integers(len(xs))
    return (xs[k] + 0.5) / mask.shape[1], (ys[k] + 0.5) / mask.shape[0]


def make_batch(
    rng: np.random.Generator, config: SceneConfig, *, scenes: int, point_share: float
) -> MaskBatch:
    """Make one frame of each of `scenes` scenes, and all prompts that mean one object, plus absent ones."""
    images, rows, targets = [], [], []
    for n in range(scenes):
        index = int(rng.integers(config.frames))
        scene = make_scene(int(FIRST_TRAIN_SEED + rng.integers(2**31)), config, indices=[index])
        images.append(scene.frames[0])
        colors = [COLORS.index(o.color) for o in scene.objects]
        shapes = [SHAPES.index(o.shape) for o in scene.objects]
        for k in range(len(scene.objects)):
            mask = scene.masks[k, 0]
            if mask.sum() < 12:
                continue
            say_point = rng.random() < point_share
            say_color, say_shape = rng.random() < 0.6, rng.random() < 0.5
            color, shape = (colors[k] if say_color else -1), (shapes[k] if say_shape else -1)
            same = sum((color in (-1, c)) and (shape in (-1, s)) for c, s in zip(colors, shapes, strict=True))
            if same > 1 and not say_point:
                say_point = True  # the attributes alone would mean several objects
            if say_point:
                x, y = center(mask) if rng.random() < 0.6 else random_pixel(mask, rng)
                x, y = np.clip(np.array([x, y]) + rng.normal(0, 0.012, 2), 0, 1)
            else:
                x = y = np.nan
            size = SIZES.index(scene.objects[k].size) if rng.random() < 0.2 else -1
            rows.append((n, color, shape, size, x, y, 1.0))
            targets.append(mask)
        absent = sorted(set(range(len(COLORS))) - set(colors))
        if absent and rng.random() < 0.5:
            rows.append((n, int(rng.choice(absent)), -1, -1, np.nan, np.nan, 0.0))
            targets.append(np.zeros_like(scene.masks[0, 0]))
    table = torch.tensor(rows, dtype=torch.float32)
    target = torch.from_numpy(np.stack(targets)).float()[:, None]
    return MaskBatch(
        pixels=preprocess.sam_pixels(np.stack(images)),
        frame=table[:, 0].long(),
        color=table[:, 1].long(),
        shape=table[:, 2].long(),
        size=table[:, 3].long(),
        point=table[:, 4:6],
        target=F.adaptive_avg_pool2d(target, TARGET)[:, 0],
        present=table[:, 6],
    )


def prompt_of(sam: SAM2Base, oracle: Oracle, batch: MaskBatch) -> Tensor:
    """Return the oracle prompt of each pair, f32 [k, C]."""
    said = ~batch.point.isnan().any(1)
    where = place(sam, batch.point.nan_to_num(0.5))
    return oracle.attributes(batch.color, batch.shape, batch.size) + where * said[:, None]


def train_masks(
    sam: SAM2Base, oracle: Oracle, scenes: SceneConfig, schedule: Schedule, *, scenes_per_step: int = 12
) -> None:
    """Train the image encoder, the prompt encoder, the mask decoder and the oracle's vectors in place."""
    parameters = [
        p
        for n, p in sam.named_parameters()
        if not n.startswith(("memory_", "maskmem", "no_obj_ptr", "obj_ptr"))
    ]
    device = sam.no_mem_embed.device
    for step, rng in schedule.run([*parameters, *oracle.parameters()]):
        # Places first: the mask part learns from them, and only then from bare attributes.
        share = 0.9 if step < 0.3 * schedule.steps else 0.6 if step < 0.6 * schedule.steps else 0.4
        batch = make_batch(rng, scenes, scenes=scenes_per_step, point_share=share)
        for name, value in vars(batch).items():
            setattr(batch, name, value.to(device))
        features = encode_frames(sam, batch.pixels).take(batch.frame)
        out = decode(
            sam,
            without_memory(sam, features),
            features.high,
            prompt_of(sam, oracle, batch),
            no_object_masking=False,
        )
        loss, figures = mask_loss(out, batch.target, batch.present)
        schedule.step(loss, figures)
