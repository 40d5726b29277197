"""From [SEG] embeddings and windows of frames to masks, in order: frames x objects together, or through memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from svac_backend.errors import SvacError
from svac_backend.masks.tracks import FrameMasks
from svac_backend.svac import preprocess
from svac_backend.svac.clips import ClipPlan
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.grounding import (
    Decoded,
    FrameFeatures,
    decode,
    encode_frames,
    without_memory,
)
from svac_backend.svac.memory import MemoryTracker
from svac_backend.svac.streaming import FrameFeed
from svac_backend.svac.upsampling import masks_at_size

# (frame, object) pairs that the mask decoder takes at a time: bounds memory, and more is not faster.
_PAIRS = 32


# Logits f32 [O, S/4, S/4] and scores f32 [O] of a frame's objects.
_Found = tuple[Tensor, Tensor]


@dataclass
class Window:
    """A window of frames on its way to masks.

    Attributes:
        start: its first frame.
        count: how many there are.
        features: of its frames; None once they are decoded.
        found: what was decoded of each frame without memory; None where that has to wait for the frames before.
    """

    start: int
    count: int
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
        propagation: SAM-2 with the original mask decoder, for propagation `anchor`.
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
        propagation: SAM2Base | None = None,
    ) -> None:
        self.sam, self.config, self.clips, self.size = sam, config, clips, size
        self.embeddings, self.owners, self.rows = embeddings, owners, rows
        self.clips_of: dict[int, list[int]] = {}
        for frame, clip in clips.decode:
            self.clips_of.setdefault(frame, []).append(clip)
        self.anchors: dict[int, _Found] = {}
        self.memory: MemoryTracker | None = None
        if clips.propagated is not None and len(embeddings):
            self.memory = MemoryTracker(
                propagation or sam,
                len(embeddings),
                clips.num_frames,
                no_object_masking=config.method.no_object_masking,
            )

    def condition(self, indices: Sequence[int], pixels: NDArray[np.uint8]) -> None:
        """Decode the anchor frames without memory and give their masks to memory (Sa2VA-i).

        Args:
            indices: the frames that the MLLM saw.
            pixels: u8 [k, S, S, 3], their pictures at SAM-2's size.
        """
        if self.memory is None:
            return
        for k, index in enumerate(indices):
            features = encode_frames(self.sam, preprocess.sam_pixels(pixels[k : k + 1]))
            self.anchors.update(self._decode_pairs(index, features, remember=False))
            masks = masks_at_size(self.anchors[index][0], self.config.sam.image_size, *self.size)
            self.memory.condition_masks(index, features, masks)

    def begin(self, start: int, features: FrameFeatures) -> Window:
        """Decode a window whose first frame is `start`, unless memory needs the windows before it; any thread may."""
        count = len(features.low)
        if self.memory is not None or not len(self.embeddings):
            return Window(start, count, features, None)
        return Window(start, count, None, self._decode_pairs(start, features, remember=False))

    def window(self, window: Window) -> Iterator[FrameMasks]:
        """Yield the masks of a window's frames; windows come in order."""
        for index, found in self._logits(window):
            yield self._result(index, found)

    def _logits(self, window: Window) -> Iterator[tuple[int, _Found | None]]:
        """Yield each frame and what was found there; None without objects."""
        frames, found = range(window.start, window.start + window.count), window.found
        if not len(self.embeddings):
            yield from ((i, None) for i in frames)
            return
        if found is None:
            assert window.features is not None
            found = self.anchors or self._decode_pairs(window.start, window.features, remember=True)
        for i in frames:
            if i in found:
                yield i, found.pop(i)
                continue
            if self.memory is None or window.features is None:
                raise SvacError(
                    f"Frame {i} is in no clip.", "Use sampling 'uniform' or propagation 'memory'."
                )
            yield i, self.memory.track(i, window.features.take([i - window.start]))

    def _decode_pairs(self, start: int, features: FrameFeatures, *, remember: bool) -> dict[int, _Found]:
        """Decode frames x objects without memory: frame -> logits f32 [O, S/4, S/4] and scores f32 [O]."""
        objects, count = len(self.embeddings), len(features.low)
        frames = [i for i in range(start, start + count) if i in self.clips_of]
        pairs = [(i, o, clip) for i in frames for o in range(objects) for clip in self.clips_of[i]]

        def decoded(part: list[tuple[int, int, int]]) -> Decoded:
            chosen = features.take([i - start for i, _, _ in part])
            language = torch.stack([self.embeddings[o, clip] for _, o, clip in part])
            low, no_object = without_memory(self.sam, chosen), self.config.method.no_object_masking
            return decode(self.sam, low, chosen.high, language.to(low.dtype), no_object_masking=no_object)

        parts = [decoded(pairs[k : k + _PAIRS]) for k in range(0, len(pairs), _PAIRS)]
        results = {}
        row = 0
        if parts:
            logits = torch.cat([part.logits for part in parts])
            existence = torch.cat([part.existence for part in parts])
            scores = existence.sigmoid() * torch.cat([part.iou for part in parts])
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
