"""A store of scenes whose visual tokens are known, for stages in which the vision tower rests.

To paint a scene and look at it costs as much as the language model's step on it; each scene offers more sentences
than one step takes. So scenes are made once and met several times, with other sentences each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lab.train_tiny.clip_batch import ClipBatch, joined, make_clip_batch
from lab.train_tiny.oracle import Said
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import FrameFeatures, encode_frames
from svac_backend.synthetic.rich.scene import RichConfig


class StoredBatch(NamedTuple):
    """A batch without pixels, its visual tokens f32 [B, I, t, H], and its frames' features if they were kept."""

    data: ClipBatch
    visual: Tensor
    features: FrameFeatures | None


@dataclass
class SceneStore:
    """Scenes, one batch each; their visual tokens [1, I, t, H] and frames' features in half precision."""

    scenes: list[ClipBatch] = field(default_factory=list)
    visual: list[Tensor] = field(default_factory=list)
    features: list[FrameFeatures] = field(default_factory=list)

    def draw(
        self,
        rng: np.random.Generator,
        *,
        batch: int,
        sentences: int,
        weights: Mapping[str, float],
    ) -> StoredBatch:
        """Choose scenes and sentences.

        Args:
            weights: how often to choose each kind of sentence where a scene offers it, 1 where not said.
        """
        chosen = rng.integers(len(self.scenes), size=batch)
        parts = [_say(self.scenes[k], rng, sentences, weights) for k in chosen]
        features = None
        if self.features:
            features = _cast(FrameFeatures.joined([self.features[k] for k in chosen]), torch.float32)
        return StoredBatch(joined(parts), torch.cat([self.visual[k] for k in chosen]).float(), features)


def scenes_for(steps: int, batch: int) -> int:
    """Return how many scenes are enough: each is met two or three times."""
    return ceil(steps * batch / 2.5)


@torch.no_grad()
def store_scenes(
    model: Svac,
    scenes: RichConfig,
    rng: np.random.Generator,
    count: int,
    *,
    sentences: int = 32,
    frames: int = 0,
) -> SceneStore:
    """Make `count` scenes with `sentences` each and look at them; keep the features of `frames` frames of each."""
    store = SceneStore()
    for _ in range(count):
        data = make_clip_batch(
            rng, model.config, scenes, batch=1, sentences=sentences, frames=frames, easy=0.5
        )
        images = data.pixels.shape[1]
        tokens = model.mllm.visual_tokens(data.pixels.flatten(0, 1).to(model.device), batch=1024)
        store.visual.append(tokens[None].half())
        if frames:
            found = encode_frames(model.sam, data.sam_pixels[0].to(model.device))
            store.features.append(_cast(found, torch.float16))
        store.scenes.append(
            replace(
                data,
                pixels=torch.zeros(1, images, 0),
                sam_pixels=torch.zeros(1, frames, 0),
                target=data.target.half(),
            )
        )
    return store


def _say(data: ClipBatch, rng: np.random.Generator, count: int, weights: Mapping[str, float]) -> ClipBatch:
    """Choose `count` of the sentences."""
    kinds = [said.kind for said in data.sentences[0]]
    weight = np.array([weights.get(kind, 1.0) / kinds.count(kind) for kind in kinds])
    some = torch.from_numpy(rng.choice(len(weight), size=count, replace=False, p=weight / weight.sum()))
    said = data.said
    return replace(
        data,
        sentences=[[data.sentences[0][k] for k in some]],
        said=Said(**{name: value[:, some] for name, value in vars(said).items()}),
        alone=data.alone[:, some],
        points=data.points[:, some],
        covers=data.covers[:, some],
        target=data.target[:, some].float(),
        visible=data.visible[:, some],
    )


def _cast(features: FrameFeatures, dtype: torch.dtype) -> FrameFeatures:
    """Return the features in another dtype; the positions once, as they are the same for every frame."""
    s0, s1 = features.high
    return FrameFeatures(
        features.low.to(dtype), (s0.to(dtype), s1.to(dtype)), features.position[:1].to(dtype)
    )
