"""Batches of whole clips for the language stages: the MLLM's images, sentences, and frames with their masks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lab.train_tiny.mask_batch import PLACES, SMALLEST, CellLabels, center, label, random_scene, shares
from lab.train_tiny.oracle import SAYS, AttributeRow, Said
from svac_backend.learning.rehearsal import sentences_of
from svac_backend.svac import astc
from svac_backend.svac.astc import ClipPlan, clip_images, plan
from svac_backend.svac.config import SvacConfig
from svac_backend.synthetic.rich.nouns import make_noun
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichConfig, RichScene

STORY = 10  # figures of `ClipBatch.story` beside the places on the anchor frames


@dataclass
class ClipBatch:
    """B scenes with E sentences each; N clips, I images a scene, t tokens an image.

    Attributes:
        pixels: f32 [B, I, 3, S, S] for the vision tower.
        sentences: B lists of E.
        said: [B, E, N]; absent where none of what is meant is seen in the clip.
        alone: bool [B, E], whether words that SAM-2's part knows decide what is meant, and colour and texture don't.
        points: f32 [B, E, N, PLACES, 2], the objects' places in each clip, 0..1; NaN where there is none.
        covers: bool [B, E, I * t], whether the visual token covers what the sentence means.
        seen: of [B * I] images with t cells.
        story: f32 [B, I, t, 2 * N + STORY], what the thing under a token has done so far: its place on the anchor
            frames (x, y), then place, way since it was first seen, way of the last quarter, path, growth,
            turning, size, each about 1 at most; NaN where it is not known.
        sam_pixels: f32 [B, F, 3, S', S'] of F frames; frame_clip: i64 [B, F], their clips.
        target: f32 [B, E, F, S'/2, S'/2]; visible: f32 [B, E, F].
        things: bool [K, H, W], the visible things of these frames; owner: i64 [K], rising, their frames, b * F + f.
    """

    pixels: Tensor
    sentences: list[list[RichExpression]]
    said: Said
    alone: Tensor
    points: Tensor
    covers: Tensor
    seen: CellLabels
    story: Tensor
    sam_pixels: Tensor
    frame_clip: Tensor
    target: Tensor
    visible: Tensor
    things: Tensor
    owner: Tensor


def make_clip_batch(
    rng: np.random.Generator,
    config: SvacConfig,
    scenes: RichConfig,
    *,
    batch: int,
    sentences: int,
    frames: int,
    easy: float = 0.0,
) -> ClipBatch:
    """Make a batch; `frames` frames of each scene carry masks (0 for stages that need none).

    Frames are painted at SAM-2's size where masks are asked for, else at the vision tower's.
    `easy` is that of `sentences_of`.
    """
    clips = plan(scenes.frames, config.method)
    parts = []
    for _ in range(batch):
        scene = random_scene(rng, scenes, words=sentences > 0)
        parts.append(
            _one(
                scene, sentences_of(scene.expressions, sentences, rng, easy=easy), config, clips, rng, frames
            )
        )
    return joined(parts)


def joined(parts: list[ClipBatch]) -> ClipBatch:
    """Put batches of one scene each together."""
    tensors: dict[str, Any] = {
        field.name: torch.cat([getattr(part, field.name) for part in parts])
        for field in fields(ClipBatch)
        if field.name not in ("sentences", "said", "seen", "owner")
    }
    return ClipBatch(
        sentences=[part.sentences[0] for part in parts],
        said=Said(**{f.name: torch.cat([getattr(p.said, f.name) for p in parts]) for f in fields(Said)}),
        seen=CellLabels(
            **{f.name: torch.cat([getattr(p.seen, f.name) for p in parts]) for f in fields(CellLabels)}
        ),
        owner=torch.cat([part.owner + n * part.sam_pixels.shape[1] for n, part in enumerate(parts)]),
        **tensors,
    )


def side_of(config: SvacConfig) -> int:
    """Return how many visual tokens lie along a side of an image."""
    return int(config.vision.image_size // config.vision.patch_size * config.downsample_ratio)


def _one(
    scene: RichScene,
    said: list[RichExpression],
    config: SvacConfig,
    clips: ClipPlan,
    rng: np.random.Generator,
    frames: int,
) -> ClipBatch:
    method, vision, sam = config.method, config.vision.image_size, config.sam.image_size
    side = side_of(config)
    images: list[NDArray[np.uint8]] = []
    for n in range(clips.num_clips):
        images += clip_images([scene.frames[i] for i in clips.clip(n)], method.grid, compress=method.astc)
    area, times = areas(scene.masks, clips, method.grid, side)
    points = np.full((len(said), clips.num_clips, PLACES, 2), np.nan, np.float32)
    there = np.zeros((len(said), clips.num_clips), bool)
    for e, sentence in enumerate(said):
        for n in range(clips.num_clips):
            found = _places(scene.masks[list(sentence.targets)][:, list(clips.clip(n))])
            there[e, n] = bool(found)
            points[e, n, : len(found[:PLACES])] = np.array(found[:PLACES]).reshape(-1, 2)
    covers = np.stack([area[[]].sum(axis=0), *(area[list(s.targets)].sum(axis=0) for s in said)])[1:]
    chosen = (
        np.sort(rng.choice(len(scene.frames), size=frames, replace=False)) if frames else np.zeros(0, int)
    )
    target = torch.zeros(len(said), frames, sam // 2, sam // 2)
    for e, sentence in enumerate(said):
        if sentence.targets and frames:
            union = torch.from_numpy(scene.masks[list(sentence.targets)][:, chosen].any(axis=0)).float()
            target[e] = F.adaptive_avg_pool2d(union[:, None], sam // 2)[:, 0]
    clip_of = dict(clips.decode)
    sam_images = [astc.resize(scene.frames[i], sam) for i in chosen]
    rows: list[AttributeRow] = [(s.color, s.name, s.texture, s.says, False) for s in said]
    words = Said.of(rows)
    wide = (len(said), clips.num_clips)
    shown = scene.masks[:, chosen].swapaxes(0, 1)  # [F, N, H, W]
    owner, thing = np.nonzero(shown.mean((2, 3)) > SMALLEST)
    alone = torch.tensor([_decide(scene, sentence) for sentence in said])
    return ClipBatch(
        pixels=astc.mllm_pixels(np.stack([astc.resize(image, vision) for image in images]))[None],
        sentences=[said],
        said=Said(
            words.color[None, :, None].expand(1, *wide),
            words.name[None, :, None].expand(1, *wide),
            words.texture[None, :, None].expand(1, *wide),
            words.says[None, :, None].expand(1, *wide),
            torch.from_numpy(~there)[None].float(),
        ),
        alone=alone[None],
        points=torch.from_numpy(points)[None],
        covers=torch.from_numpy(covers.reshape(1, len(said), area[0].size) > 0.2),
        seen=label(area, scene.objects),
        story=torch.from_numpy(_story(scene, area, times, clips))[None],
        sam_pixels=(astc.sam_pixels(np.stack(sam_images)) if frames else torch.zeros(0, 3, sam, sam))[None],
        frame_clip=torch.tensor([[clip_of[int(i)] for i in chosen]], dtype=torch.long),
        target=target[None],
        visible=((target.flatten(2).mean(2) > SMALLEST).float() if frames else torch.zeros(len(said), 0))[
            None
        ],
        things=torch.from_numpy(shown[owner, thing]),
        owner=torch.from_numpy(owner),
    )


def _decide(scene: RichScene, said: RichExpression) -> bool:
    """Say whether words that SAM-2's part knows mean what the sentence means, and colour and texture alone don't."""
    if _mean(scene, said, None):  # the language model sees colours and textures well
        return False
    if said.says in SAYS:
        return True
    return _mean(scene, said, said.name)


def _mean(scene: RichScene, said: RichExpression, name: str | None) -> bool:
    """Say whether the sentence's colour and texture with this name, without more, mean what it means."""
    if not (said.color or said.texture or name):
        return False
    truth = make_noun(scene.objects, said.color, said.texture, name).truth
    return not (truth == 0).any() and set(np.flatnonzero(truth == 1)) == set(said.targets)


