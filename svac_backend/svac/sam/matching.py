"""Feature matching beside SAM-2's memory attention: where on a frame are the cells that a remembered mask covered?
And beside its mask decoder: where are the cells that a [SEG] means?

Memory attention learns how to compare frames; matching compares them as they are, by features of a trunk that has seen
photographs, at twice the resolution. A cell of the frame looks for its like on the nearest conditioning frames,
wherever it was there, and on the last two frames, near where it is now; what it finds says how much of it the object
covers.
The two maps become logits that are the mask decoder's mask prompt and are added to its masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

# Logits of a map are cut off here: a cell is never surer than 99.75 %.
_SURE = 6.0
# An object is looked for around where it was: this share of the picture further on each side.
_REACH = 1 / 6


@dataclass
class Remembered:
    """Frames to match with, of B videos with E objects each.

    Attributes:
        features: f32 [B, M, D, h, w], of M frames.
        shares: f32 [B, M, E, h, w], how much of each cell each object covers.
    """

    features: Tensor
    shares: Tensor

    @classmethod
    def of(cls, frames: list[tuple[Tensor, Tensor]]) -> Remembered:
        """Join frames: features [B, D, h, w] and shares [B, E, h, w] of each, at least one."""
        features, shares = zip(*frames, strict=True)
        return cls(torch.stack(features, 1), torch.stack(shares, 1))


class SegMatching(nn.Module):
    """Compares a [SEG] with each cell of stride 16 of a trunk that has seen photographs.

    The mask decoder has to learn from whole masks what a [SEG] means. The product of a [SEG] with a cell's features is
    learned from every cell, and so from far fewer masks. What it finds is the decoder's mask prompt, and is added to
    its masks.

    Args:
        channels: of the trunk's maps of strides 16 and 32.
        seg: C, of a [SEG].
        dim: of what is compared.
    """

    # Cells of the surest that say whether anything is there.
    SUREST = 4
    # What products of a cell and a [SEG] are divided by.
    SCALE = 8.0

    def __init__(self, channels: list[int], seg: int, dim: int) -> None:
        super().__init__()
        inner = 2 * dim
        self.fine, self.coarse = (nn.Conv2d(count, inner, 1) for count in channels)
        self.place = nn.Conv2d(2, inner, 1, bias=False)
        self.around = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.out = nn.Conv2d(inner, dim, 1)
        self.query, self.bias = nn.Linear(seg, dim), nn.Linear(seg, 1)
        self.weight = nn.Parameter(torch.tensor(1.0))  # of the logits in the decoder's masks

    def cells(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return what a [SEG] is compared with, [n, dim, S/16, S/16], from maps of strides 16 and 32."""
        height, width = fine.shape[-2:]
        down, across = (torch.linspace(-1, 1, side, device=fine.device) for side in (height, width))
        place = torch.stack(torch.meshgrid(across, down, indexing="xy"))[None].to(fine.dtype)
        wide = F.interpolate(self.coarse(coarse), size=(height, width), mode="bilinear", align_corners=False)
        x = F.gelu(self.place(place) + self.fine(fine) + wide)
        cells: Tensor = self.out(x + F.gelu(self.around(x)))
        return cells

    def forward(self, cells: Tensor, seg: Tensor) -> Tensor:
        """Return where it is, logits f32 [k, S/16, S/16], of k pairs of cells [k, dim, ...] and [SEG] [k, C]."""
        seg = seg.to(cells.dtype)
        alike = torch.einsum("kdhw,kd->khw", cells, self.query(seg)) / self.SCALE
        return (alike + self.bias(seg)[:, :, None]).float()

    def existence(self, found: Tensor) -> Tensor:
        """Return logits f32 [k] of its being there at all."""
        return found.flatten(1).topk(self.SUREST, dim=1).values.mean(1)


