"""InternVL as the multimodal language model: InternViT, pixel shuffle, projector, and Qwen2 or Llama (InternLM2).

Assembled from transformers' own classes, with the published code's wiring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
from transformers.models.internvl.modeling_internvl import InternVLVisionModel

from svac_backend.svac import astc
from svac_backend.svac.config import LanguageConfig, SvacConfig, VisionConfig
from svac_backend.svac.language.mllm import Mllm, Seen, seg_projector
from svac_backend.svac.parts import Parts


def build_vision(config: VisionConfig) -> InternVLVisionModel:
    """Build the vision tower with random weights."""
    fields = asdict(config)
    fields |= {
        "image_size": [config.image_size, config.image_size],
        "patch_size": [config.patch_size, config.patch_size],
        "attention_bias": fields.pop("qkv_bias"),
        "use_qk_norm": fields.pop("qk_normalization"),
        "use_mean_pooling": True,  # else transformers adds a norm that InternViT does not have
        "attn_implementation": "sdpa",
    }
    return InternVLVisionModel(InternVLVisionConfig(**fields))


def build_language(config: LanguageConfig) -> Qwen2ForCausalLM | LlamaForCausalLM:
    """Build the language model with random weights."""
    fields = asdict(config)
    rope = {"rope_theta": fields.pop("rope_theta"), "rope_type": "default"}
    rope |= fields.pop("rope_scaling") or {}
    if fields["head_dim"] is None:
        del fields["head_dim"]  # transformers' default follows from the width
    fields |= {"rope_parameters": rope, "attn_implementation": "sdpa"}
    if fields.pop("architecture") == "llama":
        return LlamaForCausalLM(LlamaConfig(**fields))
    return Qwen2ForCausalLM(Qwen2Config(**fields))


def pixel_shuffle(tokens: Tensor, ratio: float, version: str) -> Tensor:
    """Trade resolution for channels: [n, h, w, c] -> [n, h*ratio, w*ratio, c/ratio^2] (InternVL, v1 and v2)."""
    n, h, w, c = tokens.shape
    step = round(1 / ratio)
    if step == 1:
        return tokens
    out = tokens.view(n, h // step, step, w // step, step, c).permute(0, 1, 3, 2, 4, 5)
    out = out.reshape(n, h // step, w // step, c * step * step)
    # v1 leaves the grid transposed; it is kept for the checkpoints that were trained so.
    return out if version == "v2" else out.transpose(1, 2).contiguous()


class InternVl(Mllm):
    """InternViT and its projector before the language model; every image is a square of the same size."""

    def __init__(self, config: SvacConfig) -> None:
        super().__init__(config)
        step = round(1 / config.downsample_ratio)
        width = config.vision.hidden_size * step * step
        hidden = config.language.hidden_size
        self.vision_model = build_vision(config.vision)
        self.language_model = build_language(config.language)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.text_hidden_fcs = seg_projector(hidden, config.sam.d_model)

    def visual(self, images: Sequence[NDArray[np.uint8]]) -> Seen:
        """Return the visual tokens of images u8 [S, S, 3]."""
        return Seen.alike(self.visual_tokens(astc.mllm_pixels(images)))

    def look(self, images: Sequence[NDArray[np.uint8]], *, batch: int = 8) -> tuple[Tensor, ...]:
        """Return what `mlp1` takes of images u8 [S, S, 3]: one tensor [n, tokens_per_image, channels]."""
        dtype = next(self.vision_model.parameters()).dtype

        def seen(part: Tensor) -> Tensor:
            return self._shuffled(self.vision_model(part.to(self.device, dtype)).last_hidden_state[:, 1:])

        return (torch.cat(Parts(batch).run(seen, astc.mllm_pixels(images))),)

    def see(self, looked: tuple[Tensor, ...]) -> Seen:
        """Return the visual tokens of what `look` gave."""
        return Seen.alike(self.mlp1(looked[0].to(self.dtype)))

    def visual_tokens(self, pixels: Tensor, *, batch: int = 16) -> Tensor:
        """Encode images.

        Args:
            pixels: f32 [n, 3, S, S].
            batch: images a step.

        Returns:
            [n, tokens_per_image, H].
        """
        return torch.cat(Parts(batch).run(lambda part: self.tokens_of(self.patches(part)), pixels))

    def patches(self, pixels: Tensor) -> Tensor:
        """Run the vision tower on images f32 [n, 3, S, S]; returns its patches, row by row, [n, p, C]."""
        hidden: Tensor = self.vision_model(pixels.to(self.device, self.dtype)).last_hidden_state
        return hidden[:, 1:]

    def tokens_of(self, patches: Tensor) -> Tensor:
        """Make visual tokens [n, tokens_per_image, H] of patches [n, p, C]: pixel shuffle and projector."""
        return self.mlp1(self._shuffled(patches))

    def _shuffled(self, patches: Tensor) -> Tensor:
        side = self.config.vision.image_size // self.config.vision.patch_size
        grid = patches.reshape(len(patches), side, side, -1)
        return pixel_shuffle(grid, self.config.downsample_ratio, self.config.ps_version).flatten(1, 2)
