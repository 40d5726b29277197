"""The oracle prompt: what a [SEG] embedding should say, built from the truth of a generated scene.

It is the sum of learned attribute vectors (colour, shape, size) and of SAM-2's own positive-point embedding of the
object's place, so that the mask part is pretrained on points as SAM-2 itself is.
"""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from svac_backend.synthetic.vocabulary import COLORS, SHAPES

SIZES = ("small", "medium", "large", "largest", "smallest")


class Oracle(nn.Module):
    """Attribute vectors and places in SAM-2's prompt space of `d_model` dimensions. Index -1 means: not said."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.color = nn.Embedding(len(COLORS), d_model)
        self.shape = nn.Embedding(len(SHAPES), d_model)
        self.size = nn.Embedding(len(SIZES), d_model)
        for table in (self.color, self.shape, self.size):
            nn.init.normal_(table.weight, std=0.5)

    def attributes(self, color: Tensor, shape: Tensor, size: Tensor) -> Tensor:
        """Sum the attribute vectors; i64 [k] each, -1 where the attribute is not said; returns [k, C]."""
        total = torch.zeros(len(color), self.color.embedding_dim, device=color.device)
        for table, index in ((self.color, color), (self.shape, shape), (self.size, size)):
            total = total + table(index.clamp(min=0)) * (index >= 0)[:, None]
        return total


def place(sam: SAM2Base, points: Tensor) -> Tensor:
    """Embed places as SAM-2 embeds positive clicks; f32 [..., 2] in 0..1 (x, y); returns [..., C]."""
    encoder = sam.sam_prompt_encoder
    flat = points.reshape(1, -1, 2) * sam.image_size
    code = encoder.pe_layer.forward_with_coords(flat, encoder.input_image_size)[0]
    return (code + encoder.point_embeddings[1].weight).reshape(*points.shape[:-1], -1)
