"""Answers written token by token, and what becomes of their [SEG] tokens.

A forced answer needs none of this: one prefill gives the same [SEG] states. It is for models that say themselves
whether, and how often, the object is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from svac_backend.svac.prompts import PromptIds


@dataclass(frozen=True)
class GreedyWriter:
    """Greedy decoding with the KV cache; a `Writer` of `Mllm.seg_states`.

    Attributes:
        seg_id: id of [SEG].
        is_over: says whether the ids so far end the answer.
        max_tokens: where an answer is cut.
        follow_prompt: write the prompt's own answer instead of the likeliest tokens, at the same cost.
    """

    seg_id: int
    is_over: Callable[[Sequence[int]], bool]
    max_tokens: int
    follow_prompt: bool = False

    def __call__(self, language_model: Any, cache: DynamicCache, prompt: PromptIds) -> Tensor:
        """Return the states of the answer's [SEG] tokens, [k, H]; the cache is as long afterwards as before."""
        ids, states = self.write(language_model, cache, prompt)
        # The last token is never an input, so it has no state (the published code drops it too).
        found = torch.tensor(ids[:-1], dtype=torch.long, device=states.device) == self.seg_id
        return states[found]

    def write(self, language_model: Any, cache: DynamicCache, prompt: PromptIds) -> tuple[list[int], Tensor]:
        """Return the answer's G ids, and its states after the final norm, [G - 1, H], where they are the input."""
        embed = language_model.get_input_embeddings()
        device = embed.weight.device
        forced = prompt.suffix[prompt.answer_start :].tolist() if self.follow_prompt else []
        limit = len(forced) or self.max_tokens
        step = prompt.suffix[: prompt.answer_start].to(device)
        before = cache.get_seq_length()
        ids: list[int] = []
        states = []
        while True:
            hidden = language_model.model(
                inputs_embeds=embed(step)[None], past_key_values=cache, use_cache=True
            ).last_hidden_state[0, -1]
            if ids:
                states.append(hidden)
            likeliest = int(language_model.lm_head(hidden).argmax())
            ids.append(forced[len(ids)] if forced else likeliest)
            if len(ids) == limit or (not forced and self.is_over(ids)):
                break
            step = torch.tensor(ids[-1:], device=device)
        cache.crop(before - cache.get_seq_length())
        width = language_model.config.hidden_size
        return ids, torch.stack(states) if states else embed.weight.new_zeros(0, width)


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
