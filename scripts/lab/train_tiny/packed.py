"""Many sentences about one video in one sequence: exact, and several times cheaper than one sequence each.

The prefix (images) stands once; each sentence's question and answer follow, at the positions they would have right
after the prefix, and see the prefix and themselves only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from svac_backend.svac.language.mllm import Mllm
from svac_backend.svac.language.templates import ChatIds


@dataclass
class PackedStates:
    """What the language model makes of B packed sequences.

    Attributes:
        seg: [B, E, N, H], last hidden state at the [SEG] tokens.
        looks: for each layer asked for, [B, E, N, I * t], log attention of the [SEG] tokens' first head to the
            visual tokens, of all that they look at.
        visual: [B, I * t, H], the visual tokens as they enter the first of these layers.
        logits_loss: cross-entropy of the answers.
    """

    seg: Tensor
    looks: list[Tensor]
    visual: Tensor
    logits_loss: Tensor


def run_packed(
    mllm: Mllm,
    visual: Tensor,
    prompts: Sequence[Sequence[ChatIds]],
    context_id: int,
    *,
    layers: Sequence[int],
    shown: Tensor | None = None,
) -> PackedStates:
    """Run B scenes with E sentences each.

    Args:
        visual: [B, I, t, H] visual tokens.
        prompts: B lists of E prompts, all with the same prefix.
        layers: where the attention of the [SEG] tokens is read off, ascending.
        shown: bool [B, E, N, I * t]; at the last of these layers the first head attends to these visual tokens
            instead, where there are any, so that what follows learns to use what it copies.
    """
    device = visual.device
    batch, each = len(prompts), len(prompts[0])
    prefix = prompts[0][0].prefix
    start, width = len(prefix), max(len(p.suffix) for row in prompts for p in row)
    length = start + each * width
    ids = torch.zeros(batch, length, dtype=torch.long)
    labels = torch.full((batch, length), -100)
    valid = torch.zeros(batch, length, dtype=torch.bool)
    seg = torch.zeros(batch, each, len(prompts[0][0].seg), dtype=torch.long)
    ids[:, :start], valid[:, :start] = prefix, True
    for b, row in enumerate(prompts):
        for e, prompt in enumerate(row):
            at = start + e * width
            ids[b, at : at + len(prompt.suffix)] = prompt.suffix
            valid[b, at : at + len(prompt.suffix)] = True
            labels[b, at + prompt.answer_start : at + len(prompt.suffix)] = prompt.suffix[
                prompt.answer_start :
            ]
            seg[b, e] = at + prompt.seg
    position = torch.cat([torch.arange(start), start + torch.arange(width).repeat(each)])
    owner = torch.cat([torch.zeros(start, dtype=torch.long), 1 + torch.arange(each).repeat_interleave(width)])
    order = torch.arange(length)
    see = (order[:, None] >= order) & ((owner == 0) | (owner[:, None] == owner))
    see = (see & valid[:, None, :]) | torch.eye(length, dtype=torch.bool)
    bias = torch.zeros(see.shape).masked_fill(~see, torch.finfo(torch.float32).min)[:, None].to(device)

    embeds = mllm.language_model.get_input_embeddings()(ids.to(device))
    images = (ids == context_id).to(device)
    embeds = embeds.masked_scatter(images[..., None], visual.to(embeds.dtype))
    kept: dict[int, dict[str, Tensor]] = {}

    def keep(number: int) -> Callable[[object, object, dict[str, Any]], None]:
        def hook(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
            cos, sin = kwargs["position_embeddings"]
            kept[number] = {"hidden": kwargs["hidden_states"], "cos": cos, "sin": sin}

        return hook

    rows = torch.arange(batch, device=device)[:, None, None]
    seg = seg.to(device)
    seeing = images[0].nonzero()[:, 0]
    blocks = mllm.language_model.model.layers

    def show(attention: Any, number: int) -> Callable[[object, tuple[Tensor]], tuple[Tensor]]:
        def hook(_module: object, args: tuple[Tensor]) -> tuple[Tensor]:
            assert shown is not None
            size = attention.head_dim
            values = attention.v_proj(kept[number]["hidden"][:, seeing])[..., :size]
            share = shown / shown.sum(-1, keepdim=True).clamp(min=1)
            copied = (share.flatten(1, 2) @ values).view(*seg.shape, size)
            out = args[0].clone()
            out[rows, seg, :size] = torch.where(
                shown.any(-1, keepdim=True), copied, args[0][rows, seg, :size]
            )
            return (out,)

        return hook

    hooks = [blocks[n].self_attn.register_forward_pre_hook(keep(n), with_kwargs=True) for n in layers]
    if shown is not None:
        last = blocks[layers[-1]].self_attn
        hooks.append(last.o_proj.register_forward_pre_hook(show(last, layers[-1])))
    try:
        states = mllm.language_model.model(
            inputs_embeds=embeds,
            attention_mask=bias,
            position_ids=position.to(device).expand(batch, -1),
            use_cache=False,
        ).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    looks = [_looks(blocks[n].self_attn, kept[n], bias, seg, seeing) for n in layers]

    answers = labels[:, start:].to(device)
    asked = answers != -100
    logits = mllm.language_model.lm_head(states[:, start - 1 : -1][asked])
    loss = F.cross_entropy(logits, answers[asked])
    return PackedStates(states[rows, seg], looks, kept[layers[0]]["hidden"][:, seeing], loss)


def _looks(attention: Any, kept: dict[str, Tensor], bias: Tensor, seg: Tensor, seeing: Tensor) -> Tensor:
    """Return the log attention [B, E, N, k] of the first head at `seg` [B, E, N] to the k visual tokens."""
    hidden, size, at = kept["hidden"], attention.head_dim, seg.flatten(1)[..., None]

    def rows(values: Tensor) -> Tensor:
        return values.expand(len(hidden), -1, -1).gather(1, at.expand(-1, -1, values.shape[-1]))

    q, k = attention.q_proj(rows(hidden))[:, None, :, :size], attention.k_proj(hidden)[:, None, :, :size]
    q, _ = apply_rotary_pos_emb(q, q, rows(kept["cos"]), rows(kept["sin"]))
    k, _ = apply_rotary_pos_emb(k, k, kept["cos"], kept["sin"])
    scores = (q @ k.transpose(-1, -2))[:, 0] * attention.scaling + rows(bias[:, 0])
    return scores.log_softmax(-1)[..., seeing].view(*seg.shape, len(seeing))
