"""The published losses: equal to the reference's values, points where the mask is uncertain, gradients that help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svac_backend.errors import SvacError
from svac_backend.learning import objective as losses

ORACLE = Path(__file__).parents[1] / "golden" / "loss_oracle.npz"


def test_the_losses_equal_the_published_ones() -> None:
    oracle = np.load(ORACLE)
    logits, targets = torch.from_numpy(oracle["logits"]), torch.from_numpy(oracle["gt"])
    assert abs(losses.bce_loss(logits, targets).item() - float(oracle["ce"])) < 1e-5
    assert abs(losses.dice_loss(logits, targets).item() - float(oracle["dice"])) < 1e-5


def test_dice_of_equal_masks_and_of_two_empty_ones_is_nothing() -> None:
    targets = (torch.arange(100).view(2, 50) % 3 == 0).float()
    sure = (targets * 2 - 1) * 50
    assert losses.dice_loss(sure, targets).item() == pytest.approx(0, abs=1e-6)
    assert losses.bce_loss(sure, targets).item() == pytest.approx(0, abs=1e-6)
    empty = torch.zeros(2, 50)
    assert losses.dice_loss(empty - 50, empty).item() == pytest.approx(0, abs=1e-6)
    # Disjoint: 0.5 x (1 - 1 / (c + b + 1)).
    assert losses.dice_loss(-sure, targets).item() == pytest.approx(0.5 * (1 - 1 / 51), abs=1e-4)


def test_sampling_reads_pixel_centres_and_between_them() -> None:
    maps = torch.arange(12.0).view(1, 3, 4)
    centres = torch.tensor([[[(x + 0.5) / 4, (y + 0.5) / 3] for y in range(3) for x in range(4)]])
    assert torch.allclose(losses.sample_at(maps, centres), maps.flatten(1), atol=1e-5)
    between = torch.tensor([[[2.0 / 4, 0.5 / 3]]])
    assert losses.sample_at(maps, between).item() == pytest.approx(1.5)


def test_most_points_lie_where_the_mask_is_uncertain() -> None:
    """A vertical edge at x = 0.5: three quarters of the points come from the third of candidates nearest to it."""
    columns = torch.linspace(-10, 10, 64).expand(2, 64, 64)
    points = losses.uncertain_points(columns, count=4000, generator=torch.Generator().manual_seed(0))
    assert points.shape == (2, 4000, 2)
    assert ((points >= 0) & (points < 1)).all()
    near = ((points[..., 0] - 0.5).abs() < 0.13).float().mean(1)
    # All 3000 uncertain ones, and a quarter of the 1000 that lie anywhere.
    assert ((near > 0.79) & (near < 0.84)).all()
    again = losses.uncertain_points(columns, count=4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(points, again)


def test_the_loss_of_masks_falls_when_they_get_better() -> None:
    targets = torch.zeros(2, 128, 128, dtype=torch.bool)
    targets[0, 20:60, 30:90] = True
    targets[1, 90:, :40] = True
    logits = torch.zeros(2, 64, 64, requires_grad=True)
    seeds = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    bce, dice = losses.mask_loss(logits, targets, generator=seeds)
    assert bce.item() == pytest.approx(2 * np.log(2), rel=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        sum(losses.mask_loss(logits, targets, points=2000, generator=seeds)).backward()
        optimizer.step()
    last = sum(losses.mask_loss(logits, targets, generator=seeds))
    assert last.item() < 0.25 * (bce + dice).item()
    assert ((logits > 0) == targets[:, ::2, ::2]).float().mean() > 0.97


@pytest.mark.parametrize("shapes", [((2, 8, 8), (1, 8, 8)), ((0, 8, 8), (0, 8, 8)), ((8, 8), (8, 8))])
def test_masks_that_do_not_belong_together_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(SvacError, match="can't be compared"):
        losses.mask_loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
