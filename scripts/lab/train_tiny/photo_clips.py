"""Stage `words`: the language model and the mask decoder learn what people say of photographs, on whole clips.

A clip of photographs is seen as the model sees a video: anchor frames and composites at the vision tower's size, and a
frame or two at SAM-2's. [SEG] says what is meant, and SAM-2's part, whose trunk has seen photographs, finds it. On
generated scenes [SEG] stays near what it was, so that what was learned there is not unlearned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lab.train_tiny.clip_batch import ClipBatch, make_clip_batch
from lab.train_tiny.joint_stage import drawn, masks_of
from lab.train_tiny.language_loss import FIND_LAYER
from lab.train_tiny.mask_batch import SMALLEST
from lab.train_tiny.packed import run_packed
from lab.train_tiny.photo_words import Sentence, Speaker
from lab.train_tiny.photographs import Photograph
from lab.train_tiny.pseudo_videos import compose
from svac_backend.learning.rehearsal import SCENES
from svac_backend.svac import astc
from svac_backend.svac.astc import clip_images, plan
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.language.mllm import Mllm
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import encode_frames

# Of the loss: how near [SEG] stays to what it was on generated scenes, and the language model's own loss.
_ANCHORED, _SPOKEN = 4.0, 0.1


@dataclass
class PhotoClips:
    """B clips with E sentences each and F of their frames, as in `ClipBatch`; I images a clip.

    Attributes:
        pixels: f32 [B, I, 3, S, S] for the vision tower.
        sentences: B lists of E.
        sam_pixels: f32 [B, F, 3, S', S']; frame_clip: i64 [B, F], their clips.
        target: f32 [B, E, F, S'/2, S'/2]; visible: f32 [B, E, F].
        things: bool [K, S', S'], what is marked and seen on these frames; owner: i64 [K], rising, their
            frames, b * F + f.
    """

    pixels: Tensor
    sentences: list[list[Sentence]]
    sam_pixels: Tensor
    frame_clip: Tensor
    target: Tensor
    visible: Tensor
    things: Tensor
    owner: Tensor


def make_photo_clips(
    rng: np.random.Generator,
    photos: Sequence[Photograph],
    config: SvacConfig,
    *,
    size: int,
    batch: int,
    sentences: int,
    frames: int = 1,
) -> PhotoClips:
    """Make clips of photographs with sentences about them.

    Args:
        config: whose clips and whose vision tower; SAM-2's size is `size`.
        frames: F.
    """
    method, vision = config.method, config.vision.image_size
    clips = plan(method.num_clips * method.frames_per_clip, method)
    clip_of = dict(clips.decode)
    length = len(clip_of)
    pixels, told, seen, number, target, things, owner = [], [], [], [], [], [], []
    for _ in range(batch):
        scene = compose(rng, photos, length=length, paces=(0.06, 0.25, 0.5), whole=True)
        small, masks = scene.paint(vision)
        said = Speaker(scene.labels, scene.unmarked, small, masks).say(rng, sentences)
        images: list[NDArray[np.uint8]] = []
        for n in range(clips.num_clips):
            images += clip_images([small[i] for i in clips.clip(n)], method.grid, compress=method.astc)
        pixels.append(astc.mllm_pixels(np.stack([astc.resize(image, vision) for image in images])))
        chosen = sorted(int(i) for i in rng.choice(length, frames, replace=False))
        large, shown = scene.paint(size, chosen)
        for f in range(frames):
            for mask in shown[:, f]:
                if mask.mean() > SMALLEST:
                    owner.append(len(seen) * frames + f)
                    things.append(mask)
        union = [shown[list(s.regions)].any(0) if s.regions else np.zeros_like(shown[0]) for s in said]
        target.append(F.avg_pool2d(torch.from_numpy(np.stack(union)).float(), 2))
        told.append(said)
        seen.append(astc.sam_pixels(large))
        number.append([clip_of[i] for i in chosen])
    goal = torch.stack(target)
    return PhotoClips(
        pixels=torch.stack(pixels),
        sentences=told,
        sam_pixels=torch.stack(seen),
        frame_clip=torch.tensor(number),
        target=goal,
        visible=(goal.flatten(3).mean(3) > SMALLEST).float(),
        things=torch.from_numpy(np.stack(things)) if things else torch.zeros(0, size, size, dtype=torch.bool),
        owner=torch.tensor(owner, dtype=torch.long),
    )


def make_generated_clips(
    rng: np.random.Generator, config: SvacConfig, *, size: int, batch: int, sentences: int, frames: int = 1
) -> ClipBatch:
    """Make the same of generated scenes, painted at SAM-2's size."""
    large = replace(config, sam=replace(config.sam, image_size=size))
    scenes = replace(SCENES, width=size, height=size)
    return make_clip_batch(rng, large, scenes, batch=batch, sentences=sentences, frames=frames, easy=0.4)


