"""How much memory fine-tuning needs on a GPU, computed from a model's shapes; an estimate, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from accelerate import init_empty_weights
from peft import LoraConfig, inject_adapter_in_model
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from svac_backend.learning.adapters import LoraOptions
from svac_backend.learning.objective import HELD_BYTES
from svac_backend.learning.options import TrainOptions
from svac_backend.svac.config import QwenVision, SamConfig, SvacConfig
from svac_backend.svac.families.registry import family_of
from svac_backend.svac.language.mllm import Mllm
from svac_backend.svac.language.qwen_pixels import image_sizes
from svac_backend.svac.sam.grounding import build_sam

# Values in fp32 and their gradients, and AdamW's two moments.
_TRAINED_BYTES = 4 + 4 + 8
_HALF, _FULL = 2, 4
# Tensors of the mask decoder's finest maps that the backward pass needs, for each frame.
_DECODER_MAPS = 12
# Text around the images: question, answer, template.
_TEXT_TOKENS = 80


@dataclass(frozen=True)
class MemoryNeed:
    """Memory of one process, in bytes.

    Attributes:
        parameters: of the model; trained: of these and LoRA, those that are trained.
        weights: of the model, bf16.
        training: values, gradients and optimiser of what is trained.
        activations: of one part of a step.
        held: what the frozen parts made, kept.
    """

    parameters: int
    trained: int
    weights: int
    training: int
    activations: int
    held: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.training + self.activations + self.held


def memory_need(config: SvacConfig, options: TrainOptions, *, checkpointing: bool = True) -> MemoryNeed:
    """Compute the memory that a training of this model needs in bf16 on one GPU.

    Args:
        config: of the model.
        options: of the training.
        checkpointing: compute activations twice in place of keeping them.
    """
    lora = LoraOptions(options.rank, options.alpha, options.dropout).capped(config.language.hidden_size)
    family = family_of(config)
    mllm, sam = language_of(config), sam_of(config.sam)
    parameters = _count(mllm) + _count(sam)
    whole = nn.ModuleDict({"mllm": mllm, "sam": sam}).named_parameters()
    trained = sum(value.numel() for name, value in whole if name.startswith(family.trained_whole))
    before = _count(mllm)
    with init_empty_weights():
        inject_adapter_in_model(
            LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(family.lora_targets)),
            mllm.language_model,
        )
    trained += _count(mllm) - before
    items = max(1, -(-options.batch // options.accumulate))
    method, language = config.method, config.language
    tokens = method.num_clips * method.images_per_clip * image_tokens(config) + _TEXT_TOKENS
    width, inner = language.hidden_size, language.intermediate_size
    # A layer keeps its norms, projections, attention, MLP, and LoRA's inputs after dropout, in half precision.
    layer = tokens * (16 * width + 6 * inner) * _HALF
    kept = language.num_hidden_layers * tokens * width * _HALF
    language_bytes = kept + layer if checkpointing else language.num_hidden_layers * layer
    frames = method.num_clips * options.frames_per_clip
    finest = (config.sam.image_size // 4) ** 2 * (config.sam.d_model // 8)
    decoder = frames * finest * _DECODER_MAPS * _FULL
    return MemoryNeed(
        parameters,
        trained,
        parameters * _HALF,
        trained * _TRAINED_BYTES,
        items * (language_bytes + decoder),
        HELD_BYTES,
    )


def language_of(config: SvacConfig) -> Mllm:
    """Build vision tower and language model on the meta device: shapes without memory."""
    with torch.device("meta"):
        return family_of(config).build_mllm(config)


@cache
def sam_of(config: SamConfig) -> SAM2Base:
    """Build SAM-2 without memory; sam2's own modules read values while they are built, which meta tensors lack."""
    with init_empty_weights():
        return build_sam(config)


def values_of(config: SvacConfig) -> int:
    """Count the values of a model's weights, as its files hold them."""
    parts = language_of(config), sam_of(config.sam)
    return sum(value.numel() for part in parts for value in part.state_dict().values())


def image_tokens(config: SvacConfig) -> int:
    """Return the visual tokens of an image; of a frame of 1280x720 where images keep their shape."""
    vision = config.vision
    if not isinstance(vision, QwenVision):
        return config.tokens_per_image
    unit = vision.patch_size * vision.merge
    _, (rows, columns) = image_sizes(720, 1280, unit, config.method.image_pixels)
    return rows * columns // unit**2


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
