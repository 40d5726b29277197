"""SAM-2 on a CPU in fused operations: a product with its bias, activation or sum in one pass over memory.

sam2's own modules make each of these a pass of its own; for maps of many small vectors the passes cost more than the
products. The values are the same but for rounding. oneDNN's operations are those that torch's own compiler emits. Maps
lie channels last.

The image encoder (the forward pass of sam2's Hiera and FpnNeck): the two high-resolution levels of the FPN are read by
the mask decoder's `conv_s0` and `conv_s1` only, and nothing is added to them from above: two linear maps after each
other, which are multiplied first. Maps of the two fine levels are large, and few frames at a time leave them in the
processor's cache; the coarse levels take all frames at once, as their operations are small.

The mask decoder (the forward pass of sam2's MaskDecoder on its weights): an image has many cells and a prompt few
tokens, so what is done per cell is what costs. The cells' sum with their positions is made once a layer and not twice,
cells attend to tokens by one product for all heads, and transposed convolutions whose kernel is their stride are linear
maps of single cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, MultiScaleBlock, do_pool
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.backbones.utils import window_partition, window_unpartition
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import MLP, LayerNorm2d
from torch import Tensor, nn


def available(tensor: Tensor) -> bool:
    """Whether there are fused operations for it: fp32 on a CPU with oneDNN, and no gradients, which they don't have."""
    return bool(
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )


def linear(layer: nn.Linear, x: Tensor, activation: str = "none", *, add: Tensor | None = None) -> Tensor:
    """Return the layer's result, f32 [..., out].

    Args:
        layer: the weights.
        x: f32 [..., in].
        activation: "none", "relu" or "gelu".
        add: f32 [..., out], added to it; not with an activation.
    """
    return affine(x, layer.weight, layer.bias, activation, add=add)


def affine(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str = "none", *, add: Tensor | None = None
) -> Tensor:
    """Return x [..., in] times weight [out, in], and bias; see `linear`."""
    if add is not None:
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, add, weight, bias, "add")
    else:
        exact = "none" if activation == "gelu" else ""  # GELU by the error function, as nn.GELU has it
        result = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], exact)
    return result


