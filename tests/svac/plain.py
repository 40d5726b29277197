"""The model run in the plainest way: one frame and one expression at a time, no cache, no batch, no window, no thread.

What `Svac.segment` does to be fast must change no pixel of what comes out here.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F

from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.svac import astc
from svac_backend.svac.astc import clip_images, plan
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import FrameFeatures, decode, encode_frames, without_memory
from svac_backend.svac.sam.memory import MemoryTracker
from svac_backend.video.source import VideoSource
from tests.svac.plain_tracking import full_size, sam_step


@torch.inference_mode()
def plain_masks(
    model: Svac,
    video: VideoSource,
    expression: str,
    answer: str | None = None,
    *,
    number: int = 0,
    embeddings: torch.Tensor | None = None,
) -> np.ndarray:
    """Return the masks of one expression with one object, bool [T, H, W].

    Args:
        model: how it runs.
        video: where the frames come from.
        expression: what to segment.
        answer: another answer to force.
        number: with one clip, which [SEG] of the answer is the object.
        embeddings: [N, d_model], where they were made otherwise; expression and answer then play no part.
    """
    method, size = model.config.method, model.config.sam.image_size
    frames = [video.frame(i) for i in range(len(video))]
    clips = plan(len(frames), method)
    if embeddings is None:
        embeddings = _embeddings(model, frames, expression, answer)
        if clips.num_clips == 1:
            embeddings = embeddings[number : number + 1]
    if method.propagation == "anchor":
        return _anchored(model, video, embeddings[0], clips.selected)
    memory = MemoryTracker(model.sam, 1, len(frames), no_object_masking=method.no_object_masking)
    masks = []
    for index, frame in enumerate(frames):
        features = _encoded(model, frame)
        found = [clip for i, clip in clips.decode if i == index]
        if found:
            all_logits = []
            for clip in found:
                out = decode(
                    model.sam,
                    without_memory(model.sam, features),
                    features.high,
                    embeddings[clip][None],
                    no_object_masking=method.no_object_masking,
                )
                all_logits.append(out.logits)
            logits = torch.stack(all_logits).mean(0)
            if clips.propagated is not None:
                memory.condition(index, features, out.logits, out.existence, out.token)
        else:
            logits, _ = memory.track(index, features)
        large = F.interpolate(logits[:, None], size=(size, size), mode="bilinear", align_corners=False)
        full = F.interpolate(large, size=frame.shape[:2], mode="bilinear", align_corners=False)
        masks.append((full[0, 0].sigmoid() > 0.5).numpy())
    return np.stack(masks)


def _anchored(
    model: Svac, video: VideoSource, embedding: torch.Tensor, key_frames: tuple[int, ...]
) -> np.ndarray:
    """Sa2VA-i: key frames by the tuned decoder, then sam2's own steps with the original one; [T, H, W]."""
    original = copy.deepcopy(model.sam)
    original.sam_mask_decoder = original.original_mask_decoder
    shape = (video.info.height, video.info.width)
    given, tracked = {}, {}
    for index in key_frames:
        features = _encoded(model, video.frame(index))
        low = without_memory(model.sam, features)
        out = decode(model.sam, low, features.high, embedding[None], no_object_masking=False)
        full = F.interpolate(out.logits[:, None], size=shape, mode="bilinear", align_corners=False)
        hint = FrameHint(mask=to_coco((full[0, 0].sigmoid() > 0.5).numpy()))
        given[index] = sam_step(original, video, index, {}, hint)
    for index in range(len(video)):
        if index not in given:
            memory = {"cond_frame_outputs": given, "non_cond_frame_outputs": tracked}
            tracked[index] = sam_step(original, video, index, memory, None)
    every = given | tracked
    return np.stack([full_size(original, every[i]["pred_masks"], shape) for i in range(len(video))])


def _encoded(model: Svac, frame: np.ndarray) -> FrameFeatures:
    small = astc.resize(frame, model.config.sam.image_size)
    return encode_frames(model.sam, astc.sam_pixels(small[None]))


def _embeddings(model: Svac, frames: list[np.ndarray], expression: str, answer: str | None) -> torch.Tensor:
    """[N, d_model]: vision tower an image at a time, the language model over the whole text at once."""
    method = model.config.method
    clips = plan(len(frames), method)
    visual = [
        model.mllm.visual_tokens(astc.mllm_pixels(astc.resize(image, model.config.vision.image_size)[None]))[
            0
        ]
        for number in range(clips.num_clips)
        for image in clip_images([frames[i] for i in clips.clip(number)], method.grid, compress=method.astc)
    ]
    prompt = model.chat.build(expression, len(visual), clips.num_clips, answer)
    ids = torch.cat([prompt.prefix, prompt.suffix])
    embeds = model.mllm.embed(ids, torch.cat(visual), model.chat.context_id)
    states = model.mllm.language_model.model(inputs_embeds=embeds[None], use_cache=False).last_hidden_state[0]
    return model.mllm.project(states[len(prompt.prefix) + prompt.seg])
