"""What the frozen parts make of the pictures: the vision tower's tokens and SAM-2's features, kept while they fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from svac_backend.svac import preprocess
from svac_backend.svac.grounding import FrameFeatures, encode_frames
from svac_backend.svac.mllm import pixel_shuffle
from svac_backend.svac.model import Svac
from svac_backend.training.clip_cache import Seen

# Beyond this they are made again in each step.
HELD_BYTES = 600 << 20
# Pictures that the frozen parts take at a time.
_BATCH = 8


class FrozenParts:
    """Runs the vision tower and SAM-2's image encoder without gradients; what fits is kept.

    Args:
        model: whose parts; they must not change meanwhile.
        held_bytes: memory for what is kept, on the model's device.
    """

    def __init__(self, model: Svac, held_bytes: int = HELD_BYTES) -> None:
        self._model = model
        self._room = held_bytes
        self._held: OrderedDict[tuple[str, str, int], tuple[Tensor, ...]] = OrderedDict()
        self._bytes = 0

    def tokens(self, seen: Seen) -> Tensor:
        """Return what `mlp1` takes of a video's images, [I, tokens, channels]."""
        return self._kept(("tokens", seen.key, 0), lambda: (self._tokens(seen),))[0]

    def features(self, seen: Seen, rows: Tensor) -> FrameFeatures:
        """Return SAM-2's features of some of the kept pictures (i64 [K], K >= 1)."""
        wanted = [int(row) for row in rows]
        missing = [row for row in wanted if ("frame", seen.key, row) not in self._held]
        made: dict[int, tuple[Tensor, ...]] = {}
        # A batch's size changes the last bits of its results. On the CPU, where one frame at a time is as fast, a run
        # that goes on with an empty cache so makes the same features as before.
        size = 1 if self._model.device.type == "cpu" else _BATCH
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            with torch.no_grad():
                found = encode_frames(self._model.sam, preprocess.sam_pixels(seen.pixels[part]))
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
    def _tokens(self, seen: Seen) -> Tensor:
        mllm, config = self._model.mllm, self._model.config
        side = config.vision.image_size // config.vision.patch_size
        pixels = preprocess.mllm_pixels(seen.images)
        dtype = next(mllm.vision_model.parameters()).dtype
        outputs = []
        for part in pixels.split(_BATCH):
            hidden = mllm.vision_model(part.to(self._model.device, dtype)).last_hidden_state[:, 1:]
            grid = hidden.reshape(len(part), side, side, -1)
            outputs.append(pixel_shuffle(grid, config.downsample_ratio, config.ps_version).flatten(1, 2))
        return torch.cat(outputs)

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