def convolve(layer: nn.Conv2d, x: Tensor, *, ceiling: float) -> Tensor:
    """Return the convolution's result, f32 [n, C', h', w'], cut off below 0 and above `ceiling`."""
    operation = torch.ops.mkldnn._convolution_pointwise
    shape = (layer.padding, layer.stride, layer.dilation, layer.groups)
    result: Tensor = operation(x, layer.weight, layer.bias, *shape, "hardtanh", [0.0, ceiling], "")
    return result


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Return x f32 [..., C], each vector normalised."""
    return F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


# Cells of the finest maps that are worked on together: six of the embedded model's frames, or one of 1024 px.
_CELLS = 6 * 48**2


def foldable(sam: SAM2Base) -> bool:
    """Whether the trunk is Hiera, nothing else reads it, and the FPN is SAM-2's: 1x1 convolutions, and sums of nearest
    neighbours on the two coarse levels only.
    """
    neck = sam.image_encoder.neck
    return (
        isinstance(sam.image_encoder.trunk, Hiera)
        and not hasattr(sam, "matching")
        and not hasattr(sam, "seg_matching")
        and sam.image_encoder.scalp == 1
        and len(neck.convs) == 4
        and sorted(neck.fpn_top_down_levels) == [2, 3]
        and (neck.fpn_interp_model, neck.fuse_type) == ("nearest", "sum")
        and all(conv.conv.kernel_size == (1, 1) for conv in neck.convs)
    )


def encode(
    sam: SAM2Base, pixels: Tensor, decoders: Sequence[MaskDecoder]
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Return the maps that mask decoders are given of n frames f32 [n, 3, S, S], channels last in memory.

    Returns:
        For each of the decoders [n, C/8, S/4, S/4] and [n, C/4, S/8, S/8]; and for all [n, C, S/16, S/16].
    """
    trunk, neck = sam.image_encoder.trunk, sam.image_encoder.neck
    side = pixels.shape[-1] // trunk.patch_embed.proj.stride[0]
    positions = trunk._get_pos_embed((side, side))
    split = pixels.split(max(1, _CELLS // side**2))
    parts = [_fine(sam, part, positions, decoders) for part in split]
    x, *levels = (torch.cat(level) for level in zip(*parts, strict=True))
    third = _stage(trunk, 2, x)
    fine = [_first(level) for level in levels]
    coarse = _first(_coarse(neck, third, _stage(trunk, 3, third)))
    return list(zip(fine[::2], fine[1::2], strict=True)), coarse


def _fine(sam: SAM2Base, pixels: Tensor, positions: Tensor, decoders: Sequence[MaskDecoder]) -> list[Tensor]:
    """Return what Hiera's second stage ends with, and the two fine maps of each decoder, [n, h, w, c] each."""
    trunk = sam.image_encoder.trunk
    laterals = [conv.conv for conv in sam.image_encoder.neck.convs][::-1]
    first = _stage(trunk, 0, (trunk.patch_embed(pixels) + positions).contiguous())
    second = _stage(trunk, 1, first)
    fine = [
        _twice(level, lateral, projection)
        for decoder in decoders
        for level, lateral, projection in (
            (first, laterals[0], decoder.conv_s0),
            (second, laterals[1], decoder.conv_s1),
        )
    ]
    return [second, *fine]


def _stage(trunk: Hiera, number: int, x: Tensor) -> Tensor:
    """Run the blocks of one of Hiera's stages on [n, h, w, c]."""
    begin = trunk.stage_ends[number - 1] + 1 if number else 0
    for block in trunk.blocks[begin : trunk.stage_ends[number] + 1]:
        x = _block(block, x)
    return x


def _block(block: MultiScaleBlock, x: Tensor) -> Tensor:
    normed = norm(block.norm1, x)
    if block.dim != block.dim_out:
        x = do_pool(linear(block.proj, normed), block.pool)
    height, width = x.shape[1:3]
    window = block.window_size
    if window:
        parts, padded = window_partition(normed, window)
        if block.q_stride:  # pooled windows; what they were padded to shrinks with them
            window //= block.q_stride[0]
            padded = tuple(-(-side // window) * window for side in (height, width))
        attended = window_unpartition(_attended(block.attn, parts), window, padded, (height, width))
    else:
        attended = _attended(block.attn, normed)
    x = linear(block.attn.proj, attended, add=x)
    first, second = block.mlp.layers
    return linear(second, linear(first, norm(block.norm2, x), "gelu"), add=x)


def _attended(attention: MultiScaleAttention, x: Tensor) -> Tensor:
    """Return the heads' results [n, h', w', c] for maps [n, h, w, c]; they are not projected yet."""
    count, height, width, _ = x.shape
    heads = attention.num_heads
    query, key, value = linear(attention.qkv, x).view(count, height * width, 3, heads, -1).unbind(2)
    if attention.q_pool:
        pooled = do_pool(query.reshape(count, height, width, -1), attention.q_pool)
        height, width = pooled.shape[1:3]
        query = pooled.reshape(count, height * width, heads, -1)
    found = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return found.transpose(1, 2).reshape(count, height, width, -1)


def _twice(x: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Return what two 1x1 convolutions after each other make of [n, h, w, c]."""
    assert first.bias is not None
    assert second.bias is not None
    inner, outer = first.weight.flatten(1), second.weight.flatten(1)
    return affine(x, outer @ inner, outer @ first.bias + second.bias)


def _coarse(neck: FpnNeck, x: Tensor, above: Tensor) -> Tensor:
    """Return level 2 of the FPN: its lateral map and each cell of level 3 on four of its cells."""
    top, lateral = neck.convs[0].conv, neck.convs[1].conv
    count, height, width, _ = above.shape
    coarse = affine(above, top.weight.flatten(1), top.bias)
    fine = affine(x, lateral.weight.flatten(1), lateral.bias).view(count, height, 2, width, 2, -1)
    return (fine + coarse[:, :, None, :, None]).view(count, 2 * height, 2 * width, -1)


def _first(x: Tensor) -> Tensor:
    """Return [n, h, w, c] as [n, c, h, w], a view."""
    return x.permute(0, 3, 1, 2)


class Predicted(NamedTuple):
    """What the mask decoder says of k prompts.

    Attributes:
        logits: f32 [k, 3, 4h, 4w], of the three masks.
        ious: f32 [k, 3].
        tokens: f32 [k, 3, C], the masks' output tokens.
        existence: f32 [k, 1], object score logit.
    """

    logits: Tensor
    ious: Tensor
    tokens: Tensor
    existence: Tensor


def predict(
    decoder: MaskDecoder, cells: Tensor, positions: Tensor, prompts: Tensor, high: tuple[Tensor, Tensor]
) -> Predicted:
    """Decode k prompts; sam2's `MaskDecoder.forward` with `multimask_output=True, repeat_image=False`.

    Args:
        decoder: the weights.
        cells: [k, C, h, w], the image's embedding with the dense prompt added to it.
        positions: [1, C, h, w], its positional encoding.
        prompts: [k, P, C], sparse prompts.
        high: [k, C/8, 4h, 4w] and [k, C/4, 2h, 2w].
    """
    count, channels, height, width = cells.shape
    own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(count, -1, -1), prompts], dim=1)
    image = cells.permute(0, 2, 3, 1).reshape(count, -1, channels)
    tokens, image = _transformed(
        decoder.transformer, image, positions.permute(0, 2, 3, 1).reshape(1, -1, channels), tokens
    )
    large = _upscaled(decoder, image.view(count, height, width, channels), high)
    masks = tokens[:, 2 : 2 + decoder.num_mask_tokens]
    weights = torch.stack(
        [
            _mlp(mlp, masks[:, number])
            for number, mlp in enumerate(decoder.output_hypernetworks_mlps)
            if number
        ],
        dim=1,
    )
    logits = torch.bmm(weights, large.view(count, -1, large.shape[-1]).transpose(1, 2))
    ious = _mlp(decoder.iou_prediction_head, tokens[:, 1])[:, 1:]
    existence = _mlp(decoder.pred_obj_score_head, tokens[:, 0])
    return Predicted(_in_rows(logits, height, width), ious, masks[:, 1:], existence)


def _transformed(
    transformer: TwoWayTransformer, image: Tensor, positions: Tensor, prompts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return tokens [k, T, C] and image [k, h * w, C] after they have attended to each other."""
    tokens = prompts
    for layer in transformer.layers:
        tokens, image = _layer(layer, tokens, image, prompts, image + positions)
    attention = transformer.final_attn_token_to_image
    placed = image + positions
    seen = _attend(
        attention, tokens + prompts, linear(attention.k_proj, placed), linear(attention.v_proj, image), tokens
    )
    return norm(transformer.norm_final_attn, seen), image


def _layer(
    layer: TwoWayAttentionBlock, tokens: Tensor, image: Tensor, prompts: Tensor, placed: Tensor
) -> tuple[Tensor, Tensor]:
    """Run one layer; `placed` is the image with its positions."""
    own, there, back = layer.self_attn, layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
    asked = tokens if layer.skip_first_layer_pe else tokens + prompts
    kept = None if layer.skip_first_layer_pe else tokens
    keys, values = linear(own.k_proj, asked), linear(own.v_proj, tokens)
    tokens = norm(layer.norm1, _attend(own, asked, keys, values, kept))
    # Both attentions between tokens and image read the placed image: one product for its keys there and queries back.
    both = affine(
        placed,
        torch.cat([there.k_proj.weight, back.q_proj.weight]),
        torch.cat([there.k_proj.bias, back.q_proj.bias]),
    )
    keys, queries = both.split([there.internal_dim, back.internal_dim], dim=-1)
    tokens = norm(layer.norm2, _attend(there, tokens + prompts, keys, linear(there.v_proj, image), tokens))
    first, second = layer.mlp.layers
    tokens = norm(layer.norm3, linear(second, linear(first, tokens, "relu"), add=tokens))
    found = _from_few(back, queries, linear(back.k_proj, tokens + prompts), linear(back.v_proj, tokens))
    return tokens, norm(layer.norm4, linear(back.out_proj, found, add=image))


def _attend(attention: Attention, asking: Tensor, keys: Tensor, values: Tensor, add: Tensor | None) -> Tensor:
    """Return what vectors [k, q, C] find at keys and values [k, n, D], projected and added to `add`."""
    heads = attention.num_heads
    query, key, value = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in (linear(attention.q_proj, asking), keys, values)
    )
    found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return linear(attention.out_proj, found, add=add)


def _from_few(attention: Attention, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return what many queries [k, q, D] find at few keys and values [k, n, D]: [k, q, D], not projected.

    Each head's keys stand in rows of their own, with zeros for the other heads: one product for all heads. Tokens come
    first in these rows, so that the softmax runs over whole lines of memory.
    """
    heads, few = attention.num_heads, keys.shape[1]
    size = attention.internal_dim // heads
    mine = torch.eye(heads).repeat_interleave(size, dim=1)
    rows = (keys[:, :, None] * (mine / math.sqrt(size))).flatten(1, 2)
    scores = torch.bmm(rows, queries.transpose(1, 2))
    shares = scores.view(len(scores), few, -1).softmax(1).view_as(scores)
    return torch.bmm(shares.transpose(1, 2), (values[:, :, None] * mine).flatten(1, 2))


def _upscaled(decoder: MaskDecoder, image: Tensor, high: tuple[Tensor, Tensor]) -> Tensor:
    """Return [k, h, w, 2, 2, 2, 2, C/8]: each cell's rows and columns of two, and theirs of two."""
    first, between, _, second, _ = decoder.output_upscaling
    count, height, width, _ = image.shape
    s0, s1 = (level.permute(0, 2, 3, 1) for level in high)
    x = _spread(first, image).view(count, height, width, 2, 2, -1)
    x += s1.reshape(count, height, 2, width, 2, -1).permute(0, 1, 3, 2, 4, 5)
    x = F.gelu(_norm2d(between, x))
    x = _spread(second, x).view(count, height, width, 2, 2, 2, 2, -1)
    x += s0.reshape(count, height, 2, 2, width, 2, 2, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return F.gelu(x)


def _spread(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Return what a transposed convolution of kernel and stride 2 makes of single cells: [..., 2 * 2 * out]."""
    assert layer.bias is not None
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()
    return affine(x, weight, layer.bias.repeat(4))


def _norm2d(layer: LayerNorm2d, x: Tensor) -> Tensor:
    return F.layer_norm(x, layer.weight.shape, layer.weight, layer.bias, layer.eps)


def _in_rows(logits: Tensor, height: int, width: int) -> Tensor:
    """Put the pixels of `_upscaled` [k, m, h * w * 16] in rows: [k, m, 4h, 4w]."""
    cells = logits.view(*logits.shape[:2], height, width, 2, 2, 2, 2)
    return cells.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(*logits.shape[:2], 4 * height, 4 * width)


def _mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """Return what it makes of [k, C]. One row alone would be summed in another order than in company: it gets some."""
    rows = x.expand(2, -1) if len(x) == 1 else x
    if not isinstance(mlp, MLP):  # the object score's head may be one layer
        plain: Tensor = mlp(rows)
        return plain[: len(x)]
    *inner, last = mlp.layers
    for layer in inner:
        rows = linear(layer, rows, "relu")
    found = linear(last, rows)[: len(x)]
    return found.sigmoid() if mlp.sigmoid_output else found
