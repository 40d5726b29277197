"""Two ways to run one model over one video file: as the published code does it, and as this project does.

The published way (the authors' `predict_forward`, written anew from its steps): the whole video in memory, PIL resizes
one frame at a time, every expression starts from the file, the answer is generated token by token (here the forced
answer, so that both ways do the same work), Hiera and the mask decoder take one frame at a time, and the masks of all
frames are upsampled at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from transformers import GenerationConfig

from svac_backend.svac import astc
from svac_backend.svac.astc import ClipPlan, clip_images, plan
from svac_backend.svac.config import QwenVision
from svac_backend.svac.language.internvl import InternVl
from svac_backend.svac.language.mllm import Mllm, Seen
from svac_backend.svac.language.qwen_vl import QwenVl
from svac_backend.svac.model import Svac
from svac_backend.svac.sam import decoding, grounding
from svac_backend.svac.sam.decoding import masks_in_one_step
from svac_backend.svac.sam.grounding import Decoded, FrameFeatures, decode, encode_frames, without_memory
from svac_backend.svac.sam.memory import MemoryTracker, tracking_sam
from svac_backend.svac.streaming import FrameFeed
from svac_backend.video.reader import VideoReader

Masks = NDArray[np.bool_]
STAGES = ("read and resize", "vision tower", "language model", "image encoder", "mask decoder", "masks")


class Clock:
    """Adds up the milliseconds of each stage; what several threads do at once counts for each of them."""

    def __init__(self, device: torch.device) -> None:
        self.ms = dict.fromkeys(STAGES, 0.0)
        self._cuda = device.type == "cuda"
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs within."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._cuda:
                torch.cuda.synchronize()
            with self._lock:
                self.ms[name] += (time.perf_counter() - start) * 1000

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def run(*args: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*args, **options)

        return run


def published(
    model: Svac, path: Path, expressions: Sequence[str], clock: Clock
) -> Iterator[tuple[int, Masks]]:
    """Yield (expression, masks bool [T, H, W]), each made from the start."""
    for number, expression in enumerate(expressions):
        yield number, _published_one(model, path, expression, clock)


@torch.inference_mode()
def _published_one(model: Svac, path: Path, expression: str, clock: Clock) -> Masks:
    size = model.config.sam.image_size
    with clock.stage("read and resize"):
        with VideoReader(path) as video:
            pictures = [Image.fromarray(frame) for _, frame in video.frames(range(len(video)))]
        small = np.stack([astc.resize(np.array(picture), size) for picture in pictures])
        pixels = astc.sam_pixels(small)
        clips = plan(len(pictures), model.config.method)
        images = _images(model, pictures, clips)
    with clock.stage("vision tower"):
        seen = model.mllm.visual(images)
    with clock.stage("language model"):
        embeddings = _generated(model, seen, expression, clips.num_clips)
    width, height = pictures[0].size
    frames = _Frames(model, pixels, clips, (height, width), clock)
    logits = frames.anchored(embeddings[0]) if frames.anchors else frames.decoded(embeddings)
    with clock.stage("masks"):
        full = F.interpolate(torch.cat(logits), size=(height, width), mode="bilinear", align_corners=False)
        return np.asarray((full[:, 0].sigmoid() > 0.5).cpu().numpy())


def _images(model: Svac, pictures: Sequence[Image.Image], clips: ClipPlan) -> list[NDArray[np.uint8]]:
    """Return what the MLLM sees: one picture after the other is resized, by Pillow where the family does so."""
    method, config = model.config.method, model.config
    found = [
        image
        for number in range(clips.num_clips)
        for image in clip_images(
            [np.asarray(pictures[i]) for i in clips.clip(number)], method.grid, compress=method.astc
        )
    ]
    if isinstance(config.vision, QwenVision):
        fitted, (width, height) = model.family.fitted(config), pictures[0].size
        return [fitted(image, (height, width)) for image in found]
    return [astc.resize(image, config.vision.image_size) for image in found]


class _Frames:
    """SAM-2 over the frames of one video, one at a time, by sam2's own modules.

    Args:
        model: as it runs.
        pixels: f32 [T, 3, S, S].
        clips: which [SEG] decodes which frame; others come through memory.
        shape: height and width of the video.
        clock: times the stages.
    """

    def __init__(
        self, model: Svac, pixels: Tensor, clips: ClipPlan, shape: tuple[int, int], clock: Clock
    ) -> None:
        self.sam, self.tracking, self.method = model.sam, tracking_sam(model.sam), model.config.method
        self.pixels, self.clips, self.shape, self.clock = pixels, clips, shape, clock
        self.clip_of = dict(clips.decode)
        self.anchors = set(clips.selected) if self.method.propagation == "anchor" else set()
        self.memory = MemoryTracker(
            self.tracking, 1, len(pixels), no_object_masking=self.method.no_object_masking, fuse=False
        )

    def decoded(self, embeddings: Tensor) -> list[Tensor]:
        """Decode each frame with its clip's [SEG], or from memory; logits [1, 1, S, S] each."""
        logits = []
        for index in range(len(self.pixels)):
            features = self._encoded(self.sam, index)
            with self.clock.stage("mask decoder"):
                if index in self.clip_of:
                    out = self._seg(features, embeddings[self.clip_of[index]])
                    found = out.logits
                    if self.clips.propagated is not None:
                        self.memory.condition(index, features, out.logits, out.existence, out.token)
                else:
                    found, _ = self.memory.track(index, features)
            logits.append(self._large(found))
        return logits

    def anchored(self, embedding: Tensor) -> list[Tensor]:
        """Decode key frames, give their masks to the original SAM-2, and let it track the others (Sa2VA-i)."""
        found: dict[int, Tensor] = {}
        for index in sorted(self.anchors):
            features = self._encoded(self.sam, index)
            with self.clock.stage("mask decoder"):
                mask = masks_in_one_step(self._seg(features, embedding).logits, *self.shape)
            features = self._encoded(self.tracking, index)
            with self.clock.stage("mask decoder"):
                found[index] = self.memory.condition_masks(index, features, mask)
        for index in range(len(self.pixels)):
            # SAM-2's predictor encodes key frames once more on its way through the video.
            features = self._encoded(self.tracking, index)
            if index not in found:
                with self.clock.stage("mask decoder"):
                    found[index], _ = self.memory.track(index, features)
        return [self._large(found[index]) for index in range(len(self.pixels))]

    def _encoded(self, sam: SAM2Base, index: int) -> FrameFeatures:
        with self.clock.stage("image encoder"):
            return encode_frames(sam, self.pixels[index : index + 1], fuse=False)

    def _seg(self, features: FrameFeatures, embedding: Tensor) -> Decoded:
        size = self.sam.image_size
        out = decode(
            self.sam,
            without_memory(self.sam, features),
            features.high,
            embedding[None].to(features.low.dtype),
            no_object_masking=self.method.seg_masking,
            fuse=False,
        )
        self.sam.obj_ptr_proj(out.token)
        # SAM-2's heads upsample all three masks before one is chosen.
        F.interpolate(out.all_logits, size=(size, size), mode="bilinear", align_corners=False)
        return out

    def _large(self, logits: Tensor) -> Tensor:
        size = (self.sam.image_size, self.sam.image_size)
        with self.clock.stage("masks"):
            return F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)


