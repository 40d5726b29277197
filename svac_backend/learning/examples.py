"""Examples to learn from, and the batches of each step.

An example is a video, an expression, and masks on the frames that a person answered for. Seed and step alone determine
which examples a step sees, so that a resumed run sees the same data.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from svac_backend.errors import NotEnoughData, SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.truth import open_truth
from svac_backend.learning.videos import (
    ClipCache,
    SeenVideo,
    VideoRef,
    decoded_by,
    spread,
)
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.store.corrections import Correction
from svac_backend.svac.astc import plan
from svac_backend.svac.config import SvacConfig
from svac_backend.video.images import ImageFolderVideo
from svac_backend.video.reader import VideoReader

# For models that decode only a few frames of a video (Sa2VA): how many sets of such frames are taken from a video.
_PARTS = 4
# Weights of a frame that a person drew and of one that a person left as it was.
DRAWN_WEIGHT, ACCEPTED_WEIGHT = 1.0, 0.5
_DRAWN_FIRST = 0.7
# Cells per side from which on masks are sampled as published.
_FINE = 128


@dataclass(frozen=True)
class Example:
    """One object of one video, and the sentence that refers to it.

    Attributes:
        video: its frames.
        expression: the sentence.
        masks: 0-based frame -> mask. A frame of `drawn` or `accepted` without a mask does not show the object.
        drawn: frames on which a person drew or changed the mask.
        accepted: frames that a person left as predicted and submitted.
        anchor: f32 [N, d_model], the [SEG] embeddings that the model should keep for it; None: free to change.
    """

    video: VideoRef
    expression: str
    masks: Mapping[int, CocoRle]
    drawn: frozenset[int]
    accepted: frozenset[int] = frozenset()
    anchor: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames with known ground truth, ascending."""
        return tuple(sorted(self.drawn | self.accepted))


def from_corrections(corrections: Iterable[Correction], find: Callable[[Correction], Path]) -> list[Example]:
    """Return examples for corrections, except those without an expression or a frame.

    Args:
        corrections: what people submitted.
        find: returns the file of a correction's video.
    """
    found = []
    for one in corrections:
        frames = one.drawn | one.accepted
        if not one.expression.strip() or not frames:
            continue
        # The video's identity stays the same when its file is fetched again.
        name = one.annotation.video or f"{one.hostname}{one.video_url}"
        video = VideoRef(name, partial(VideoReader, find(one)))
        masks = {i: mask for i, mask in one.track.masks.items() if i in frames}
        found.append(Example(video, one.expression, masks, one.drawn, one.accepted - one.drawn))
    return found


def from_mevis(root: Path, split: str) -> list[Example]:
    """Return the examples of a folder in the layout of MeViS; every frame counts as drawn.

    Raises:
        SvacError: there is no such folder or split, or its masks do not fit it.
    """
    benchmark = open_benchmark("mevis", root, split)
    truth = open_truth(benchmark)
    if truth is None:
        raise SvacError(
            f"The split {split!r} in {root} has no masks to learn from.",
            "Give a split that has mask_dict.json, such as train or valid_u.",
        )
    found = []
    for video in benchmark.videos:
        pictures = VideoRef(str(video.folder), partial(ImageFolderVideo, video.folder, video.frames))
        for expression in video.expressions:
            target = truth.target(video, expression)
            masks = {}
            for i in range(len(video.frames)):
                mask = target.mask(i)
                if mask is not None and mask.any():
                    masks[i] = to_coco(mask)
            frames = frozenset(range(len(video.frames)))
            found.append(Example(pictures, expression.text, masks, frames))
    return found


