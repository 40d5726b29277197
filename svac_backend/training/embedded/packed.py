"""Many sentences about one video in one sequence: exact, and several times cheaper than one sequence each.

The prefix (images) stands once; each sentence's question and answer follow, at the positions they would have right
after the prefix, and see the prefix and themselves only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from svac_backend.svac.mllm import Mllm
from svac_backend.svac.prompts import PromptIds


@dataclass
class PackedStates:
    """What the language model makes of B packed sequences.

    Attributes:
        seg: [B, E, N, H], last hidden state at the [SEG] tokens.
        looks: [B, E, N, L], log attention of the [SEG] tokens at the supervised layer and head.
        logits_loss: cross-entropy of the answers.
    """

    seg: Tensor
    looks: Tensor
    logits_loss: Tensor


def run_packed(
    mllm: Mllm,
    visual: Tensor,
    prompts: Sequence[Sequence[PromptIds]],
    context_id: int,
    *,
    layer: int,
    head: int,
) -> PackedStates:
    """Run B scenes with E sentences each.

    Args:
        visual: [B, I, t, H] visual tokens.
        prompts: B lists of E prompts, all with the same prefix.
        layer, head: where the attention of the [SEG] tokens is read off.
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
    kept: dict[str, Tensor] = {}
    block = mllm.language_model.model.layers[layer]

    def keep(_module: object, _args: object, kwargs: dict[str, Tensor]) -> None:
        kept["hidden"], kept["cos"] = kwargs["hidden_states"], kwargs["position_embeddings"][0]
        kept["sin"] = kwargs["position_embeddings"][1]

    hook = block.self_attn.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        states = mllm.language_model.model(
            inputs_embeds=embeds,
            attention_mask=bias,
            position_ids=position.to(device).expand(batch, -1),
            use_cache=False,
        ).last_hidden_state
    finally:
        hook.remove()
    rows = torch.arange(batch, device=device)[:, None, None]
    seg = seg.to(device)
    attention = block.self_attn
    shape = (batch, length, -1, attention.head_dim)
    q = attention.q_proj(kept["hidden"]).view(shape).transpose(1, 2)
    k = attention.k_proj(kept["hidden"]).view(shape).transpose(1, 2)
    q, k = apply_rotary_pos_emb(q, k, kept["cos"], kept["sin"])
    groups = q.shape[1] // k.shape[1]
    query = q[:, head].gather(1, seg.flatten(1)[..., None].expand(-1, -1, attention.head_dim))
    scores = query @ k[:, head // groups].transpose(1, 2) * attention.scaling
    row_bias = bias[:, 0].gather(1, seg.flatten(1)[..., None].expand(-1, -1, length))
    looks = (scores + row_bias).log_softmax(-1).view(*seg.shape, length)

    logits = mllm.language_model.lm_head(states[:, start - 1 : -1])
    loss = F.cross_entropy(logits.flatten(0, 1), labels[:, start:].flatten().to(device))
    return PackedStates(seg=states[rows, seg], looks=looks, logits_loss=loss)
