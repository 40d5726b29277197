"""From [SEG] embeddings and windows of frames to masks, in order: frames x objects together, or through memory.

Logits become masks at the frame's size in two bilinear steps, as in the published code, only where masks are.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from svac_backend.errors import SvacError
from svac_backend.masks.tracks import FrameMasks
from svac_backend.svac import astc
from svac_backend.svac.astc import ClipPlan
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.parts import Parts
from svac_backend.svac.sam.grounding import Decoded, FrameFeatures, decode_seg, encode_for, encode_frames
from svac_backend.svac.sam.memory import MemoryTracker
from svac_backend.svac.streaming import FrameFeed

# How far two ways to sum the same four products can be apart, relative to the largest of the four logits, and where the
# sigmoid of a positive logit is rounded to one half.
_ROUNDING, _HALF = 5e-7, 2e-7


def masks_at_size(logits: Tensor, sam_size: int, height: int, width: int) -> Tensor:
    """Upsample logits [k, S/4, S/4] to SAM-2's size and then to the frame's; returns bool [k, H, W].

    Two bilinear steps and a sigmoid: one step would move edge pixels. On the CPU only the pixels at the masks' edges
    are computed, by PyTorch's own weights; masks with a logit so near to 0 that rounding could decide are computed as
    a whole. So every pixel is the same either way.
    """
    large = F.interpolate(
        logits[:, None].float(), size=(sam_size, sam_size), mode="bilinear", align_corners=False
    )
    if logits.device.type != "cpu":
        return _whole(large, height, width)
    masks = np.zeros((len(logits), height, width), dtype=np.bool_)
    padded = F.pad(large, (1, 1, 1, 1), mode="replicate")[:, 0].numpy()
    for number, mask in enumerate(masks):
        if not _fill(mask, padded[number]):
            mask[:] = _whole(large[number : number + 1], height, width)[0].numpy()
    return torch.from_numpy(masks)


def _whole(large: Tensor, height: int, width: int) -> Tensor:
    full = F.interpolate(large, size=(height, width), mode="bilinear", align_corners=False)
    return full[:, 0].sigmoid_() > 0.5


def masks_in_one_step(logits: Tensor, height: int, width: int) -> Tensor:
    """Upsample logits [k, S/4, S/4] to the frame's size at once, as Sa2VA-i does on key frames; bool [k, H, W]."""
    return _whole(logits[:, None].float(), height, width)


def _fill(mask: NDArray[np.bool_], padded: NDArray[np.float32]) -> bool:
    """Set the pixels of a mask, bool [H, W], that logits make positive; False where rounding decides one.

    A cell is what lies between four neighbouring logits. Where these have one sign, so have its pixels; only cells of
    both signs are computed.

    Args:
        mask: all False.
        padded: f32 [S + 2, S + 2], logits [S, S] with their edges repeated: what lies beyond them are cells, too.
    """
    positive = padded > 0
    rows, columns = np.flatnonzero(positive.any(1)), np.flatnonzero(positive.any(0))
    if not len(rows):
        return True
    down, across = _grid(len(padded) - 2, mask.shape[0]), _grid(len(padded) - 2, mask.shape[1])
    # The cells that have a positive logit.
    top, bottom = max(int(rows[0]) - 1, 0), min(int(rows[-1]) + 1, len(down.counts))
    left, right = max(int(columns[0]) - 1, 0), min(int(columns[-1]) + 1, len(across.counts))
    source = padded[top : bottom + 1, left : right + 1]
    some, every = positive[top : bottom + 1, left : right + 1], source > 2 * _HALF
    some, every = some[:-1] | some[1:], every[:-1] & every[1:]
    some, every = some[:, :-1] | some[:, 1:], every[:, :-1] & every[:, 1:]
    wide = np.repeat(every, across.counts[left:right], axis=1)
    part = np.repeat(wide, down.counts[top:bottom], axis=0)
    first, begin = down.start[top], across.start[left]
    mask[first : first + part.shape[0], begin : begin + part.shape[1]] = part
    mixed = some ^ every
    if len(padded) - 2 > min(mask.shape):  # a shrunk frame takes no pixel from some cells
        mixed &= (down.counts[top:bottom, None] > 0) & (across.counts[left:right] > 0)
    r, c = np.nonzero(mixed)
    y, x = down.pixels[top + r], across.pixels[left + c]
    if y.size * x.shape[1] > mask.size:  # the whole is cheaper then
        return False
    values, certain = _between(source, r, c, down.weight[top + r], across.weight[left + c])
    mask[y[:, :, None], x[:, None, :]] = values > 0
    return certain


