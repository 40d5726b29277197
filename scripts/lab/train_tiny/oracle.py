"""The oracle prompt: what a [SEG] embedding should say, built from the truth of a generated scene.

It is the sum of learned attribute vectors (colour, name, texture, and the sizes and positions that a frame shows), of
SAM-2's own positive-point embedding of the object's place, so that the mask part is pretrained on points as SAM-2
itself is, and of a vector that says that what was named is not there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from svac_backend.synthetic.rich.kinds import FAMILIES, KINDS
from svac_backend.synthetic.shapes import COLORS

NAMES: tuple[str, ...] = (*KINDS, *FAMILIES)
TEXTURES: tuple[str, ...] = ("striped", "dotted", "checked")
# Keys of clauses and superlatives that one frame decides.
SAYS: tuple[str, ...] = (
    *("large", "small", "largest", "smallest", "leftmost", "rightmost", "highest", "lowest"),
    *("at left", "at right", "at top", "at bottom", "at middle"),
    *("at top left", "at top right", "at bottom left", "at bottom right"),
)
# Colour, name and texture, and what is said of them, each or None; and whether it is not there.
AttributeRow = tuple[str | None, str | None, str | None, str | None, bool]


@dataclass
class Said:
    """What k prompts say. Indices into `COLORS`, `NAMES`, `TEXTURES` and `SAYS`; -1 where it is not said.

    Attributes:
        color, name, texture, says: i64 [...].
        absent: f32 [...], 1 where nothing of the kind is there.
    """

    color: Tensor
    name: Tensor
    texture: Tensor
    says: Tensor
    absent: Tensor

    @classmethod
    def of(cls, rows: list[AttributeRow]) -> Said:
        """Turn words into indices, [k]; words that no table has are not said."""
        tables = (COLORS, NAMES, TEXTURES, SAYS)
        color, name, texture, says = (
            torch.tensor([table.index(row[c]) if row[c] in table else -1 for row in rows], dtype=torch.long)
            for c, table in enumerate(tables)
        )
        return cls(color, name, texture, says, torch.tensor([float(row[4]) for row in rows]))

    def to(self, device: torch.device) -> Said:
        """Move to a device."""
        return Said(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class Oracle(nn.Module):
    """Attribute vectors in SAM-2's prompt space of `d_model` dimensions."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.color = nn.Embedding(len(COLORS), d_model)
        self.name = nn.Embedding(len(NAMES), d_model)
        self.texture = nn.Embedding(len(TEXTURES), d_model)
        self.says = nn.Embedding(len(SAYS), d_model)
        self.absent = nn.Parameter(torch.zeros(d_model))
        for table in (self.color, self.name, self.texture, self.says):
            nn.init.normal_(table.weight, std=0.5)
        nn.init.normal_(self.absent, std=0.5)

    def attributes(self, said: Said) -> Tensor:
        """Sum the vectors of what is said, without places; returns [..., C]."""
        total = said.absent[..., None] * self.absent
        for name in ("color", "name", "texture", "says"):
            table, index = getattr(self, name), getattr(said, name)
            total = total + table(index.clamp(min=0)) * (index >= 0)[..., None]
        return total


def place(sam: SAM2Base, points: Tensor) -> Tensor:
    """Embed places as SAM-2 embeds positive clicks; f32 [..., 2] in 0..1 (x, y); returns [..., C]."""
    encoder = sam.sam_prompt_encoder
    flat = points.reshape(1, -1, 2) * sam.image_size
    code = encoder.pe_layer.forward_with_coords(flat, encoder.input_image_size)[0]
    return (code + encoder.point_embeddings[1].weight).reshape(*points.shape[:-1], -1)


def places(sam: SAM2Base, points: Tensor) -> Tensor:
    """Return the mean code of up to P places f32 [..., P, 2], NaN where there is none; [..., C], 0 for no place."""
    there = ~points.isnan().any(-1)
    each = place(sam, points.nan_to_num(0.5)) * there[..., None]
    return each.sum(-2) / there.sum(-1, keepdim=True).clamp(min=1)


def grid_of(side: int, device: torch.device) -> Tensor:
    """Return the centres of side x side cells, row by row, f32 [side * side, 2] in 0..1 (x, y)."""
    axis = (torch.arange(side, device=device) + 0.5) / side
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(-1, 2)
