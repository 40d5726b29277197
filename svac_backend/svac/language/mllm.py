"""The multimodal language model: vision tower, pixel shuffle, projector, language model, [SEG] embeddings.

Assembled from transformers' InternVL vision tower and Qwen2 or Llama (InternLM2), with the published code's wiring.

A forced answer takes one prefill. `GreedyWriter` has the model write its answer token by token, for models that say
themselves whether, and how often, the object is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
from transformers.models.internvl.modeling_internvl import InternVLVisionModel

from svac_backend.svac.config import LanguageConfig, SvacConfig, VisionConfig
from svac_backend.svac.language.templates import ChatIds

Writer = Callable[[Any, DynamicCache, ChatIds], Tensor]


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


class Mllm(nn.Module):
    """Images and text in, one embedding per clip and expression out."""

    def __init__(self, config: SvacConfig) -> None:
        super().__init__()
        self.config = config
        step = round(1 / config.downsample_ratio)
        width = config.vision.hidden_size * step * step
        hidden = config.language.hidden_size
        self.vision_model = build_vision(config.vision)
        self.language_model = build_language(config.language)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.text_hidden_fcs = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(hidden, hidden),
                    nn.ReLU(),
                    nn.Linear(hidden, config.sam.d_model),
                    nn.Dropout(0.0),
                )
            ]
        )

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the projector, which the pixels are cast to."""
        return next(self.mlp1.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.mlp1.parameters()).device

    def visual_tokens(self, pixels: Tensor, *, batch: int = 16) -> Tensor:
        """Encode images.

        Args:
            pixels: f32 [n, 3, S, S].
            batch: images a step.

        Returns:
            [n, tokens_per_image, H].
        """
        return torch.cat([self.tokens_of(self.patches(part)) for part in pixels.split(batch)])

    def patches(self, pixels: Tensor) -> Tensor:
        """Run the vision tower on images f32 [n, 3, S, S]; returns its patches, row by row, [n, p, C]."""
        hidden: Tensor = self.vision_model(pixels.to(self.device, self.dtype)).last_hidden_state
        return hidden[:, 1:]

    def tokens_of(self, patches: Tensor) -> Tensor:
        """Make visual tokens [n, tokens_per_image, H] of patches [n, p, C]: pixel shuffle and projector."""
        side = self.config.vision.image_size // self.config.vision.patch_size
        grid = patches.reshape(len(patches), side, side, -1)
        shuffled = pixel_shuffle(grid, self.config.downsample_ratio, self.config.ps_version)
        return self.mlp1(shuffled.flatten(1, 2))

    def embed(self, ids: Tensor, visual: Tensor | None, context_id: int) -> Tensor:
        """Embed ids [L] and put visual tokens [k, H] in the place of the k image placeholders; returns [L, H]."""
        embeds = self.language_model.get_input_embeddings()(ids.to(self.device))
        if visual is None:
            return embeds
        return embeds.index_put(
            ((ids == context_id).to(embeds.device).nonzero()[:, 0],), visual.to(embeds.dtype)
        )

    def project(self, hidden: Tensor) -> Tensor:
        """Project [SEG] states [..., H] to SAM-2's prompt space [..., d_model]."""
        return self.text_hidden_fcs[0](hidden)

    def seg_states(
        self,
        visual: Tensor,
        chats: Sequence[ChatIds],
        context_id: int,
        *,
        write: Writer | None = None,
    ) -> list[Tensor]:
        """Prefill once per video and once more per expression.

        The vision prefix and its KV cache are computed once and reused for every expression. The answer is
        teacher-forced, which gives the same states as writing it token by token, unless `write` writes it.

        Args:
            visual: [n_images, tokens, H].
            chats: E expressions in the chat template, that share their prefix.
            context_id: id of the image placeholder.
            write: given the language model, the cache and a chat, it returns the states of its [SEG] tokens
                and leaves the cache as long as it was.

        Returns:
            E tensors f32 [number of [SEG], d_model].
        """
        cache = DynamicCache(config=self.language_model.config)
        prefix = self.embed(chats[0].prefix, visual.flatten(0, 1), context_id)[None]
        model = self.language_model.model
        model(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
        rows = []
        for chat in chats:
            if write is not None:
                states = write(self.language_model, cache, chat)
            else:
                suffix = self.embed(chat.suffix, None, context_id)[None]
                out = model(inputs_embeds=suffix, past_key_values=cache, use_cache=True).last_hidden_state[0]
                cache.crop(-len(chat.suffix))
                states = out[chat.seg.to(out.device)]
            rows.append(self.project(states).float())
        return rows


@dataclass(frozen=True)
class GreedyWriter:
    """Greedy decoding with the KV cache; a `Writer` of `Mllm.seg_states`.

    Attributes:
        seg_id: id of [SEG].
        is_over: says whether the ids so far end the answer.
        max_tokens: where an answer is cut.
    """

    seg_id: int
    is_over: Callable[[Sequence[int]], bool]
    max_tokens: int

    def __call__(self, language_model: Any, cache: DynamicCache, chat: ChatIds) -> Tensor:
        """Return the states of the answer's [SEG] tokens, [k, H]; the cache is as long afterwards as before."""
        embed = language_model.get_input_embeddings()
        device = embed.weight.device
        step = chat.suffix[: chat.answer_start].to(device)
        before = cache.get_seq_length()
        ids: list[int] = []
        states = [embed.weight.new_zeros(0, language_model.config.hidden_size)]
        # The last token is never an input, so it has no state (the published code drops it too).
        while len(ids) < self.max_tokens and not (ids and self.is_over(ids)):
            hidden = language_model.model(
                inputs_embeds=embed(step)[None], past_key_values=cache, use_cache=True
            ).last_hidden_state[0, -1:]
            if ids and ids[-1] == self.seg_id:
                states.append(hidden)
            ids.append(int(language_model.lm_head(hidden[0]).argmax()))
            step = torch.tensor(ids[-1:], device=device)
        cache.crop(before - cache.get_seq_length())
        return torch.cat(states)


def objects_of(states: Tensor, num_clips: int) -> Tensor:
    """Turn the k [SEG] embeddings of one answer, [k, d], into objects with one embedding per clip, [O, num_clips, d].

    With one clip, every [SEG] is an object of its own (Sa2VA). With more, the [SEG] are those of the clips of one
    object: too many are cut, too few are filled up with the last one (SaSaSa2VA). No [SEG] is no object.
    """
    if num_clips == 1 or len(states) == 0:
        return states[:, None].expand(-1, num_clips, -1)
    missing = num_clips - len(states)
    if missing > 0:
        states = torch.cat([states, states[-1:].expand(missing, -1)])
    return states[None, :num_clips]
