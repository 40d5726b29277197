"""How well corrections travel: J of propagated masks by distance, and of clicks and boxes on their own frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from lab.train_tiny.mask_batch import SMALLEST, center
from lab.train_tiny.memory_batch import Sequences, make_boxes, make_sequences
from lab.train_tiny.memory_rollout import Given, masked, rollout
from lab.train_tiny.memory_stage import others_of
from svac_backend.masks.metrics import jaccard
from svac_backend.svac import astc
from svac_backend.svac.sam.grounding import Decoded, decode, encode_frames, without_memory
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene
from svac_backend.synthetic.scene import VALIDATION_SEEDS

LENGTH = 16
MemoryFigures = dict[str, list[float]]


def measure_memory(sam: SAM2Base, scenes: RichConfig, *, seeds: range) -> MemoryFigures:
    """Measure on all objects of validation scenes.

    Returns:
        J in per cent. `copied`, `forward`, `backward`, `two masks`, `click then memory`: of frames 0 to 15, the first
        one being the prompted frame (`two masks`: the first and the last one). `click`, `click and negative`, `box`,
        `box and click`: one number each, of the prompted frame.
    """
    rows: dict[str, list[Tensor]] = defaultdict(list)
    sam.eval()
    for seed in seeds:
        batch = held_out(seed, scenes, LENGTH)
        if not len(batch.masks):
            continue  # nothing is seen on the first and the last frame
        with torch.no_grad():
            features = encode_frames(sam, batch.pixels)
            for name, frame, masks, given in _cases(batch):
                found = rollout(sam, features, frame, given)
                rows[name].append(_scores(found, masks))
            # As in propagation: each frame from the correction nearest to it.
            there, back = rows.pop("there")[0], rows.pop("back")[0].flip(1)
            half = LENGTH // 2
            rows["two masks"].append(torch.cat([there[:, :half], back[:, half:]], 1))
            copies = [[jaccard(m[0], m[t]) for t in range(LENGTH)] for m in batch.masks.numpy()]
            rows["copied"].append(torch.tensor(copies))
            shown = batch.present[:, 0] > 0
            for name, points in _pointings(seed, batch).items():
                here = features.take(batch.frame[:, 0])
                scaled = (points[0] * sam.image_size, points[1])
                out = decode(
                    sam, without_memory(sam, here), here.high, None, no_object_masking=True, points=scaled
                )
                rows[name].append(_j(out, batch.masks[:, 0])[shown, None])
    return {
        name: [round(100 * float(v), 1) for v in torch.cat(found).double().mean(0)]
        for name, found in rows.items()
    }


def measure_hidden(sam: SAM2Base, scenes: RichConfig, *, batches: int) -> MemoryFigures:
    """Measure objects that are covered or leave: 7 frames after one mask, on sequences as in training, of other scenes.

    Returns:
        Per cent, one number each. `hidden`: frames without the object whose mask is empty. `seen`: frames with the
        object that say so. `came back`, `never left`: J of frames after and without such an absence.
    """
    rows: dict[str, list[float]] = defaultdict(list)
    sam.eval()
    for number in range(batches):
        rng = np.random.default_rng([991, number])
        batch = make_sequences(rng, scenes, scenes=5, length=8, given=(0,), seeds=VALIDATION_SEEDS)
        with torch.no_grad():
            features = encode_frames(sam, batch.pixels)
            found = rollout(sam, features, batch.frame, {0: Given(masks=batch.masks[:, 0])})
        left = torch.zeros(len(batch.masks), dtype=torch.bool)
        for t, out in sorted(found.items()):
            exists, there = out.existence > 0, batch.present[:, t] > 0
            gone = ~batch.masks[:, t].flatten(1).any(1)
            score = _j(out, batch.masks[:, t])
            rows["hidden"] += (~exists[gone]).float().tolist()
            rows["seen"] += exists[there].float().tolist()
            rows["came back"] += score[there & left].tolist()
            rows["never left"] += score[there & ~left].tolist()
            left |= gone
    return {name: [round(100 * float(np.mean(values)), 1)] for name, values in rows.items()}


def held_out(seed: int, scenes: RichConfig, length: int) -> Sequences:
    """Return the first frames of one scene and all its objects that the first and the last of them show."""
    scene = make_rich_scene(seed, scenes, range(length), words=False)
    shown = [k for k, m in enumerate(scene.masks) if min(m[0].mean(), m[-1].mean()) > SMALLEST]
    masks = torch.from_numpy(scene.masks[shown])
    return Sequences(
        pixels=astc.sam_pixels(scene.frames),
        frame=torch.arange(length).expand(len(shown), -1),
        masks=masks,
        target=F.avg_pool2d(masks.float(), 2),
        present=(masks.flatten(2).float().mean(2) > SMALLEST).float(),
    )


def _cases(batch: Sequences) -> list[tuple[str, Tensor, Tensor, Mapping[int, Given]]]:
    """Name, frames, masks and prompts of each way to propagate; backward is a sequence turned round."""
    frame, masks = batch.frame, batch.masks
    turned, seen = frame.flip(1), masks.flip(1)
    ends = {0: Given(masks=masks[:, 0]), LENGTH - 1: Given(masks=masks[:, -1])}
    return [
        ("forward", frame, masks, {0: ends[0]}),
        ("backward", turned, seen, {0: Given(masks=seen[:, 0])}),
        ("there", frame, masks, ends),
        ("back", turned, seen, {LENGTH - 1 - t: given for t, given in ends.items()}),
        ("click then memory", frame, masks, {0: Given(points=_clicks(masks[:, 0]))}),
    ]


def _pointings(seed: int, batch: Sequences) -> dict[str, tuple[Tensor, Tensor]]:
    """Points on the first frame, by kind."""
    masks, others = batch.masks[:, 0], others_of(batch, 0)
    points, labels = _clicks(masks)
    beside = torch.tensor([center(other) if other.any() else (0.0, 0.0) for other in others.numpy()])
    off = torch.where(others.flatten(1).any(1), 0.0, -1.0)
    boxes = make_boxes(np.random.default_rng(seed), masks, jitter=0.0)
    return {
        "click": (points, labels),
        "click and negative": (
            torch.cat([points, beside[:, None].float()], 1),
            torch.cat([labels, off[:, None]], 1),
        ),
        "box": boxes,
        "box and click": (torch.cat([boxes[0], points], 1), torch.cat([boxes[1], labels], 1)),
    }


def _clicks(masks: Tensor) -> tuple[Tensor, Tensor]:
    points = torch.tensor([center(mask) if mask.any() else (0.0, 0.0) for mask in masks.numpy()])
    return points[:, None].float(), torch.ones(len(masks), 1)


def _scores(found: Mapping[int, Decoded], masks: Tensor) -> Tensor:
    """Return J [N, T]; a frame with a mask prompt keeps that mask."""
    columns = [_j(found[t], masks[:, t]) if t in found else torch.ones(len(masks)) for t in range(LENGTH)]
    return torch.stack(columns, 1)


def _j(out: Decoded, masks: Tensor) -> Tensor:
    """Return J [N] of decoded masks at the size of the true ones."""
    size = tuple(masks.shape[-2:])
    logits = F.interpolate(masked(out)[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return torch.tensor(
        [jaccard(mask, true) for mask, true in zip((logits > 0).numpy(), masks.numpy(), strict=True)]
    )
