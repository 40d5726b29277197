"""The objective: the model's own answers and masks, each [SEG] against its own clip, gradients where they belong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from svac_backend.learning.adapters import LoraOptions, attach_lora, detach_lora, trained_parameters
from svac_backend.learning.examples import Batches, Item
from svac_backend.learning.objective import (
    ANCHOR_WEIGHT,
    FrozenParts,
    Objective,
    anchor_loss,
    mask_loss,
    weighted_mask_loss,
)
from svac_backend.learning.videos import ClipCache
from svac_backend.svac.astc import mllm_pixels
from svac_backend.svac.language.mllm import Seen
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import decode, without_memory
from tests.learning.made import SMALL, small_model, squares


@pytest.fixture(scope="module")
def model(tokenizer_file: Path) -> Svac:
    return small_model(tokenizer_file)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    cache = ClipCache(SMALL, tmp_path_factory.mktemp("cache"))
    corrections = [
        replace(squares(1), expression="the long red square in the video"),
        squares(2, absent=(0, 1)),
    ]
    return Batches(corrections, [], cache, batch=2, frames_per_clip=2).items(0)


def test_embeddings_are_those_of_prediction(model: Svac, items: list[Item]) -> None:
    """In one padded batch in training, alone and with a cache in prediction."""
    with torch.no_grad():
        _, embeddings = Objective(model, FrozenParts(model)).answers(items)
        for item, seg in zip(items, embeddings, strict=True):
            visual = model.mllm.visual_tokens(mllm_pixels(item.seen.images))
            prompt = model.chat.build(item.expression, len(visual), 3)
            (alone,) = model.mllm.seg_states(Seen.alike(visual), [prompt], model.chat.context_id)
            assert seg.shape == (3, 32)
            assert torch.allclose(seg, alone, atol=1e-5)


def test_the_answers_loss_is_that_of_the_language_model(model: Svac, items: list[Item]) -> None:
    with torch.no_grad():
        lm, _ = Objective(model, FrozenParts(model)).answers(items[:1])
        visual = model.mllm.visual_tokens(mllm_pixels(items[0].seen.images))
        prompt = model.chat.build(items[0].expression, len(visual), 3)
        ids = torch.cat([prompt.prefix, prompt.suffix])
        embeds = model.mllm.embed(ids, visual.flatten(0, 1), model.chat.context_id)[None]
        labels = ids.clone()
        labels[: len(prompt.prefix) + prompt.answer_start] = -100
        expected = model.mllm.language_model(inputs_embeds=embeds, labels=labels[None]).loss
    assert lm.item() == pytest.approx(expected.item(), rel=1e-5)
    # The answer holds three [SEG] and the template's end.
    assert (labels == model.chat.seg_id).sum() == 3


def test_a_segs_mask_loss_reaches_its_own_clips_frames_only(model: Svac, items: list[Item]) -> None:
    objective = Objective(model, FrozenParts(model))
    with torch.no_grad():
        _, made = objective.answers(items[:1])
    for clip in range(3):
        seg = made[0].clone().requires_grad_(True)
        rows = torch.tensor([r for r in items[0].rows.tolist() if items[0].seen.clip_of[r] == clip])
        keep = torch.isin(items[0].rows, rows)
        only = replace(
            items[0], rows=items[0].rows[keep], target=items[0].target[keep], weight=items[0].weight[keep]
        )
        assert len(only.rows) == 2
        objective.masks([only], [seg]).total.backward()
        assert seg.grad is not None
        reached = seg.grad.abs().sum(1) > 0
        assert reached.tolist() == [n == clip for n in range(3)]


def test_each_item_is_met_by_its_own_embedding(model: Svac, items: list[Item]) -> None:
    objective = Objective(model, FrozenParts(model))
    with torch.no_grad():
        _, made = objective.answers(items)
    leaves = [seg.clone().requires_grad_(True) for seg in made]
    objective.masks(items[:1], leaves[:1]).total.backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is None


def test_gradients_reach_what_is_trained_and_nothing_else(model: Svac, items: list[Item]) -> None:
    for parameter in model.parameters():
        parameter.grad = None
        parameter.requires_grad_(False)
    attach_lora(model, LoraOptions(4, 8, 0.0))
    try:
        trained = trained_parameters(model)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        Objective(model, FrozenParts(model))(items).total.backward()
        reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert reached <= trained.keys()
        # LoRA's second factor is 0 at the start, so its first gets no gradient yet.
        assert all(n in reached for n in trained if n.endswith("lora_B.default.weight"))
        for part in ("mllm.mlp1.", "mllm.text_hidden_fcs.", "sam.sam_mask_decoder.pred_obj_score_head."):
            assert all(n in reached for n in trained if n.startswith(part)), part
        assert any(n.startswith("sam.sam_mask_decoder.transformer.") for n in reached)
    finally:
        detach_lora(model)
        for parameter in model.parameters():
            parameter.grad = None


def test_mask_losses_are_the_published_ones_and_drawn_frames_count_more() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(4, 16, 16) * 3, (torch.rand(4, 16, 16) > 0.5).float()
    torch.manual_seed(1)
    bce, dice = weighted_mask_loss(logits, target, torch.full((4,), 0.5))
    torch.manual_seed(1)
    published_bce, published_dice = mask_loss(logits, target, points=256)
    assert bce.item() == pytest.approx(published_bce.item(), rel=1e-6)
    assert dice.item() == pytest.approx(published_dice.item(), rel=1e-6)
    # Even maps, so that it does not matter where the points lie. Two frames are drawn and count twice as much.
    level = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    bce, dice = weighted_mask_loss(
        level[:, None, None].expand(4, 96, 96), torch.zeros(4, 96, 96), torch.tensor([1.0, 0.5, 1.0, 0.5])
    )
    each = 2 * F.softplus(level)
    assert bce.item() == pytest.approx(float((each * torch.tensor([1, 0.5, 1, 0.5])).sum() / 3), rel=0.02)


def test_existence_is_asked_where_the_method_masks_absent_objects(model: Svac, items: list[Item]) -> None:
    objective = Objective(model, FrozenParts(model))
    with torch.no_grad():
        found = objective(items)
        _, seg = objective.answers(items)
        parts = []
        for item, each in zip(items, seg, strict=True):
            features = FrozenParts(model).features(item.seen, item.rows)
            clips = [item.seen.clip_of[int(r)] for r in item.rows]
            low = without_memory(model.sam, features)
            out = decode(model.sam, low, features.high, each[clips], no_object_masking=False)
            present = (item.target.flatten(1).sum(1) > 0).float()
            loss = F.binary_cross_entropy_with_logits(out.existence, present, reduction="none")
            parts.append((loss * item.weight).sum() / 1)
        weight = torch.cat([item.weight for item in items])
        assert found.existence.item() == pytest.approx(
            0.5 * float(sum(parts)) / float(weight.sum()), rel=1e-4
        )
        model.run_as(no_object_masking=False)
        try:
            assert objective(items).existence.item() == 0
        finally:
            model.run_as(no_object_masking=True)


def test_frozen_parts_are_kept_within_their_room_and_equal_the_model(model: Svac, items: list[Item]) -> None:
    roomy, tight = FrozenParts(model), FrozenParts(model, 60_000)
    for _ in range(2):
        for item in items:
            visual = model.mllm.visual_tokens(mllm_pixels(item.seen.images))
            for frozen in (roomy, tight):
                assert torch.equal(model.mllm.see(frozen.looked(item.seen)).tokens, visual.flatten(0, 1))
            one, two = roomy.features(item.seen, item.rows), tight.features(item.seen, item.rows)
            assert torch.allclose(one.low, two.low, atol=1e-5)
            assert torch.allclose(one.high[1], two.high[1], atol=1e-5)
    assert tight._bytes <= 60_000 < roomy._bytes


def test_an_anchor_keeps_what_a_replayed_example_was_answered_with(model: Svac, items: list[Item]) -> None:
    with torch.no_grad():
        _, made = Objective(model, FrozenParts(model)).answers(items)
    kept = replace(items[0], anchor=made[0].clone())
    assert anchor_loss([kept, items[1]], made).item() == 0
    moved = [(made[0] + made[0].std()).requires_grad_(True), made[1]]
    loss = anchor_loss([kept, items[1]], moved)
    # A distance as large as the spread, for one of two examples.
    assert loss.item() == pytest.approx(ANCHOR_WEIGHT / 2, rel=1e-4)
    loss.backward()
    assert moved[0].grad is not None
    assert anchor_loss(items, made).item() == 0


def test_a_step_without_masks_still_teaches_the_answer(model: Svac, items: list[Item]) -> None:
    none = replace(
        items[0], rows=torch.zeros(0, dtype=torch.long), target=torch.zeros(0, 16, 16), weight=torch.zeros(0)
    )
    found = Objective(model, FrozenParts(model))([none])
    assert found.lm.item() > 0
    assert found.total.item() == pytest.approx(found.lm.item())
