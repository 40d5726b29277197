"""Qwen2.5-VL and Qwen3-VL as the multimodal language model: transformers' own towers and text models.

What differs from InternVL's way: images keep their shape, tokens have three positions (M-RoPE) which are given with
every call because a cache alone does not tell them, Qwen3-VL adds what its tower saw on the way to the first layers of
the language model (deepstack), and its [SEG] state is taken before the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import (
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLPreTrainedModel,
    Qwen2_5_VLTextModel,
)
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig, Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLPreTrainedModel,
    Qwen3VLTextModel,
    Qwen3VLVisionModel,
)

from svac_backend.svac.config import LanguageConfig, QwenVision, SvacConfig
from svac_backend.svac.language.mllm import Mllm, Reading, Seen, States, seg_projector
from svac_backend.svac.language.qwen_pixels import patch_rows, rotary_positions
from svac_backend.svac.language.templates import ChatIds

# Mean and standard deviation of the channels: CLIP's, and a half.
NORMALISATION = {
    "qwen2_5_vl": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "qwen3_vl": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class Qwen25Language(Qwen2_5_VLPreTrainedModel):
    """Qwen2.5-VL's text model and its head, named as those of transformers' language models."""

    def __init__(self, config: Qwen2_5_VLTextConfig) -> None:
        super().__init__(config)
        self.model = Qwen2_5_VLTextModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class Qwen3Language(Qwen3VLPreTrainedModel):
    """Qwen3-VL's text model and its head, named as those of transformers' language models."""

    def __init__(self, config: Qwen3VLTextConfig) -> None:
        super().__init__(config)
        self.model = Qwen3VLTextModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


def build_tower(config: QwenVision) -> Qwen2_5_VisionTransformerPretrainedModel | Qwen3VLVisionModel:
    """Build the vision tower, with its merger, with random weights."""
    shared: dict[str, Any] = {
        "depth": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "out_hidden_size": config.out_hidden_size,
        "hidden_act": config.hidden_act,
        "patch_size": config.patch_size,
        "spatial_merge_size": config.merge,
        "temporal_patch_size": 2,
        "attn_implementation": "sdpa",
    }
    if config.kind == "qwen3_vl":
        return Qwen3VLVisionModel(
            Qwen3VLVisionConfig(
                num_position_embeddings=config.num_position_embeddings,
                deepstack_visual_indexes=list(config.deepstack_visual_indexes),
                **shared,
            )
        )
    return Qwen2_5_VisionTransformerPretrainedModel(
        Qwen2_5_VLVisionConfig(
            window_size=config.window_size, fullatt_block_indexes=list(config.fullatt_block_indexes), **shared
        )
    )


def build_language(config: LanguageConfig) -> Qwen25Language | Qwen3Language:
    """Build the language model with random weights."""
    fields: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "hidden_act": config.hidden_act,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            **(config.rope_scaling or {}),  # mrope_section
        },
        "bos_token_id": None,  # the answer's end is the chat template's business
        "eos_token_id": None,
        "attn_implementation": "sdpa",
    }
    if config.architecture == "qwen3_vl":
        if config.head_dim is not None:
            fields["head_dim"] = config.head_dim
        return Qwen3Language(Qwen3VLTextConfig(**fields))
    return Qwen25Language(Qwen2_5_VLTextConfig(**fields))


class QwenVl(Mllm):
    """Qwen2.5-VL or Qwen3-VL before SAM-2; images may differ in size."""

    language_model: Qwen25Language | Qwen3Language

    def __init__(self, config: SvacConfig) -> None:
        super().__init__(config)
        self.vision = cast("QwenVision", config.vision)
        self.vision_model = build_tower(self.vision)
        self.language_model = build_language(config.language)
        self.text_hidden_fcs = seg_projector(config.language.hidden_size, config.sam.d_model)

    def look(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, ...]:
        """Return each image's visual tokens, [rows, columns, (1 + D) * H].

        The first H values of a token stand in the text, in the place of the image; the others are added after each of
        the language model's first D layers (deepstack; D is 0 for Qwen2.5-VL). One image at a time, as the tower
        attends within an image only: more of them give the same and take more memory.

        Args:
            images: u8 [h, w, 3] each, as `qwen_pixels.fit` makes them.
        """
        return tuple(self._look(image) for image in images)

    def _look(self, image: NDArray[np.uint8]) -> Tensor:
        patch, merge = self.vision.patch_size, self.vision.merge
        rows = patch_rows(image, patch, merge, *NORMALISATION[self.vision.kind])
        height, width = (side // patch for side in image.shape[:2])
        grid = torch.tensor([[1, height, width]], device=self.device)
        seen = self.vision_model(rows.to(self.device, self.dtype), grid_thw=grid)
        levels = [seen.pooler_output, *(getattr(seen, "deepstack_features", None) or ())]
        return torch.cat(levels, dim=-1).unflatten(0, (height // merge, width // merge))

    def see(self, looked: tuple[Tensor, ...]) -> Seen:
        """Return what `look` gave for the language model: the merger is the tower's own, and frozen with it."""
        grids = tuple((image.shape[0], image.shape[1]) for image in looked)
        tokens = torch.cat([image.flatten(0, 1) for image in looked])
        text, *deeper = tokens.split(self.config.language.hidden_size, dim=-1)
        return Seen(text, tuple(rows * columns for rows, columns in grids), grids, tuple(deeper))

    def begin(self, prefix: Tensor, seen: Seen, context_id: int) -> Reading:
        """Read the images and what is before them: ids i64 [P]."""
        places, position = rotary_positions(prefix, context_id, seen.grids)
        reading = Reading(DynamicCache(config=self.language_model.config), position)
        embeds = self.embed(prefix, seen.tokens, context_id)
        self._run(embeds[None], places[:, None], (prefix == context_id)[None], seen.deepstack, reading.cache)
        return reading

    def read(self, embeds: Tensor, reading: Reading) -> States:
        """Read on: embeddings [L, H] of text, whose three positions are the same."""
        places = torch.arange(reading.position, reading.position + len(embeds)).expand(3, 1, -1)
        read = self._run(embeds[None], places, cache=reading.cache)
        reading.position += len(embeds)
        return States(read.seg[0], read.last[0])

    def forced(self, chats: Sequence[ChatIds], seen: Sequence[Seen], context_id: int) -> list[States]:
        """Read whole chats, prefix and suffix, as one batch and without a cache; for training. See `Mllm`."""
        rows, places, images = [], [], []
        for chat, given in zip(chats, seen, strict=True):
            ids = torch.cat([chat.prefix, chat.suffix])
            rows.append(self.embed(ids, given.tokens, context_id))
            places.append(rotary_positions(ids, context_id, given.grids)[0].T)
            images.append(ids == context_id)
        # Padded at the right, where a causal model's earlier tokens do not see it.
        read = self._run(
            pad_sequence(rows, batch_first=True),
            pad_sequence(places, batch_first=True).permute(2, 0, 1),
            pad_sequence(images, batch_first=True),
            [torch.cat(levels) for levels in zip(*(given.deepstack for given in seen), strict=True)],
        )
        return [States(*row) for row in zip(read.seg, read.last, strict=True)]

    def _run(
        self,
        embeds: Tensor,
        places: Tensor,
        is_image: Tensor | None = None,
        deepstack: Sequence[Tensor] = (),
        cache: DynamicCache | None = None,
    ) -> States:
        """Run the language model; states [B, L, H].

        transformers gives the states behind the final norm. Qwen3-VL's [SEG] was trained on those before it, where its
        authors' version of transformers had them, so they are caught on their way into the norm.

        Args:
            embeds: [B, L, H].
            places: i64 [3, B, L]; left out, transformers would count the tokens of the cache, which is wrong behind
                images.
            is_image: bool [B, L], where the k visual tokens stand.
            deepstack: each [k, H], added there after the first layers.
            cache: of the tokens before; it grows by these.
        """
        extra: dict[str, Any] = {}
        if deepstack and is_image is not None:
            extra = {
                "visual_pos_masks": is_image.to(embeds.device),
                "deepstack_visual_embeds": list(deepstack),
            }
        model = self.language_model.model
        before: list[Tensor] = []
        hook = model.norm.register_forward_pre_hook(lambda _, given: before.append(given[0]))
        try:
            last = model(
                inputs_embeds=embeds,
                position_ids=places.to(embeds.device),
                past_key_values=cache,
                use_cache=cache is not None,
                **extra,
            ).last_hidden_state
        finally:
            hook.remove()
        return States(before[-1] if self.vision.kind == "qwen3_vl" else last, last)
