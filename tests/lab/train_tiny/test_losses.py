"""Losses of the mask stage, on two things of which one is meant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lab.train_tiny import recipe
from lab.train_tiny.losses import choice_loss, mask_loss
from lab.train_tiny.mask_batch import make_batch
from torch import Tensor

from svac_backend.svac.sam.grounding import Decoded

ALL, NONE = torch.tensor([True]), torch.tensor([False])
LEFT, RIGHT, FAR = (torch.zeros(12, 12) for _ in range(3))
LEFT[2:6, 1:4] = 1
RIGHT[3:9, 7:11] = 1
FAR[11, :] = 1
THINGS = torch.stack([LEFT, RIGHT, torch.zeros(12, 12)])[None]


def drawn(*on: Tensor, strength: float = 3.0) -> Decoded:
    """What a decoder would return that draws these cells in all three masks."""
    logits = (torch.stack(on).amax(0) * 2 - 1)[None, None].expand(1, 3, -1, -1) * strength
    every = logits.clone().requires_grad_()
    nothing = torch.zeros(1)
    return Decoded(logits[:, 0], nothing, nothing, nothing, torch.zeros(1, 4), every, torch.zeros(1, 3))


def larger(cells: Tensor) -> Tensor:
    """The cells at the targets' size, twice as fine, as a batch of one."""
    return cells.repeat_interleave(2, 0).repeat_interleave(2, 1)[None]


def test_the_choice_is_of_the_thing_that_is_meant() -> None:
    right, found = choice_loss(drawn(RIGHT), larger(RIGHT), THINGS, ALL)
    assert found == {"choice": 1.0}
    wrong, missed = choice_loss(drawn(LEFT), larger(RIGHT), THINGS, ALL)
    assert missed == {"choice": 0.0}
    both, _ = choice_loss(drawn(LEFT, RIGHT), larger(RIGHT), THINGS, ALL)
    assert right.item() == pytest.approx(np.log1p(np.exp(-6)), rel=1e-4)
    assert both.item() == pytest.approx(np.log(2), rel=1e-4)
    assert wrong.item() == pytest.approx(np.log1p(np.exp(6)), rel=1e-4)


def test_a_choice_moves_each_thing_as_a_whole() -> None:
    out = drawn(LEFT, RIGHT)
    loss, _ = choice_loss(out, larger(RIGHT), THINGS, ALL)
    loss.backward()
    grad = out.all_logits.grad
    assert grad is not None
    assert (grad[..., LEFT > 0] > 0).all()
    assert (grad[..., RIGHT > 0] < 0).all()
    assert grad[..., (LEFT + RIGHT) == 0].abs().max() == 0
    assert grad[..., LEFT > 0].sum().item() == pytest.approx(-grad[..., RIGHT > 0].sum().item())


@pytest.mark.parametrize(
    ("target", "chosen"),
    [(LEFT + RIGHT, ALL), (LEFT * 0, ALL), (FAR, ALL), (LEFT, NONE)],
    ids=["all are meant", "nothing is meant", "what is meant is no thing", "the prompt may mean others"],
)
def test_no_choice_is_asked_where_there_is_none(target: Tensor, chosen: Tensor) -> None:
    out = drawn(LEFT)
    loss, figures = choice_loss(out, larger(target), THINGS, chosen)
    loss.backward()
    assert loss.item() == 0
    assert figures == {}
    assert out.all_logits.grad is not None
    assert out.all_logits.grad.abs().max() == 0


def test_several_things_are_each_set_against_the_others() -> None:
    things = torch.stack([LEFT, RIGHT, FAR])[None]
    loss, figures = choice_loss(drawn(LEFT), larger(LEFT + RIGHT), things, ALL)
    # One of the two that are meant is ahead of the third thing by six, the other level with it.
    assert loss.item() == pytest.approx((np.log1p(np.exp(-6)) + np.log(2)) / 2, rel=1e-4)
    assert figures["choice"] == 0.5


def test_the_mask_loss_is_made_of_iou_and_cross_entropy() -> None:
    out = drawn(LEFT, RIGHT, strength=20.0)
    target = LEFT[None]
    loss, figures = mask_loss(out, target, torch.ones(1), clear=ALL)
    small, large = LEFT.sum().item(), RIGHT.sum().item()
    overlap = (small + 1) / (small + large + 1)
    wrong = 20.0 * large / 144
    quality = (small / (small + large)) ** 2
    assert loss.item() == pytest.approx(10 * wrong + 1 - overlap + quality + 0.5 * np.log(2), rel=1e-4)
    assert figures["iou"] == pytest.approx(small / (small + large))


def test_a_batchs_things_are_those_of_its_frames() -> None:
    batch = make_batch(np.random.default_rng(5), recipe.SCENES, scenes=4, point_share=0.0)
    assert batch.things.shape[0] == 4
    assert batch.things.shape[2:] == (48, 48)
    assert batch.things.sum(1).max() <= 1 + 1e-5
    small = torch.nn.functional.adaptive_avg_pool2d(batch.target[:, None], 48)[:, 0]
    for k in batch.present.nonzero()[:, 0].tolist():
        things = batch.things[batch.frame[k]]
        inside = (things * small[k]).sum((1, 2)) > 0.5 * things.square().sum((1, 2)).clamp(min=1e-6)
        assert torch.allclose(things[inside].sum(0), small[k], atol=1e-4)