def _between(
    source: NDArray[np.float32],
    r: NDArray[np.int64],
    c: NDArray[np.int64],
    down: NDArray[np.float32],
    across: NDArray[np.float32],
) -> tuple[NDArray[np.float32], bool]:
    """Return the values of the pixels in k cells, f32 [k, p, q], and whether rounding decides no sign.

    Args:
        source: f32 [h, w], logits.
        r, c: i64 [k], each cell's first row and column in it.
        down: f32 [k, p], for each row of pixels the first row's weight.
        across: f32 [k, q], for each column of pixels the first column's weight.
    """
    corners = source[r, c], source[r, c + 1], source[r + 1, c], source[r + 1, c + 1]
    one, two, three, four = (corner[:, None] for corner in corners)
    upper, lower = across * one + (1 - across) * two, across * three + (1 - across) * four
    values = down[:, :, None] * upper[:, None] + (1 - down)[:, :, None] * lower[:, None]
    doubt = np.maximum(_ROUNDING * np.abs(corners).max(0), _HALF)
    return values, not bool((np.abs(values) < doubt[:, None, None]).any())


class _Grid(NamedTuple):
    """Where the target pixels of one axis lie between the S source pixels, by PyTorch's own bilinear weights.

    Cell 0 lies before the first source pixel, cell S behind the last one.

    Attributes:
        start, counts: i64 [S + 1], where the pixels of each cell begin, and how many there are.
        pixels: i64 [S + 1, p], the pixels of each cell, the last one as often as it takes to make p; without meaning
            where a cell has none.
        weight: f32 [S + 1, p], the weight of the source pixel before each; the one behind it has the rest.
    """

    start: NDArray[np.int64]
    counts: NDArray[np.int64]
    pixels: NDArray[np.int64]
    weight: NDArray[np.float32]


@lru_cache(maxsize=16)
def _grid(source: int, target: int) -> _Grid:
    unit = torch.eye(source)[None, :, :, None]
    weights = F.interpolate(unit, size=(target, 1), mode="bilinear", align_corners=False)[0, :, :, 0].T
    first = (weights > 0).int().argmax(1)
    weight = weights.gather(1, first[:, None])[:, 0]
    # Pixels that are made from the first source pixel alone lie before it, or on it.
    cell = first + 1 - ((first == 0) & (weight == 1)).long()
    bounds = torch.searchsorted(cell, torch.arange(source + 2))
    start, count = bounds[:-1], bounds.diff()
    pixels = start[:, None] + torch.arange(int(count.max()))
    pixels = torch.minimum(pixels, (bounds[1:, None] - 1).clamp(min=0))
    return _Grid(start.numpy(), count.numpy(), pixels.numpy(), weight[pixels].numpy())


# (frame, object) pairs that the mask decoder takes at a time: bounds memory, and more is not faster.
_PAIRS = 32


# Logits f32 [O, S/4, S/4] and scores f32 [O] of a frame's objects.
_Found = tuple[Tensor, Tensor]


@dataclass
class EncodedWindow:
    """A window of frames on its way to masks.

    Attributes:
        frames: of the video.
        features: of its frames, without key frames; None once they are decoded, or where there are no others.
        found: what was decoded of each frame without memory; None where that has to wait for the frames before.
    """

    frames: range
    features: FrameFeatures | None
    found: dict[int, _Found] | None


