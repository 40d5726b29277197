"""Two ways to run one model over one video file: as the published code does it, and as this project does.

The published way (SaSaSa2VA's `predict_forward`, written anew from its steps): the whole video in memory, PIL resizes
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
from transformers import GenerationConfig

from svac_backend.svac import astc
from svac_backend.svac.astc import clip_images, plan
from svac_backend.svac.language.internvl import InternVl
from svac_backend.svac.language.mllm import Mllm
from svac_backend.svac.model import Svac
from svac_backend.svac.sam import decoding, grounding
from svac_backend.svac.sam.grounding import decode, encode_frames, without_memory
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
    method, size = model.config.method, model.config.sam.image_size
    with clock.stage("read and resize"):
        with VideoReader(path) as video:
            pictures = [Image.fromarray(frame) for _, frame in video.frames(range(len(video)))]
        small = np.stack([astc.resize(np.array(picture), size) for picture in pictures])
        pixels = astc.sam_pixels(small)
        clips = plan(len(pictures), method)
        images = [
            astc.resize(image, model.config.vision.image_size)
            for number in range(clips.num_clips)
            for image in clip_images(
                [np.asarray(pictures[i]) for i in clips.clip(number)], method.grid, compress=method.astc
            )
        ]
    with clock.stage("vision tower"):
        visual = model.mllm.visual_tokens(astc.mllm_pixels(np.stack(images)), batch=len(images))
    with clock.stage("language model"):
        embeddings = _generated(model, visual, expression, clips.num_clips)
    clip_of = dict(clips.decode)
    logits = []
    for index in range(len(pictures)):
        with clock.stage("image encoder"):
            features = encode_frames(model.sam, pixels[index : index + 1], fuse=False)
        with clock.stage("mask decoder"):
            language = embeddings[clip_of[index]][None].to(features.low.dtype)
            out = decode(
                model.sam,
                without_memory(model.sam, features),
                features.high,
                language,
                no_object_masking=method.no_object_masking,
                fuse=False,
            )
            model.sam.obj_ptr_proj(out.token)
            # SAM-2's heads upsample all three masks before one is chosen.
            F.interpolate(out.all_logits, size=(size, size), mode="bilinear", align_corners=False)
        with clock.stage("masks"):
            logits.append(
                F.interpolate(out.logits[:, None], size=(size, size), mode="bilinear", align_corners=False)
            )
    with clock.stage("masks"):
        width, height = pictures[0].size
        full = F.interpolate(torch.cat(logits), size=(height, width), mode="bilinear", align_corners=False)
        return np.asarray((full[:, 0].sigmoid() > 0.5).cpu().numpy())


def _generated(model: Svac, visual: torch.Tensor, expression: str, num_clips: int) -> torch.Tensor:
    """Let transformers generate the forced answer and keep every layer's states, as published; returns [N, d_model]."""
    prompt = model.chat.build(expression, len(visual), num_clips)
    asked = torch.cat([prompt.prefix, prompt.suffix[: prompt.answer_start]])
    answer = prompt.suffix[prompt.answer_start :].to(visual.device)
    embeds = model.mllm.embed(asked, visual.flatten(0, 1), model.chat.context_id)[None]

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
        (InternVl, "visual_tokens", clock.timed("vision tower", InternVl.visual_tokens)),
        (Mllm, "seg_states", clock.timed("language model", Mllm.seg_states)),
        (grounding, "encode_frames", clock.timed("image encoder", grounding.encode_frames)),
        (decoding, "decode", clock.timed("mask decoder", decoding.decode)),
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
