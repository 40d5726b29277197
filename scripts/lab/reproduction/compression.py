"""Fewer visual tokens of each image: average pooling and token merging, both after the projector.

Sources: LLaMA-VID and LongVLM pool each frame's tokens by averages; ToMe (Bolya et al., "Token Merging: Your ViT But
Faster", ICLR 2023) merges the most similar pairs by bipartite soft matching.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from svac_backend.errors import SvacError


def pool_tokens(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average each image's tokens over a coarser grid (adaptive average pooling).

    Args:
        tokens: [n, s * s, H], row by row.
        grid: rows and columns of the result, at most s each.

    Returns:
        [n, rows * columns, H].
    """
    count, cells, width = tokens.shape
    side = round(cells**0.5)
    if side * side != cells or max(grid) > side:
        raise SvacError(
            f"{cells} tokens of an image can't be pooled to {grid[0]}x{grid[1]}.",
            "Use a square number of tokens, and a coarser grid.",
        )
    maps = tokens.transpose(1, 2).reshape(count, width, side, side)
    return F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)


def merge_tokens(tokens: Tensor, left: int) -> tuple[Tensor, Tensor]:
    """Merge each image's most similar tokens until `left` are left (ToMe).

    Tokens are dealt alternately into two sets; the r most similar pairs (cosine) of one of the first and its nearest of
    the second are merged to their mean, weighted by how many tokens each already stands for. At most half of the
    tokens go in one round, so several rounds may be needed. What is left keeps its order in the image.

    Args:
        tokens: [n, t, H].
        left: 1 to t.

    Returns:
        Tokens [n, left, H], and how many tokens each stands for, f32 [n, left].

    Raises:
        SvacError: more are to be left than there are, or none.
    """
    if not 1 <= left <= tokens.shape[1]:
        raise SvacError(
            f"{left} of {tokens.shape[1]} tokens can't be left.",
            "Leave at least one and at most all of them.",
        )
    sizes = torch.ones(tokens.shape[:2], device=tokens.device)
    while tokens.shape[1] > left:
        # The second set has the odd places: of t tokens, (t + 1) // 2 can be merged away, but one must be left.
        most = min((tokens.shape[1] + 1) // 2, tokens.shape[1] - 1)
        tokens, sizes = _round(tokens, sizes, min(tokens.shape[1] - left, most))
    return tokens, sizes


def _round(tokens: Tensor, sizes: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Merge `pairs` pairs of each image."""
    images, count, _ = tokens.shape
    with torch.no_grad():
        metric = F.normalize(tokens.float(), dim=-1)
        best, nearest = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)).max(dim=-1)
        source = best.argsort(dim=1, descending=True, stable=True)[:, :pairs]
        target = 2 * nearest.gather(1, source) + 1
        # Where each token goes: to itself, or to the token that it is merged into.
        goes = torch.arange(count, device=tokens.device).expand(images, -1).clone()
        goes.scatter_(1, 2 * source, target)
        kept = torch.ones(images, count, dtype=torch.bool, device=tokens.device)
        kept.scatter_(1, 2 * source, False)
    weighted = tokens * sizes[..., None].to(tokens.dtype)
    total = torch.zeros_like(weighted).scatter_add(1, goes[..., None].expand_as(weighted), weighted)
    size = torch.zeros_like(sizes).scatter_add(1, goes, sizes)
    mean = total[kept].view(images, count - pairs, -1)
    size = size[kept].view(images, count - pairs)
    return mean / size[..., None].to(mean.dtype), size