class WindowDecoder:
    """Decodes the windows of one video; keeps what memory needs and nothing else.

    Args:
        sam: the model.
        config: its configuration.
        clips: which embedding decodes which frame.
        size: height and width of the masks, in pixels.
        embeddings: f32 [O, N, d_model], one per object and clip.
        owners: for each object the row of the result that it belongs to; objects of one row are united.
        rows: rows of the result. A row without an object has empty masks and the score 0.
        tracking: SAM-2 with the original mask decoder, for propagation `anchor`; its features are what windows have.
    """

    def __init__(
        self,
        sam: SAM2Base,
        config: SvacConfig,
        clips: ClipPlan,
        size: tuple[int, int],
        embeddings: Tensor,
        owners: Sequence[int],
        rows: int,
        tracking: SAM2Base | None = None,
    ) -> None:
        self.sam, self.config, self.clips, self.size = sam, config, clips, size
        self.embeddings, self.owners, self.rows = embeddings, owners, rows
        self.clips_of: dict[int, list[int]] = {}
        for frame, clip in clips.decode:
            self.clips_of.setdefault(frame, []).append(clip)
        self.tracking = tracking or sam
        self.anchored = config.method.propagation == "anchor"
        self.anchors: dict[int, _Found] = {}
        self.parts = Parts(_PAIRS)
        self.memory: MemoryTracker | None = None
        if (self.anchored or clips.propagated is not None) and len(embeddings):
            self.memory = MemoryTracker(
                self.tracking,
                len(embeddings),
                clips.num_frames,
                no_object_masking=config.method.no_object_masking,
            )

    def condition(self, indices: Sequence[int], pixels: NDArray[np.uint8]) -> None:
        """Decode the key frames without memory and give their masks to memory; what it keeps is the result (Sa2VA-i).

        Each mask decoder is given its own projection of the frame, as published; a frame is encoded once for both.

        Args:
            indices: the frames that the MLLM saw.
            pixels: u8 [k, S, S, 3], their pictures at SAM-2's size.
        """
        if self.memory is None:
            return
        for k, index in enumerate(indices):
            tuned, original = encode_for((self.sam, self.tracking), astc.sam_pixels(pixels[k : k + 1]))
            logits, scores = self._decode_pairs(index, tuned, remember=False)[index]
            masks = masks_in_one_step(logits, *self.size)
            self.anchors[index] = (self.memory.condition_masks(index, original, masks), scores)

    def begin(self, frames: range, features: FrameFeatures | None) -> EncodedWindow:
        """Decode a window of these frames, unless memory needs the windows before it; any thread may."""
        if features is None or self.memory is not None or not len(self.embeddings):
            return EncodedWindow(frames, features, None)
        return EncodedWindow(frames, None, self._decode_pairs(frames.start, features, remember=False))

    def window(self, window: EncodedWindow) -> Iterator[FrameMasks]:
        """Yield the masks of a window's frames; windows come in order."""
        for index, found in self._logits(window):
            yield self._result(index, found)

    def _logits(self, window: EncodedWindow) -> Iterator[tuple[int, _Found | None]]:
        """Yield each frame and what was found there; None without objects."""
        found = window.found
        if not len(self.embeddings):
            yield from ((i, None) for i in window.frames)
            return
        if found is None:
            found = self.anchors
            if not self.anchored and window.features is not None:
                found = self._decode_pairs(window.frames.start, window.features, remember=True)
        place = 0
        for i in window.frames:
            if i in found:
                yield i, found.pop(i)
                place += not self.anchored  # key frames have no features here
                continue
            if self.memory is None or window.features is None:
                raise SvacError(
                    f"Frame {i} is in no clip.", "Use sampling 'uniform' or propagation 'memory'."
                )
            yield i, self.memory.track(i, window.features.take([place]))
            place += 1

    def _decode_pairs(self, start: int, features: FrameFeatures, *, remember: bool) -> dict[int, _Found]:
        """Decode frames x objects without memory: frame -> logits f32 [O, S/4, S/4] and scores f32 [O]."""
        objects, count = len(self.embeddings), len(features.low)
        frames = [i for i in range(start, start + count) if i in self.clips_of]
        pairs = [(i, o, clip) for i in frames for o in range(objects) for clip in self.clips_of[i]]

        def decoded(part: list[tuple[int, int, int]]) -> Decoded:
            chosen = features.take([i - start for i, _, _ in part])
            language = torch.stack([self.embeddings[o, clip] for _, o, clip in part])
            return decode_seg(self.sam, chosen, language, no_object_masking=self.config.method.seg_masking)

        parts = self.parts.run(decoded, pairs)
        results = {}
        row = 0
        if parts:
            logits = torch.cat([part.logits for part in parts])
            existence = torch.cat([part.existence for part in parts])
            scores = torch.cat([part.score for part in parts])
            tokens = torch.cat([part.token for part in parts])
        for i in frames:
            seen = len(self.clips_of[i])
            rows = slice(row, row + objects * seen)
            row += objects * seen
            # The published code averages the logits of a frame that stands in several clips.
            mean = logits[rows].view(objects, seen, *logits.shape[1:]).mean(1) if seen > 1 else logits[rows]
            results[i] = (mean, scores[rows].view(objects, seen).mean(1))
            if remember and self.memory is not None:
                one = features.take([i - start])
                self.memory.condition(i, one, logits[rows], existence[rows], tokens[rows])
        return results

    def _result(self, index: int, found: _Found | None) -> FrameMasks:
        """Bring logits to the frame's size and unite the objects of a row."""
        masks = np.zeros((self.rows, *self.size), dtype=np.bool_)
        scores = np.zeros(self.rows, dtype=np.float32)
        if found is not None:
            logits, rated = found
            each = masks_at_size(logits, self.config.sam.image_size, *self.size).cpu().numpy()
            values = rated.float().cpu().numpy()
            if list(self.owners) == list(range(self.rows)):
                return FrameMasks(index=index, masks=each, scores=values)
            for number, owner in enumerate(self.owners):
                masks[owner] |= each[number]
                scores[owner] = max(scores[owner], values[number])
        return FrameMasks(index=index, masks=masks, scores=scores)


