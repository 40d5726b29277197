"""What training minimises: the answer's cross-entropy, the published mask losses of each [SEG], and existence.

Sources: Sa2VA's published training (LM cross-entropy + 2.0 BCE + 0.5 dice on sampled points, no memory) and SVAC's CSA:
each [SEG] answers for the frames of its own clip. The points are sampled where the prediction is uncertain: Mask2Former
(PointRend), with mmdetection's `CrossEntropyLoss` and `DiceLoss` (naive, eps 1). Existence (SAM-2's object score, as
SAM-2 itself is trained) is added if the method empties the masks of absent objects, since otherwise nothing trains that
score. Replayed examples that are the model's own answers keep the [SEG] embeddings behind those answers.

The outputs of the frozen parts, the vision tower and SAM-2's image encoder, are cached as far as they fit in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svac_backend.errors import SvacError
from svac_backend.learning.examples import Item
from svac_backend.learning.videos import SeenVideo
from svac_backend.svac import astc
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import FrameFeatures, decode, encode_frames, without_memory

LM_WEIGHT, EXISTENCE_WEIGHT, ANCHOR_WEIGHT = 1.0, 0.5, 2.0
BCE_WEIGHT, DICE_WEIGHT, DICE_EPS = 2.0, 0.5, 1.0
# Points per mask, candidates per point, and the share of points chosen for their uncertainty.
POINTS, OVERSAMPLE, IMPORTANCE = 12544, 3.0, 0.75
# The published code adds this to the denominators of both means.
_EPS = 1e-4
# Bytes of memory for the outputs of frozen parts; what does not fit is computed again in each step.
HELD_BYTES = 600 << 20
# Pictures that the frozen parts process at a time.
_BATCH = 8


@dataclass
class Losses:
    """The weighted terms of the loss; f32 scalars.

    Attributes:
        lm: cross-entropy of the answers' tokens.
        bce, dice: mask losses; 0 if the step has no masks.
        existence: loss of the object score; 0 if the method does not use it.
        anchor: distance of replayed [SEG] embeddings from what they were, as a share of their variance.
        iou: mean IoU of the masks on frames that show the object, for the curves; NaN if there are none.
    """

    lm: Tensor
    bce: Tensor
    dice: Tensor
    existence: Tensor
    anchor: Tensor
    iou: float

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.lm + self.bce + self.dice + self.existence + self.anchor


class Objective(nn.Module):
    """The model with its losses, as one module that a step calls.

    Args:
        model: the model, whose trained parameters require gradients.
        frozen: its frozen parts.
    """

    def __init__(self, model: Svac, frozen: FrozenParts) -> None:
        super().__init__()
        self.model = model
        self._frozen = [frozen]  # in a list, so that its model is not registered as a second submodule

    def forward(self, items: Sequence[Item]) -> Losses:
        """Return the losses of some examples."""
        lm, embeddings = self.answers(items)
        return self.masks(items, embeddings, lm)

    def answers(self, items: Sequence[Item]) -> tuple[Tensor, list[Tensor]]:
        """Run the language model on the given answers (teacher forcing).

        Returns:
            Cross-entropy of all answers' tokens, and for each item the projected [SEG] states [N, d_model].
        """
        mllm, builder = self.model.mllm, self.model.chat
        seen = [mllm.see(self._frozen[0].looked(item.seen)) for item in items]
        prompts = [
            builder.build(item.expression, images.counts, item.seen.num_clips)
            for item, images in zip(items, seen, strict=True)
        ]
        told, labels, embeddings = [], [], []
        for states, prompt in zip(mllm.forced(prompts, seen, builder.context_id), prompts, strict=True):
            start = len(prompt.prefix) + prompt.answer_start
            stop = len(prompt.prefix) + len(prompt.suffix)
            told.append(states.last[start - 1 : stop - 1])
            labels.append(prompt.suffix[prompt.answer_start :])
            where = (prompt.seg + len(prompt.prefix)).to(states.seg.device)
            embeddings.append(mllm.project(states.seg[where]))
        logits = mllm.language_model.lm_head(torch.cat(told)).float()
        return LM_WEIGHT * F.cross_entropy(logits, torch.cat(labels).to(logits.device)), embeddings

    def masks(self, items: Sequence[Item], embeddings: Sequence[Tensor], lm: Tensor | None = None) -> Losses:
        """Return the losses of the masks that these [SEG] embeddings make, each on frames of its own clip.

        Args:
            items: the examples.
            embeddings: [N, d_model] for each example.
            lm: the answers' cross-entropy, passed on into the result.
        """
        none = embeddings[0].new_zeros((), dtype=torch.float32)
        lm = none if lm is None else lm
        parts, language = [], []
        for item, seg in zip(items, embeddings, strict=True):
            if len(item.rows):
                parts.append(self._frozen[0].features(item.seen, item.rows))
                language.append(seg[[item.seen.clip_of[int(row)] for row in item.rows]])
        if not parts:
            return Losses(lm, none, none, none, anchor_loss(items, embeddings), float("nan"))
        features = FrameFeatures.joined(parts)
        sam = self.model.sam
        # Absent objects are not masked out here, since the logits need their gradient.
        out = decode(
            sam,
            without_memory(sam, features),
            features.high,
            torch.cat(language),
            no_object_masking=False,
        )
        target = torch.cat([item.target for item in items]).to(out.logits.device)
        weight = torch.cat([item.weight for item in items]).to(out.logits.device)
        bce, dice = weighted_mask_loss(out.logits, target, weight)
        present = (target.flatten(1).sum(1) > 0).float()
        existence = none
        if self.model.config.method.seg_masking:
            each = F.binary_cross_entropy_with_logits(out.existence, present, reduction="none")
            existence = EXISTENCE_WEIGHT * (each * weight).sum() / weight.sum()
        anchor = anchor_loss(items, embeddings)
        return Losses(lm, bce, dice, existence, anchor, _iou(out.logits, target, present))


def anchor_loss(items: Sequence[Item], embeddings: Sequence[Tensor]) -> Tensor:
    """Return the weighted distance of [SEG] embeddings from the ones to keep; 0 where there are none."""
    parts = []
    for item, seg in zip(items, embeddings, strict=True):
        if item.anchor is not None:
            kept = item.anchor.to(seg.device)
            parts.append(F.mse_loss(seg.float(), kept) / kept.var().clamp(min=1e-6))
    if not parts:
        return embeddings[0].new_zeros((), dtype=torch.float32)
    return ANCHOR_WEIGHT * torch.stack(parts).sum() / len(items)


def weighted_mask_loss(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the published BCE and dice as weighted means over masks.

    Args:
        logits: [K, h, w].
        target: [K, h, w], 0..1.
        weight: [K], weight of each mask.
    """
    # A mask of few cells needs no more points than it has cells.
    points = min(POINTS, logits[0].numel())
    bce, dice = logits.new_zeros(()), logits.new_zeros(())
    for value in weight.unique():
        rows = (weight == value).nonzero()[:, 0]
        each_bce, each_dice = mask_loss(logits[rows], target[rows], points=points)
        share = value * len(rows) / weight.sum()
        bce, dice = bce + share * each_bce, dice + share * each_dice
    return bce, dice


