"""SAM-2's image encoder in fused operations, channels last: the forward pass of sam2's Hiera and FpnNeck.

The two high-resolution levels of the FPN are read by the mask decoder's `conv_s0` and `conv_s1` only, and nothing is
added to them from above: two linear maps after each other, which are multiplied first.
"""

from __future__ import annotations

import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, MultiScaleBlock, do_pool
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.backbones.utils import window_partition, window_unpartition
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from svac_backend.svac.fused import affine, linear, norm


def foldable(sam: SAM2Base) -> bool:
    """Whether the FPN is SAM-2's: 1x1 convolutions, and sums of nearest neighbours on the two coarse levels only."""
    neck = sam.image_encoder.neck
    return (
        sam.image_encoder.scalp == 1
        and len(neck.convs) == 4
        and sorted(neck.fpn_top_down_levels) == [2, 3]
        and (neck.fpn_interp_model, neck.fuse_type) == ("nearest", "sum")
        and all(conv.conv.kernel_size == (1, 1) for conv in neck.convs)
    )


def encode(sam: SAM2Base, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mask decoder's maps of n frames f32 [n, 3, S, S], channels last in memory.

    Returns:
        [n, C/8, S/4, S/4], [n, C/4, S/8, S/8] and [n, C, S/16, S/16].
    """
    neck, decoder = sam.image_encoder.neck, sam.sam_mask_decoder
    stages = _stages(sam.image_encoder.trunk, pixels)
    laterals = [conv.conv for conv in neck.convs][::-1]
    s0 = _twice(stages[0], laterals[0], decoder.conv_s0)
    s1 = _twice(stages[1], laterals[1], decoder.conv_s1)
    return _first(s0), _first(s1), _first(_coarse(neck, stages[2], stages[3]))


def _stages(trunk: Hiera, pixels: Tensor) -> list[Tensor]:
    """Return what each stage of Hiera ends with, [n, h, w, c]."""
    x = trunk.patch_embed(pixels)
    x = (x + trunk._get_pos_embed(x.shape[1:3])).contiguous()
    found = []
    for number, block in enumerate(trunk.blocks):
        x = _block(block, x)
        if number in trunk.stage_ends:
            found.append(x)
    return found


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