@torch.inference_mode()
def masks_of_windows(feed: FrameFeed, decoder: WindowDecoder) -> Generator[FrameMasks]:
    """Yield the masks of each frame of a video, in order."""
    with closing(feed.features(decoder.begin)) as windows:
        for parts in windows:
            for part in parts:
                yield from decoder.window(part)


@torch.inference_mode()
def anchor_scores(sam: SAM2Base, pixels: NDArray[np.uint8], embeddings: Tensor) -> Tensor:
    """Return how sure this SAM-2 is of O objects on N anchor frames, f32 [O], 0..1 in the mean.

    Args:
        sam: the model.
        pixels: u8 [N, S, S, 3].
        embeddings: f32 [O, N, d_model].
    """
    features = encode_frames(sam, astc.sam_pixels(pixels))
    scores = []
    for seg in embeddings:
        out = decode_seg(sam, features, seg, no_object_masking=False)
        scores.append((out.existence.sigmoid() * out.iou).mean())
    return torch.stack(scores) if scores else embeddings.new_zeros(0)


def surest(scores: Sequence[Tensor], least: float = 0.0) -> list[list[int]]:
    """Return for each SAM-2 the objects that it is the surest of.

    Args:
        scores: f32 [O], of each SAM-2.
        least: objects that none is so sure of go to nobody.
    """
    most, best = torch.stack(list(scores)).max(0)
    takers = torch.where(most < least, -1, best).tolist()
    return [[o for o, taker in enumerate(takers) if taker == k] for k in range(len(scores))]


def united(streams: Sequence[Generator[FrameMasks]]) -> Generator[FrameMasks]:
    """Yield each frame of streams of one video that have the same rows; a row is in one of them."""
    with ExitStack() as stack:
        for stream in streams:
            stack.enter_context(closing(stream))
        for first, *rest in zip(*streams, strict=True):
            for frame in rest:
                np.logical_or(first.masks, frame.masks, out=first.masks)
                np.maximum(first.scores, frame.scores, out=first.scores)
            yield first
