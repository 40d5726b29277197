"""Heads that say what stands where; used in training only. They make the encoders look before anybody asks them to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.train_tiny.mask_batch import CellLabels
from lab.train_tiny.pictures import OUTLINE, Labels


class CellHead(nn.Module):
    """Which kind, colour and texture covers each cell, and of what extent; the last class of each is: nothing.

    Args:
        width: channels of a cell.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, size + 1) for name, size in zip(_NAMES, CellLabels.CLASSES, strict=True)}
        )

    def loss(self, cells: Tensor, seen: CellLabels, prefix: str = "") -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of cells [n, c, width] against what covers them; empty cells count a fifth."""
        total = cells.new_zeros(())
        figures = {}
        for name, size in zip(_NAMES, CellLabels.CLASSES, strict=True):
            truth = getattr(seen, name).to(cells.device).flatten()
            logits = self.heads[name](cells).flatten(0, 1)
            clear = truth != -2
            goal = torch.where(truth >= 0, truth, size)
            weight = torch.where(truth >= 0, 1.0, 0.2) * clear
            each = F.cross_entropy(logits, goal, reduction="none")
            total = total + (each * weight).sum() / weight.sum().clamp(min=1)
            with torch.no_grad():
                of = truth >= 0
                right = (logits.argmax(1) == truth) & of
                figures[f"{prefix}{name}"] = (right.sum() / of.sum().clamp(min=1)).item()
        return total, figures


class LabelHead(nn.Module):
    """What covers each cell, and how far that reaches.

    Args:
        width: channels of a cell.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seen = CellHead(width)
        self.outline = nn.Linear(width, OUTLINE)

    def forward(self, cells: Tensor, labels: Labels, prefix: str) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of cells [n, c, width], and figures; of the outline the R2 of the size."""
        loss, figures = self.seen.loss(cells, labels.seen, prefix)
        truth = labels.outline.to(cells.device)
        known = ~truth.isnan()
        found = self.outline(cells)
        each = F.smooth_l1_loss(found, truth.nan_to_num(0), reduction="none", beta=0.2) * known
        with torch.no_grad():
            size, right = found[..., -1][known[..., -1]], truth[..., -1][known[..., -1]]
            figures[f"{prefix}size"] = (1 - (size - right).square().mean() / right.var()).item()
        return loss + 2 * each.sum() / known.sum().clamp(min=1), figures


_NAMES = ("kind", "color", "texture", "extent")


class StoryHead(nn.Module):
    """What the thing under a visual token has done so far; `ClipBatch.story`.

    Args:
        width: channels of a token.
        figures: number of figures.
    """

    def __init__(self, width: int, figures: int) -> None:
        super().__init__()
        self.figures = figures
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, figures))

    def loss(self, tokens: Tensor, story: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Smooth absolute error of tokens [B, k, width] against their stories [B, k, figures]."""
        known = ~story.isnan()
        each = F.smooth_l1_loss(self.layers(tokens), story.nan_to_num(0), reduction="none", beta=0.2)
        loss = (each * known).sum() / known.sum().clamp(min=1)
        return loss, {"story": loss.item()}


class PlaceHead(nn.Linear):
    """Visual tokens carry SAM-2's code of their own place in a form that is easy to copy."""

    def place_loss(self, tokens: Tensor, code: Tensor) -> Tensor:
        """Squared error of tokens [n, t, width] against the codes of their places [t, C]."""
        return F.mse_loss(self(tokens), code.expand(len(tokens), -1, -1))
