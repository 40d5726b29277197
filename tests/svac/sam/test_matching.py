"""Feature matching finds a mask again by what its cells look like, near where it was, and stays bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from svac_backend.svac.config import SamConfig
from svac_backend.svac.sam.grounding import build_sam, encode_frames
from svac_backend.svac.sam.matching import FeatureMatching, Remembered
from svac_backend.svac.sam.memory import MemoryTracker

SIDE, DIM = 24, 12


@pytest.fixture
def matching() -> FeatureMatching:
    torch.manual_seed(0)
    return FeatureMatching([8, 8], DIM)


def picture(*, left: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return features [1, D, h, w] with a thing of 6x6 cells of one kind on a ground of others, and its share."""
    torch.manual_seed(seed)
    ground, thing = torch.randn(2, DIM)
    ground = ground - thing * (ground @ thing) / (thing @ thing)
    features = ground.view(1, DIM, 1, 1).repeat(1, 1, SIDE, SIDE)
    share = torch.zeros(1, 1, SIDE, SIDE)
    share[..., 8:14, left : left + 6] = 1
    features[..., 8:14, left : left + 6] = thing.view(1, DIM, 1, 1)
    return torch.nn.functional.normalize(features, dim=1), share


def test_a_thing_that_moved_is_found_where_it_is_now(matching: FeatureMatching) -> None:
    before, now = picture(left=6), picture(left=9)
    with torch.no_grad():
        logits = matching(now[0], Remembered.of([before]), Remembered.of([before]))
    assert logits.shape == (1, 1, SIDE, SIDE)
    assert torch.equal(logits > 0, now[1] > 0.5)


def test_a_look_alike_far_away_is_another_thing(matching: FeatureMatching) -> None:
    before = picture(left=2)
    now = picture(left=2)[0].clone()
    now[..., 16:18, 20:23] = now[..., 8:10, 3:6]
    with torch.no_grad():
        logits = matching(now, Remembered.of([before]), Remembered.of([before]))
    assert torch.equal(logits > 0, before[1] > 0.5)


def test_what_was_lost_is_looked_for_everywhere(matching: FeatureMatching) -> None:
    shown, lost, now = picture(left=2), picture(left=2), picture(left=16)
    with torch.no_grad():
        found = matching(now[0], Remembered.of([shown]), Remembered.of([(lost[0], 0 * lost[1])]))
    inside = found[now[1] > 0.5]
    assert inside.min() > found[now[1] < 0.5].max()


def test_leaving_cells_out_changes_nothing(matching: FeatureMatching) -> None:
    """Without gradients only cells near the objects are compared; the result is that of all cells."""
    torch.manual_seed(4)
    for layer in matching.head:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.2)
    frames = [torch.nn.functional.normalize(torch.randn(2, DIM, SIDE, SIDE), dim=1) for _ in range(3)]
    shares = torch.zeros(2, 3, SIDE, SIDE)
    shares[0, 0, 4:9, 5:12] = 1
    shares[0, 1, 3:5, 8:9] = 1
    shares[0, 2, 6:8, 4:6] = 1
    shares[1] = shares[0].roll(3, -1)
    anywhere, nearby = Remembered.of([(frames[0], shares)]), Remembered.of([(frames[1], shares)] * 2)
    whole = matching(frames[2], anywhere, nearby)
    with torch.no_grad():
        part = matching(frames[2], anywhere, nearby)
    assert torch.allclose(whole, part, atol=1e-4)
    whole.sum().backward()
    assert all(
        p.grad is not None for name, p in matching.named_parameters() if name[:7] not in ("project", "weight")
    )


def test_objects_and_videos_do_not_see_each_other(matching: FeatureMatching) -> None:
    one, other = picture(left=4, seed=1), picture(left=12, seed=2)
    both = torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]])
    with torch.no_grad():
        alone = matching(one[0], Remembered.of([one]), Remembered.of([one]))
        together = matching(both[0], Remembered.of([both]), Remembered.of([both]))
        twice = (one[0], torch.cat([one[1], one[1].roll(5, -1)], 1))
        beside = matching(one[0], Remembered.of([twice]), Remembered.of([twice]))
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert torch.allclose(beside[:, :1], alone, atol=1e-4)


@pytest.fixture(scope="module")
def sam() -> SAM2Base:
    torch.manual_seed(0)
    config = SamConfig(image_size=64, d_model=64, memory_layers=1, trunk="mobilenet_v2", match_dim=12)
    return build_sam(replace(config)).eval()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_tracker_matches_and_forgets(sam: SAM2Base, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 8:40], masks[1, 30:60, 20:50] = True, True
    compared: list[tuple[int, int]] = []
    plain = FeatureMatching.forward

    def spied(self: FeatureMatching, query: Tensor, anywhere: Remembered, nearby: Remembered) -> Tensor:
        compared.append((anywhere.shares.shape[1], nearby.shares.shape[1]))
        return plain(self, query, anywhere, nearby)

    monkeypatch.setattr(FeatureMatching, "forward", spied)
    with torch.no_grad():
        features = encode_frames(sam, torch.randn(1, 3, 64, 64))
        tracker = MemoryTracker(sam, 2, 100, no_object_masking=True)
        for index in (40, 45, 60):
            tracker.condition_masks(index, features, masks)
        way = range(39, 0, -1) if reverse else range(61, 100)
        for index in way:
            logits, scores = tracker.track(index, features, reverse=reverse)
    assert logits.shape == (2, 16, 16)
    assert scores.shape == (2,)
    # The conditioning frame it starts from counts as the frame before; there are two of each at most.
    assert compared[0] == (2, 1)
    assert set(compared[1:]) == {(2, 2)}
    assert len(tracker.outputs["non_cond_frame_outputs"]) <= sam.max_obj_ptrs_in_encoder