class FeatureMatching(nn.Module):
    """Matches a frame's cells of stride 8 with those of remembered frames.

    Args:
        channels: of the trunk's maps of strides 8 and 16.
        dim: D, of what is compared.
    """

    def __init__(self, channels: list[int], dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(sum(channels), dim, 1)
        # Of comparing anywhere and nearby: how sharp, and how alike a cell's like must be to count as seen before.
        self.sharpness = nn.Parameter(torch.tensor([3.0, 3.0]))
        self.unseen = nn.Parameter(torch.tensor([5.0, 5.0]))
        # How near nearby is: exp(-distance^2 / 2), of distances in shares of the picture times exp of this.
        self.nearness = nn.Parameter(torch.tensor(2.5))
        self.head = nn.Sequential(
            nn.Conv2d(4, 16, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 1, 1),
        )
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.mixture = nn.Parameter(torch.tensor([0.5, 0.5]))  # of the two maps, beside what the head says
        self.weight = nn.Parameter(torch.tensor(0.5))  # of the logits in the decoder's masks

    def features(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return what cells are compared by, [n, D, S/8, S/8] of length 1, from maps of strides 8 and 16."""
        coarse = F.interpolate(
            F.normalize(coarse, dim=1), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        return F.normalize(self.project(torch.cat([F.normalize(fine, dim=1), coarse], 1)), dim=1)

    def forward(self, query: Tensor, anywhere: Remembered, nearby: Remembered) -> Tensor:
        """Return where the objects are, logits f32 [B, E, h, w].

        Args:
            query: [B, D, h, w], the frame's features.
            anywhere: the nearest conditioning frames.
            nearby: the frames before this one.
        """
        query = query.float()
        inside = _around(nearby.shares)
        rows = cols = slice(None)
        if not torch.is_grad_enabled():  # cells that no object is looked for in need not be compared
            rows, cols = (_span(inside.any(dim)) for dim in ((0, 1, 3), (0, 1, 2)))
        maps, seen = [], []
        for kind, memory in enumerate((anywhere, nearby)):
            share, known = self._compare(kind, query, rows, cols, memory)
            maps.append(torch.logit(share, 1 / (1 + math.exp(_SURE))))
            seen.append(known[:, None].expand_as(share))
        logits = torch.stack(maps, 2)  # [B, E, 2, rows, cols]
        whole = query.new_full((*inside.shape[:2], 4, *inside.shape[2:]), -_SURE)
        whole[:, :, 2:] = 0
        whole[..., rows, cols] = torch.cat([logits, torch.stack(seen, 2)], 2)
        outside = torch.tensor([-_SURE, -_SURE, 0, 0], device=whole.device).view(4, 1, 1)
        whole = torch.where(inside[:, :, None], whole, outside)
        flat = whole.flatten(0, 1)
        said = self.head((flat / 3).to(self.mixture.dtype))[:, 0].float()
        found = said + (flat[:, :2] * self.mixture.view(2, 1, 1)).sum(1)
        return found.view(inside.shape).clamp(-2 * _SURE, 2 * _SURE)

    def _compare(
        self, kind: int, query: Tensor, rows: slice, cols: slice, memory: Remembered
    ) -> tuple[Tensor, Tensor]:
        """Return the share of each cell [B, E, rows, cols], and how much of it was seen before [B, rows, cols]."""
        frames, objects = memory.shares.shape[1:3]
        places = _places(query.shape[-2], query.shape[-1], query.device)
        asked, here = query[..., rows, cols], places[:, rows, cols]
        count, shape = len(asked), asked.shape[-2:]
        # Likeness, and nearness: -|p - q|^2 = 2 p q - |q|^2 - |p|^2, all in one product. `anywhere` is near to all.
        near = (2 * self.nearness).exp() / 2 if kind else query.new_zeros(())
        ask = [
            self.sharpness[kind].exp() * asked,
            (2 * near * here).expand(count, -1, -1, -1),
            torch.ones_like(asked[:, :1]),
            (-near * here.square().sum(0)).expand(count, 1, -1, -1),
        ]
        away = -near * places.square().sum(0)
        tell = [
            memory.features.float(),
            torch.stack([*places, away, torch.ones_like(away)]).expand(count, frames, -1, -1, -1),
        ]
        keys = torch.cat(tell, 2).transpose(2, 1).flatten(2).transpose(1, 2)
        # The last key is that of a cell which was not seen before.
        unseen = F.pad(self.unseen[kind].expand(count, 1, 1), (keys.shape[-1] - 2, 1))
        keys = torch.cat([keys, unseen], 1)
        shares = memory.shares.float().transpose(1, 2).flatten(2).transpose(1, 2)
        values = F.pad(F.pad(shares, (0, 1), value=1.0), (0, max(0, keys.shape[-1] - objects - 1), 0, 1))
        queries = torch.cat(ask, 1).flatten(2).transpose(1, 2)
        # In rows, or torch takes a slow way.
        query, key, value = (part[:, None].contiguous() for part in (queries, keys, values))
        found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        found = found[:, 0, :, : objects + 1].transpose(1, 2).unflatten(2, shape)
        seen = found[:, -1]
        return found[:, :-1] / seen[:, None].clamp(min=1e-3), seen


def matching_of(sam: SAM2Base) -> FeatureMatching | None:
    """Return the model's feature matching, if it has one."""
    found = getattr(sam, "matching", None)
    return found if isinstance(found, FeatureMatching) else None


def seg_matching_of(sam: SAM2Base) -> SegMatching | None:
    """Return what compares a [SEG] with the model's cells, if it has it."""
    found = getattr(sam, "seg_matching", None)
    return found if isinstance(found, SegMatching) else None


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """Return the cells' centres in shares of the picture from its middle, f32 [2, h, w]."""
    y = (torch.arange(height, device=device) + 0.5) / height - 0.5
    x = (torch.arange(width, device=device) + 0.5) / width - 0.5
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))


def _around(shares: Tensor) -> Tensor:
    """Return where objects are looked for, bool [B, E, h, w]: a box around where they were, or everywhere.

    Args:
        shares: f32 [B, M, E, h, w].
    """
    there = (shares > 0.5).any(1)
    height, width = there.shape[-2:]
    rows, cols = (
        _reached(there.any(-1), round(_REACH * height)),
        _reached(there.any(-2), round(_REACH * width)),
    )
    return (rows[..., :, None] & cols[..., None, :]) | ~there.any((-1, -2), keepdim=True)


def _reached(line: Tensor, reach: int) -> Tensor:
    """Return lines, bool [..., n], set from `reach` before the first to `reach` behind the last that is set."""
    wide = F.max_pool1d(line.float().flatten(0, -2), 2 * reach + 1, 1, reach).unflatten(0, line.shape[:-1])
    return ((wide.cumsum(-1) > 0) & (wide.flip(-1).cumsum(-1).flip(-1) > 0)).view(line.shape)


def _span(line: Tensor) -> slice:
    """Return the slice from the first to the last cell that is set of a line, bool [n], at least one of them."""
    found = line.nonzero()
    return slice(int(found[0]), int(found[-1]) + 1)
