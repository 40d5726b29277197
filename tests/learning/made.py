"""What the tests of fine-tuning share: a very small model, and corrections of generated scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lab.train_tiny import recipe

from svac_backend.learning.examples import Example
from svac_backend.learning.videos import VideoRef
from svac_backend.masks.rle import to_coco
from svac_backend.svac.config import MethodConfig, SvacConfig, VisionConfig
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.scene import RichConfig
from svac_backend.synthetic.scene import Scene, SceneConfig
from svac_backend.video.reader import ArrayVideo

SMALL = replace(
    recipe.CONFIG,
    vision=VisionConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    ),
    language=replace(
        recipe.CONFIG.language,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
    ),
    sam=replace(recipe.CONFIG.sam, image_size=64, embed_dim=16, d_model=32, memory_layers=1),
    method=MethodConfig(num_clips=3, frames_per_clip=2, grid=(1, 1), template="qwen_chat"),
)
SCENES = SceneConfig(width=48, height=32, frames=8, max_objects=2)
RICH = RichConfig(width=48, height=32, frames=8, max_objects=4)


def small_model(tokenizer_file: Path, config: SvacConfig = SMALL) -> Svac:
    """Return a model with random weights, the same ones each time."""
    torch.manual_seed(0)
    return Svac(config, tokenizer_file).eval()


def squares(seed: int, frames: int = 8, *, absent: tuple[int, ...] = ()) -> Example:
    """Return a bright square on noise, which moves; `drawn` on even frames and accepted on odd ones."""
    video = VideoRef(f"squares-{seed}-{frames}", lambda: ArrayVideo(_squares(seed, frames).frames, 12.0))
    scene = _squares(seed, frames)
    masks = {i: to_coco(mask) for i, mask in enumerate(scene.masks[0]) if i not in absent}
    every = range(frames)
    return Example(
        video,
        "the square",
        masks,
        frozenset(i for i in every if i % 2 == 0),
        frozenset(i for i in every if i % 2),
    )


def _squares(seed: int, frames: int) -> Scene:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 60, (frames, 32, 48, 3)).astype(np.uint8)
    masks = np.zeros((1, frames, 32, 48), np.bool_)
    top, left = int(rng.integers(4, 12)), int(rng.integers(4, 20))
    for i in range(frames):
        masks[0, i, top : top + 12, left + i : left + i + 12] = True
        pictures[i][masks[0, i]] = (250, 40, 200)
    return Scene(pictures, masks, (), (), tuple(range(frames)), seed, 12.0)