def _generated(model: Svac, seen: Seen, expression: str, num_clips: int) -> Tensor:
    """Let the forced answer be written token by token, as published; returns its [SEG] embeddings [N, d_model].

    By transformers' `generate`, which keeps every layer's states, where the language model is one of its own classes;
    else by a loop over single tokens.
    """
    prompt = model.chat.build(expression, seen.counts, num_clips)
    asked = torch.cat([prompt.prefix, prompt.suffix[: prompt.answer_start]])
    answer = prompt.suffix[prompt.answer_start :].to(seen.tokens.device)
    mllm = model.mllm
    if not isinstance(mllm, InternVl):
        reading = mllm.begin(prompt.prefix, seen, model.chat.context_id)
        mllm.read(mllm.embed(prompt.suffix[: prompt.answer_start], None, model.chat.context_id), reading)
        steps = []
        for place in range(len(answer)):
            read = mllm.read(mllm.embed(answer[place, None], None, model.chat.context_id), reading)
            mllm.language_model.lm_head(read.last[-1]).argmax()
            steps.append(read.seg)
        return mllm.project(torch.cat(steps)[answer == model.chat.seg_id]).float()
    embeds = mllm.embed(asked, seen.tokens, model.chat.context_id)[None]

    def forced(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf).index_fill_(1, answer[ids.shape[1], None], 0.0)

    def over(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.tensor([model.chat.is_over(ids[0].tolist())], device=ids.device)

    written = model.mllm.language_model.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones_like(embeds[..., 0], dtype=torch.long),
        generation_config=GenerationConfig(
            max_new_tokens=len(answer),
            do_sample=False,
            use_cache=True,
            output_hidden_states=True,
            return_dict_in_generate=True,
        ),
        logits_processor=[forced],
        stopping_criteria=[over],
    )
    states = torch.cat([layers[-1][0] for layers in written.hidden_states])[1 - len(answer) :]
    return model.mllm.project(states[answer[:-1] == model.chat.seg_id]).float()


def ours(model: Svac, path: Path, expressions: Sequence[str], clock: Clock) -> Iterator[tuple[int, Masks]]:
    """Yield (expression, mask bool [1, H, W]) frame after frame, all made together by `Svac.segment`."""
    with VideoReader(path) as video, _instrumented(clock):
        for frame in model.segment(video, expressions):
            yield from enumerate(frame.masks[:, None])


@contextmanager
def _instrumented(clock: Clock) -> Iterator[None]:
    """Time the stages within `Svac.segment`; reading is seen as the time that the model waits for it."""
    windows = FrameFeed.windows

    def waited(self: FrameFeed, size: int) -> Iterator[Any]:
        with closing(windows(self, size)) as stream:
            while True:
                with clock.stage("read and resize"):
                    window = next(stream, None)
                if window is None:
                    return
                yield window

    places: list[tuple[Any, str, Callable[..., Any]]] = [
        (FrameFeed, "windows", waited),
        (FrameFeed, "clip_pixels", clock.timed("read and resize", FrameFeed.clip_pixels)),
        (InternVl, "visual", clock.timed("vision tower", InternVl.visual)),
        (QwenVl, "visual", clock.timed("vision tower", QwenVl.visual)),
        (Mllm, "seg_states", clock.timed("language model", Mllm.seg_states)),
        (grounding, "encode_frames", clock.timed("image encoder", grounding.encode_frames)),
        (decoding, "encode_for", clock.timed("image encoder", grounding.encode_for)),
        (MemoryTracker, "track", clock.timed("mask decoder", MemoryTracker.track)),
        (MemoryTracker, "condition_masks", clock.timed("mask decoder", MemoryTracker.condition_masks)),
        (grounding, "decode", clock.timed("mask decoder", grounding.decode)),
        (decoding, "masks_at_size", clock.timed("masks", decoding.masks_at_size)),
    ]
    before = [getattr(place, name) for place, name, _ in places]
    for place, name, replacement in places:
        setattr(place, name, replacement)
    try:
        yield
    finally:
        for (place, name, _), function in zip(places, before, strict=True):
            setattr(place, name, function)