@torch.no_grad()
def _iou(logits: Tensor, target: Tensor, present: Tensor) -> float:
    hard, real = logits > 0, target > 0.5
    iou = (hard & real).sum((1, 2)) / (hard | real).sum((1, 2)).clamp(min=1)
    return float((iou * present).sum() / present.sum()) if present.any() else float("nan")


def mask_loss(
    logits: Tensor, targets: Tensor, *, points: int = POINTS, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return the published BCE and dice of N masks, weighted: f32 scalars.

    Args:
        logits: [N, h, w], before upsampling (SAM-2's size / 4).
        targets: bool or 0..1 [N, H, W]; resized to the logits by nearest, as published.
        points: number of points sampled per mask.
        generator: makes the sampled points reproducible.

    Raises:
        SvacError: there is no mask, or not one target for each.
    """
    if logits.ndim != 3 or targets.ndim != 3 or len(logits) != len(targets) or not len(logits):
        raise SvacError(
            f"Masks of shapes {tuple(logits.shape)} and {tuple(targets.shape)} can't be compared.",
            "Give one target for each predicted mask, both [N, H, W].",
        )
    targets = F.interpolate(targets[:, None].float(), size=logits.shape[1:], mode="nearest")[:, 0]
    logits = logits.float()
    where = uncertain_points(logits, count=points, generator=generator)
    predicted, true = sample_at(logits, where), sample_at(targets, where)
    return bce_loss(predicted, true), dice_loss(predicted, true)


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean sigmoid cross-entropy over all points, weighted.

    Args:
        logits: [N, P].
        targets: [N, P] in 0..1.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")
    return BCE_WEIGHT * total / (logits.numel() + _EPS)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean dice loss of N masks, weighted: 1 - (2 a + eps) / (b + c + eps).

    a is the sum of the products, b of the predicted and c of the true values ("naive": not of their squares). eps keeps
    two empty masks equal.

    Args:
        logits: [N, P].
        targets: [N, P] in 0..1.
    """
    predicted, true = logits.float().sigmoid(), targets.float()
    overlap = (predicted * true).sum(1)
    dice = (2 * overlap + DICE_EPS) / (predicted.sum(1) + true.sum(1) + DICE_EPS)
    return DICE_WEIGHT * (1 - dice).sum() / (len(logits) + _EPS)


@torch.no_grad()
def uncertain_points(logits: Tensor, *, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Choose points: most of them where the logits are nearest to 0, the rest anywhere.

    Args:
        logits: [N, H, W].
        count: P, number of points per mask.
        generator: makes the points reproducible; on the device of the logits.

    Returns:
        f32 [N, P, 2], x and y in 0..1.
    """
    masks, device = len(logits), logits.device

    def anywhere(points: int) -> Tensor:
        return torch.rand(masks, points, 2, device=device, generator=generator)

    candidates = anywhere(int(count * OVERSAMPLE))
    uncertainty = -sample_at(logits.float(), candidates).abs()
    chosen = int(count * IMPORTANCE)
    index = uncertainty.topk(chosen, dim=1).indices
    uncertain = candidates.gather(1, index[..., None].expand(-1, -1, 2))
    return torch.cat([uncertain, anywhere(count - chosen)], dim=1)


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps at points, bilinearly.

    Args:
        maps: f32 [N, H, W].
        points: f32 [N, P, 2], x and y in 0..1; (0, 0) is the upper left corner of the first pixel.

    Returns:
        f32 [N, P]; what lies beyond the edge pixels' centres fades to 0.
    """
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps[:, None], grid, mode="bilinear", align_corners=False)[:, 0, :, 0]


class FrozenParts:
    """Runs the vision tower and SAM-2's image encoder without gradients, and caches what fits.

    Args:
        model: the model; these parts must not change meanwhile.
        held_bytes: bytes of memory for the cache, on the model's device.
    """

    def __init__(self, model: Svac, held_bytes: int = HELD_BYTES) -> None:
        self._model = model
        self._room = held_bytes
        self._held: OrderedDict[tuple[str, str, int], tuple[Tensor, ...]] = OrderedDict()
        self._bytes = 0

    def looked(self, seen: SeenVideo) -> tuple[Tensor, ...]:
        """Return the output of the frozen parts before the language model for a video's images, see `Mllm.look`."""
        return self._kept(("looked", seen.key, 0), lambda: self._look(seen))

    def features(self, seen: SeenVideo, rows: Tensor) -> FrameFeatures:
        """Return SAM-2's features of some of the kept pictures (i64 [K], K >= 1)."""
        wanted = [int(row) for row in rows]
        missing = [row for row in wanted if ("frame", seen.key, row) not in self._held]
        made: dict[int, tuple[Tensor, ...]] = {}
        # The size of a batch changes the last bits of its results. On the CPU, one frame at a time is as fast, and lets
        # a run that resumes with an empty cache compute the same features as before.
        size = 1 if self._model.device.type == "cpu" else _BATCH
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            with torch.no_grad():
                found = encode_frames(self._model.sam, astc.sam_pixels(seen.pixels[part]))
            for k, row in enumerate(part):
                levels = (found.low, *found.high, found.position)
                # Copies: a view would keep the features of the whole batch.
                made[row] = tuple(level[k : k + 1].clone() for level in levels)
        parts = [made[row] if row in made else self._kept(("frame", seen.key, row), tuple) for row in wanted]
        for row, tensors in made.items():
            self._keep(("frame", seen.key, row), tensors)
        low, fine, finer, position = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return FrameFeatures(low, (fine, finer), position)

    @torch.no_grad()
    def _look(self, seen: SeenVideo) -> tuple[Tensor, ...]:
        return self._model.mllm.look(seen.images)

    def _kept(self, key: tuple[str, str, int], make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        made = make()
        self._keep(key, made)
        return made

    def _keep(self, key: tuple[str, str, int], tensors: tuple[Tensor, ...]) -> None:
        size = sum(t.numel() * t.element_size() for t in tensors)
        if size > self._room:
            return
        self._held[key] = tensors
        self._bytes += size
        while self._bytes > self._room:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= sum(t.numel() * t.element_size() for t in dropped)