def split_by_video(
    examples: Sequence[Example], *, share: float = 0.2, least: int = 2
) -> tuple[list[Example], list[Example]]:
    """Split the examples by video into those to learn from and those to hold out.

    A video's key alone decides its side, so that it stays there when others come; if too few would be held out, the
    next ones in the order of their hashes join them.

    Args:
        examples: all examples.
        share: share of the videos to hold out, in the long run.
        least: least number of videos to hold out, as long as that many are left to learn from.

    Returns:
        Examples to learn from, examples held out.
    """
    place = {e.video.key: hash_of(e.video.key) for e in examples}
    order = sorted(place, key=place.__getitem__)
    count = sum(place[key] < share for key in order)
    held = set(order[: max(count, min(least, len(order) // 2))])
    return [e for e in examples if e.video.key not in held], [e for e in examples if e.video.key in held]


def hash_of(key: str) -> float:
    """Return a number 0..1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


@dataclass(frozen=True)
class Item:
    """One example in one step.

    Attributes:
        seen: its video as the model sees it.
        expression: what the model is asked.
        rows: i64 [K], which of the kept pictures have a mask in this step; K may be 0.
        target: f32 [K, h, w] in 0..1, at the size of SAM-2's logits.
        weight: f32 [K], weight of each mask in the loss.
        anchor: f32 [N, d_model], the [SEG] embeddings to keep; None: free to change.
    """

    seen: SeenVideo
    expression: str
    rows: Tensor
    target: Tensor
    weight: Tensor
    anchor: Tensor | None = None


@dataclass
class Batches:
    """Batches of corrections, with replay against forgetting.

    Attributes:
        examples: the corrections to learn from.
        replay: what the model must not forget; may be empty.
        cache: makes what the model sees.
        batch: examples per step, over all processes.
        replay_share: share of replay in a step.
        frames_per_clip: frames with a mask per clip and step.
        seed: seed of all random choices.
    """

    examples: Sequence[Example]
    replay: Sequence[Example]
    cache: ClipCache
    batch: int = 8
    replay_share: float = 0.5
    frames_per_clip: int = 1
    seed: int = 0
    _known: dict[str, tuple[set[int], set[int]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.examples:
            raise NotEnoughData(
                "There is nothing to learn from.", "Correct some predictions and submit them."
            )
        known: dict[str, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
        for example in (*self.examples, *self.replay):
            known[example.video.key][0].update(example.drawn)
            known[example.video.key][1].update(example.accepted)
        self._known = dict(known)

    @property
    def config(self) -> SvacConfig:
        """The model's configuration."""
        return self.cache.config

    def items(self, step: int, *, rank: int = 0, world: int = 1) -> list[Item]:
        """Return what process `rank` of `world` learns from in a step.

        Raises:
            SvacError: a video can't be read.
        """
        chosen = self.chosen(step)
        return [
            self._item(example, np.random.default_rng([self.seed, step, k]))
            for k, example in enumerate(chosen)
            if k % world == rank
        ]

    def chosen(self, step: int) -> list[Example]:
        """Return the examples of a step: each comes once before any comes again."""
        replayed = round(self.batch * self.replay_share) if self.replay else 0
        replayed = min(replayed, self.batch - 1)
        return self._next(self.examples, step, self.batch - replayed, 1) + self._next(
            self.replay, step, replayed, 2
        )

    def _next(self, examples: Sequence[Example], step: int, count: int, stream: int) -> list[Example]:
        found = []
        for number in range(step * count, (step + 1) * count):
            turn, place = divmod(number, len(examples))
            order = np.random.default_rng([self.seed, stream, turn]).permutation(len(examples))
            found.append(examples[int(order[place])])
        return found

    def _item(self, example: Example, rng: np.random.Generator) -> Item:
        drawn, accepted = self._known[example.video.key]
        seen = self.cache.get(example.video, drawn, accepted, self._part(example, rng))
        known = [row for row, frame in enumerate(seen.frames) if frame in example.drawn | example.accepted]
        rows: list[int] = []
        for clip in range(seen.num_clips):
            here = [row for row in known if seen.clip_of[row] == clip]
            first = [row for row in here if seen.frames[row] in example.drawn]
            rows += _draw(first, here, self.frames_per_clip, rng)
        side = self.config.sam.image_size // 4
        masks = [self._mask(example, seen.frames[row], side) for row in rows]
        weights = [DRAWN_WEIGHT if seen.frames[r] in example.drawn else ACCEPTED_WEIGHT for r in rows]
        return Item(
            seen,
            example.expression,
            torch.tensor(rows, dtype=torch.long),
            torch.stack(masks) if masks else torch.zeros(0, side, side),
            torch.tensor(weights),
            None if example.anchor is None else torch.from_numpy(example.anchor),
        )

    def _part(self, example: Example, rng: np.random.Generator) -> tuple[int, ...] | None:
        """Choose the frames to show to a model that decodes only a few; None: the whole video."""
        method = self.config.method
        size = method.num_clips * method.frames_per_clip
        if len(decoded_by(plan(4 * size, method))) > size:
            return None
        number = int(rng.integers(_PARTS))
        fixed = np.random.default_rng([self.seed, number, *example.video.key.encode()])
        frames = sorted(example.drawn) if len(example.drawn) >= size else list(example.frames)
        if number == 0 or len(frames) <= size:
            return tuple(spread(frames, size))
        return tuple(sorted(int(i) for i in fixed.choice(frames, size, replace=False)))

    @staticmethod
    def _mask(example: Example, frame: int, side: int) -> Tensor:
        """Return the ground truth f32 [side, side]; all 0 if the object is not there.

        Nearest neighbour, as published, takes the upper left pixel of each cell, so masks lie half a cell too far down
        and right. That is nothing at 256 cells per side, but a tenth of an object's width at a tiny model's 32, which
        would learn to shift all its masks. There, a cell holds the share that the object covers.
        """
        if frame not in example.masks:
            return torch.zeros(side, side)
        mask = torch.from_numpy(from_coco(example.masks[frame])).float()
        if side < _FINE:
            return F.adaptive_avg_pool2d(mask[None, None], side)[0, 0]
        return F.interpolate(mask[None, None], size=(side, side), mode="nearest")[0, 0]


def _draw(first: list[int], all_: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """Draw rows without repetition, mostly from `first`."""
    chosen: list[int] = []
    for _ in range(min(count, len(all_))):
        pool = [row for row in first if row not in chosen] if rng.random() < _DRAWN_FIRST else []
        pool = pool or [row for row in all_ if row not in chosen]
        chosen.append(pool[int(rng.integers(len(pool)))])
    return sorted(chosen)