class Speaking(nn.Module):
    """What learns words: a model, its SAM-2 part on photographs, and its language path as it was.

    Args:
        model: with the SAM-2 part that is trained as `sam`.
        before: the language path that [SEG] stays near to on generated scenes; not trained and not kept.
    """

    def __init__(self, model: Svac, before: Mllm) -> None:
        super().__init__()
        self.sam, self.mllm = model.sam, model.mllm
        self._kept = (model, before.requires_grad_(False).eval())

    @property
    def model(self) -> Svac:
        """The whole model."""
        return self._kept[0]

    def seg_of(self, mllm: Mllm, data: PhotoClips | ClipBatch) -> tuple[Tensor, Tensor]:
        """Return the [SEG] embeddings [B, E, N, C] and the language model's own loss."""
        chat = self.model.chat
        with torch.no_grad():  # the vision tower rests
            patches = mllm.patches(data.pixels.flatten(0, 1))
        visual = mllm.tokens_of(patches).unflatten(0, data.pixels.shape[:2])
        clips = self.model.config.method.num_clips
        prompts = [[chat.build(s.text, visual.shape[1], clips) for s in said] for said in data.sentences]
        states = run_packed(mllm, visual, prompts, chat.context_id, layers=(FIND_LAYER,))
        return mllm.project(states.seg), states.logits_loss

    def loss(self, data: PhotoClips | ClipBatch) -> tuple[Tensor, dict[str, float]]:
        """Draw what the sentences mean; returns the loss and figures."""
        seg, spoken = self.seg_of(self.mllm, data)
        features = encode_frames(self.sam, data.sam_pixels.flatten(0, 1))
        loss, figures = masks_of(self.model, data, features, seg)
        loss = loss + _SPOKEN * spoken
        generated = isinstance(data, ClipBatch)
        if generated:
            with torch.no_grad():
                was, _ = self.seg_of(self._kept[1], data)
            distance = F.mse_loss(seg, was)
            loss = loss + _ANCHORED * distance
            figures["distance"] = distance.item()
        name = "generated" if generated else "said"
        return loss, {f"{name}_{key}": value for key, value in figures.items()}

    @torch.no_grad()
    def validate(self, photos: Sequence[Photograph], size: int, *, clips: int = 40) -> dict[str, float]:
        """Measure J in per cent by kind of sentence, and how often absent things are drawn; the same clips each time.

        Args:
            photos: of no training.
        """
        rows: dict[str, list[float]] = defaultdict(list)
        for number in range(clips):
            data = make_photo_clips(
                np.random.default_rng([9, number]), photos, self.model.config, size=size, batch=1, sentences=6
            )
            seg, _ = self.seg_of(self.mllm, data)
            features = encode_frames(self.sam, data.sam_pixels[0])
            out, _ = drawn(self.model, data, features, seg)
            found = (out.logits > 0) & (out.existence > 0)[:, None, None]
            truth = F.adaptive_avg_pool2d(data.target[0, :, :1], found.shape[-2:])[:, 0] > 0.5
            both, either = (found & truth).sum((1, 2)), (found | truth).sum((1, 2))
            for k, said in enumerate(data.sentences[0]):
                if said.regions and data.visible[0, k, 0]:
                    rows[said.kind].append(float(both[k] / either[k].clamp(min=1)))
                elif not said.regions:
                    rows["drawn absent"].append(float(found[k].flatten().float().mean() > SMALLEST))
        every = [value for kind, values in rows.items() if kind != "drawn absent" for value in values]
        figures = {
            f"J {kind}": round(100 * float(np.mean(values)), 1) for kind, values in sorted(rows.items())
        }
        return {"J words": round(100 * float(np.mean(every)), 1), **figures}