def _places(masks: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return where things [k, m, H, W] are on the first of a clip's frames that shows any of them."""
    for t in range(masks.shape[1]):
        found = [center(mask) for mask in masks[:, t] if mask.mean() > SMALLEST]
        if found:
            return found
    return []


def areas(
    masks: NDArray[np.bool_], clips: ClipPlan, grid: tuple[int, int], side: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the share of each visual token that each thing covers, f32 [N, I, t], and its frame, i64 [I, t]."""
    rows, columns = grid
    large = shares(masks, side)
    tall, wide = side // rows, side // columns
    small = large.reshape(*large.shape[:2], tall, rows, wide, columns).mean(axis=(3, 5))
    area, times = [], []
    for n in range(clips.num_clips):
        first, *rest = clips.clip(n)
        area.append(large[:, first])
        times.append(np.full((side, side), first))
        canvas = np.zeros((len(masks), side, side), np.float32)
        when = np.zeros((side, side), np.int64)
        for cell, frame in enumerate(rest):
            top, left = cell // columns * tall, cell % columns * wide
            canvas[:, top : top + tall, left : left + wide] = small[:, frame]
            when[top : top + tall, left : left + wide] = frame
        if rest:
            area.append(canvas)
            times.append(when)
    return np.stack(area, axis=1).reshape(len(masks), len(area), -1), np.stack(times).reshape(len(times), -1)


def _story(
    scene: RichScene, area: NDArray[np.float32], times: NDArray[np.int64], clips: ClipPlan
) -> NDArray[np.float32]:
    """Return `ClipBatch.story` of one scene, f32 [I, t, 2 N + STORY]."""
    about = scene.description
    xy = about.image_xy() / np.asarray(about.span)  # [K, T, 2]
    radius = about.image_radius()
    angle = np.stack([thing.track.angle for thing in about.things])
    seen = about.inside() > 0.4
    count, frames = seen.shape
    first = seen.argmax(axis=1)
    rows = np.arange(count)
    start = xy[rows, first][:, None]
    quarter = np.clip(np.maximum(np.arange(frames) - frames // 4, first[:, None]), 0, frames - 1)
    steps = np.linalg.norm(np.diff(xy, axis=1, prepend=xy[:, :1]), axis=-1) * seen
    facts = np.concatenate(
        [
            (xy - 0.5) * 2,
            (xy - start) * 2,
            (xy - np.take_along_axis(xy, quarter[..., None], 1)) * 4,
            np.cumsum(steps, axis=1)[..., None] * 1.5,
            2 * np.log(radius / radius[rows, first][:, None])[..., None],
            np.abs(angle - angle[rows, first][:, None])[..., None] / 4,
            np.log(radius / 0.13)[..., None],
        ],
        axis=-1,
    )  # [K, T, STORY]
    anchors = np.array([clips.clip(n)[0] for n in range(clips.num_clips)])
    past = np.where(seen[:, anchors, None], (xy[:, anchors] - 0.5) * 2, np.nan)  # [K, N, 2]
    best, most = area.argmax(axis=0), area.max(axis=0)
    clear = (most > np.maximum(0.22, 0.6 * area.sum(axis=0))) & seen[best, times]
    known = anchors[None, None] <= times[..., None]
    where = np.where(known[..., None], past[best], np.nan).reshape(*best.shape, -1)
    story = np.concatenate([where, facts[best, times]], axis=-1)
    story[~clear] = np.nan
    return np.asarray(story, np.float32)
