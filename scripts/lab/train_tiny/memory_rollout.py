"""SAM-2's memory over a short sequence of many scenes' objects at once, with gradients.

It is what `svac/sam/memory.py` does with one video, frame by frame; here objects of several videos share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor

from svac_backend.svac.sam.grounding import Decoded, FrameFeatures, decode, without_memory
from svac_backend.svac.sam.matching import Remembered, matching_of
from svac_backend.svac.sam.memory import BEFORE, MATCHED, Matchable, decode_tracked, matchable


@dataclass
class Given:
    """What N objects are prompted with on one frame: masks, or points.

    Attributes:
        masks: bool [N, H, W].
        points: coordinates f32 [N, P, 2] in 0..1 and SAM-2's labels f32 [N, P].
    """

    masks: Tensor | None = None
    points: tuple[Tensor, Tensor] | None = None


def rollout(
    sam: SAM2Base, features: FrameFeatures, frame: Tensor, given: Mapping[int, Given]
) -> dict[int, Decoded]:
    """Condition on the given frames, then track through the others in order.

    Args:
        features: of all frames.
        frame: i64 [N, T], the row of `features` that is object n's frame t.
        given: prompts by position t.

    Returns:
        By position what the mask decoder said, without masking of absent objects; nothing for mask prompts.
    """
    cond: dict[int, dict[str, Any]] = {}
    recent: dict[int, dict[str, Any]] = {}
    found: dict[int, Decoded] = {}
    matched = _Matches(sam, features, frame)
    outputs = {"cond_frame_outputs": cond, "non_cond_frame_outputs": recent}
    length = frame.shape[1]
    for t, prompt in sorted(given.items()):
        here = features.take(frame[:, t])
        if prompt.masks is not None:
            cond[t] = _taken(sam, here, prompt.masks)
            matched.keep(t, cond[t].pop("logits"), given=True)
        else:
            points = prompt.points
            scaled = None if points is None else (points[0] * sam.image_size, points[1])
            low = without_memory(sam, here)
            found[t] = decode(sam, low, here.high, None, no_object_masking=False, points=scaled)
            # Where a person points there is something, whatever the model believes.
            some = (found[t].logits > 0).flatten(1).any(1)
            existence = torch.where(some, found[t].existence.abs(), found[t].existence)
            cond[t] = _remembered(sam, here, found[t].logits, existence, found[t].token)
            matched.keep(t, found[t].logits, given=True)
    for t in range(length):
        if t in cond:
            continue
        here = features.take(frame[:, t])
        fused = sam._prepare_memory_conditioned_features(
            frame_idx=t,
            is_init_cond_frame=False,
            current_vision_feats=[_sequence(here.low)],
            current_vision_pos_embeds=[_sequence(here.position)],
            feat_sizes=[here.low.shape[-2:]],
            output_dict=outputs,
            num_frames=length,
        )
        out = decode_tracked(sam, fused, here, matched.at(t), no_object_masking=False)
        found[t] = out
        recent[t] = _remembered(sam, here, masked(out), out.existence, out.token)
        matched.keep(t, masked(out))
    return found


class _Matches:
    """What is kept of the frames for feature matching, scene by scene: objects of a scene share its frames."""

    def __init__(self, sam: SAM2Base, features: FrameFeatures, frame: Tensor) -> None:
        self.matching, self.features, self.frame = matching_of(sam), features.match, frame
        _, self.scene, counts = frame[:, 0].unique_consecutive(return_inverse=True, return_counts=True)
        self.slot = torch.cat([torch.arange(int(count), device=frame.device) for count in counts])
        self.shape = (len(counts), int(counts.max()))
        self.rows = counts.cumsum(0) - counts  # the first object of each scene
        self.given: dict[int, Matchable] = {}
        self.tracked: dict[int, Matchable] = {}

    def keep(self, t: int, logits: Tensor, *, given: bool = False) -> None:
        """Keep a frame with its masks' logits f32 [N, S/4, S/4]."""
        if self.features is None:
            return
        table = logits.new_full((*self.shape, *logits.shape[1:]), NO_OBJ_SCORE)
        table[self.scene, self.slot] = logits
        kept = matchable(self._seen(t), table)
        assert kept is not None
        (self.given if given else self.tracked)[t] = kept

    def at(self, t: int) -> Tensor | None:
        """Return where the objects are on frame t, logits f32 [N, S/8, S/8]; as `MemoryTracker` does, forwards."""
        if self.matching is None:
            return None
        nearest = sorted(self.given, key=lambda i: abs(t - i))[:MATCHED]
        every = self.given | self.tracked
        before = [i for i in range(t - 1, t - 1 - BEFORE, -1) if i in every] or nearest[:1]
        given, recent = [self.given[i] for i in nearest], [every[i] for i in before]
        found: Tensor = self.matching(self._seen(t), Remembered.of(given), Remembered.of(recent))
        return found[self.scene, self.slot]

    def _seen(self, t: int) -> Tensor:
        assert self.features is not None
        return self.features[self.frame[self.rows, t]]


def masked(out: Decoded) -> Tensor:
    """Return the logits f32 [N, S/4, S/4] as inference sees them: absent objects have SAM-2's constant."""
    return torch.where((out.existence > 0)[:, None, None], out.logits, NO_OBJ_SCORE)


def _remembered(
    sam: SAM2Base, features: FrameFeatures, logits: Tensor, existence: Tensor, token: Tensor
) -> dict[str, Any]:
    size = (sam.image_size, sam.image_size)
    high = F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)
    present = (existence > 0).to(token.dtype)[:, None]
    pointer = present * sam.obj_ptr_proj(token) + (1 - present) * sam.no_obj_ptr
    return _kept(sam, features, high, existence[:, None], pointer)


def _taken(sam: SAM2Base, features: FrameFeatures, masks: Tensor) -> dict[str, Any]:
    size = (sam.image_size, sam.image_size)
    scaled = F.interpolate(
        masks[:, None].float(), size=size, mode="bilinear", align_corners=False, antialias=True
    )
    out = sam._use_mask_as_output(features.low, list(features.high), (scaled >= 0.5).float())
    low, pointer, existence = out[3], out[5], out[6]
    high = F.interpolate(low.float(), size=size, mode="bilinear", align_corners=False)
    return _kept(sam, features, high, existence, pointer) | {"logits": low[:, 0].float()}


def _kept(
    sam: SAM2Base, features: FrameFeatures, high: Tensor, existence: Tensor, pointer: Tensor
) -> dict[str, Any]:
    memory, position = sam._encode_new_memory(
        current_vision_feats=[_sequence(features.low)],
        feat_sizes=[features.low.shape[-2:]],
        pred_masks_high_res=high,
        object_score_logits=existence,
        is_mask_from_pts=False,
    )
    return {"maskmem_features": memory.bfloat16(), "maskmem_pos_enc": position, "obj_ptr": pointer}


def _sequence(maps: Tensor) -> Tensor:
    """[n, C, h, w] -> [h*w, n, C], the order SAM-2's attention wants."""
    return maps.flatten(2).permute(2, 0, 1)
