"""Propagation in the plainest way: sam2's own `track_step`, one object, one frame and one walk at a time.

What `Svac.propagate` does to be fast must change no pixel of what comes out here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base

from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import area, from_coco
from svac_backend.svac import astc
from svac_backend.svac.sam.tracking import NEAREST
from svac_backend.video.source import VideoSource


@torch.inference_mode()
def plain_propagation(
    sam: SAM2Base, video: VideoSource, prompts: Mapping[int, FrameHint]
) -> dict[int, np.ndarray]:
    """Return one object's mask of every frame. Clicks and boxes must be such as the model believes in."""
    sam = copy.copy(sam)
    # SAM-2 takes the one-mask output for several points; the weights of this project know three masks only.
    sam.max_cond_frames_in_attn, sam.multimask_max_pt_num = NEAREST, 99
    shape = (video.info.height, video.info.width)
    conditioned: dict[int, Any] = {}
    absent: dict[int, Any] = {}
    masks = {}
    for frame, prompt in prompts.items():
        out = sam_step(sam, video, frame, {}, prompt)
        empty = prompt.mask is not None and not area(prompt.mask)
        (absent if empty else conditioned)[frame] = out
        given = prompt.mask
        masks[frame] = full_size(sam, out["pred_masks"], shape) if given is None else from_coco(given)
    walks: dict[tuple[int, int], dict[int, Any]] = {}
    for frame in range(len(video)):
        if frame in prompts:
            continue
        source = min(conditioned, key=lambda c: (abs(c - frame), c))
        step = 1 if frame > source else -1
        walked = walks.setdefault((source, step), {})
        for i in range(source + step, frame + step, step):
            if i in walked:
                continue
            if i in absent:
                walked[i] = absent[i]
                continue
            memory = {"cond_frame_outputs": conditioned, "non_cond_frame_outputs": walked}
            walked[i] = sam_step(sam, video, i, memory, None, reverse=step < 0)
        masks[frame] = full_size(sam, walked[frame]["pred_masks"], shape)
    return masks


def sam_step(
    sam: SAM2Base,
    video: VideoSource,
    frame: int,
    memory: dict[str, Any],
    prompt: FrameHint | None,
    *,
    reverse: bool = False,
) -> dict[str, Any]:
    """Run one frame through sam2's own step: what was shown on it, or what memory says of it."""
    size = sam.image_size
    pixels = astc.sam_pixels(astc.resize(video.frame(frame), size)[None])
    _, features, positions, sizes = sam._prepare_backbone_features(sam.forward_image(pixels))
    points, mask = None, None
    if prompt is not None and prompt.mask is not None:
        full = torch.from_numpy(from_coco(prompt.mask))[None, None].float()
        scaled = F.interpolate(full, (size, size), mode="bilinear", align_corners=False, antialias=True)
        mask = (scaled >= 0.5).float()
    elif prompt is not None:
        rows = [] if prompt.box is None else [(*prompt.box[:2], 2), (*prompt.box[2:], 3)]
        rows += [(click.x, click.y, int(click.positive)) for click in prompt.clicks]
        points = {
            "point_coords": torch.tensor(
                [[(x / video.info.width * size, y / video.info.height * size) for x, y, _ in rows]]
            ),
            "point_labels": torch.tensor([[label for _, _, label in rows]], dtype=torch.int32),
        }
    out = sam.track_step(
        frame_idx=frame,
        is_init_cond_frame=prompt is not None,
        current_vision_feats=features,
        current_vision_pos_embeds=positions,
        feat_sizes=sizes,
        point_inputs=points,
        mask_inputs=mask,
        output_dict=memory,
        num_frames=len(video),
        track_in_reverse=reverse,
        run_mem_encoder=False,
    )
    # As sam2's video predictor does: memory is made of the small masks, enlarged, and kept in bf16.
    high = F.interpolate(out["pred_masks"], (size, size), mode="bilinear", align_corners=False)
    encoded, position = sam._encode_new_memory(
        features, sizes, high, out["object_score_logits"], points is not None
    )
    return out | {"maskmem_features": encoded.bfloat16(), "maskmem_pos_enc": position}


def full_size(sam: SAM2Base, logits: torch.Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Return one object's logits [1, 1, S/4, S/4] as a mask, bool [H, W]."""
    size = (sam.image_size, sam.image_size)
    large = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    full = F.interpolate(large, size=shape, mode="bilinear", align_corners=False)
    return (full[0, 0].sigmoid() > 0.5).numpy()
