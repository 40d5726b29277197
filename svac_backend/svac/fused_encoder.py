"""SAM-2's image encoder in fused operations, channels last: the forward pass of sam2's Hiera and FpnNeck.

The two high-resolution levels of the FPN are read by the mask decoder's `conv_s0` and `conv_s1` only, and nothing is
added to them from above: two linear maps after each other, which are multiplied first.

Maps of the two fine levels are large, and few frames at a time leave them in the processor's cache; the coarse levels
take all frames at once, as their operations are small.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, MultiScaleBlock, do_pool
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.backbones.utils import window_partition, window_unpartition
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from svac_backend.svac.fused import affine, linear, norm

# Cells of the finest maps that are worked on together: six of the embedded model's frames, or one of 1024 px.
_CELLS = 6 * 48**2


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
    trunk, neck = sam.image_encoder.trunk, sam.image_encoder.neck
    side = pixels.shape[-1] // trunk.patch_embed.proj.stride[0]
    positions = trunk._get_pos_embed((side, side))
    parts = [_fine(sam, part, positions) for part in pixels.split(max(1, _CELLS // side**2))]
    s0, s1, x = (torch.cat(levels) for levels in zip(*parts, strict=True))
    third = _stage(trunk, 2, x)
    return _first(s0), _first(s1), _first(_coarse(neck, third, _stage(trunk, 3, third)))


def _fine(sam: SAM2Base, pixels: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mask decoder's two fine maps and what Hiera's second stage ends with, [n, h, w, c] each."""
    trunk, decoder = sam.image_encoder.trunk, sam.sam_mask_decoder
    laterals = [conv.conv for conv in sam.image_encoder.neck.convs][::-1]
    first = _stage(trunk, 0, (trunk.patch_embed(pixels) + positions).contiguous())
    second = _stage(trunk, 1, first)
    return _twice(first, laterals[0], decoder.conv_s0), _twice(second, laterals[1], decoder.conv_s1), second


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
