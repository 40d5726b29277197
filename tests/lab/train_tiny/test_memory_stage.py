"""The memory stage: it changes what it may, it does what inference does, and what ships propagates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.train_tiny import memory_stage, recipe
from lab.train_tiny.mask_batch import SMALLEST
from lab.train_tiny.memory_batch import make_boxes, make_clicks, make_sequences
from lab.train_tiny.memory_measure import held_out, measure_memory
from lab.train_tiny.memory_rollout import Given, masked, rollout
from lab.train_tiny.memory_stage import TRAINED, only, others_of, prepare, sequence_loss, train_memory
from lab.train_tiny.schedule import Schedule
from safetensors.torch import load_file
from sam2.modeling.sam2_base import SAM2Base

from svac_backend.svac.config import SvacConfig
from svac_backend.svac.files.weights import EMBEDDED
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import build_sam, encode_frames
from svac_backend.svac.sam.memory import MemoryTracker
from svac_backend.synthetic.rich.scene import make_rich_scene
from svac_backend.video.reader import ArrayVideo

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
CONFIG = SvacConfig.load(EMBEDDED["svac-tiny"] / "config.json")
SCENES = replace(recipe.SCENES, width=CONFIG.sam.image_size, height=CONFIG.sam.image_size)


def fresh() -> SAM2Base:
    torch.manual_seed(0)
    return build_sam(CONFIG.sam).eval()


@pytest.fixture(scope="module")
def shipped() -> Svac:
    return Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")


def test_training_changes_memory_and_prompts_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = fresh().train()
    monkeypatch.setattr(memory_stage, "plan_of", lambda rng, done: (3, (0,) if done < 0.5 else (0, 2)))
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    flags = {name: p.requires_grad for name, p in sam.named_parameters()}

    def schedule(steps: int) -> Schedule:
        return Schedule("memory", steps, 1e-3, 1, tmp_path / "curves.jsonl")

    def changed() -> set[str]:
        return {name for name, value in sam.state_dict().items() if not torch.equal(value, before[name])}

    train_memory(sam, SCENES, schedule(2), scenes_per_step=2)
    assert all(name.startswith(TRAINED) for name in changed())
    for part in ("memory_attention.", "memory_encoder.", "maskmem_tpos_enc", "obj_ptr_proj."):
        assert any(name.startswith(part) for name in changed())
    assert flags == {name: p.requires_grad for name, p in sam.named_parameters()}
    assert sam.training


def test_training_onto_a_model_keeps_the_rest_of_its_file(tmp_path: Path) -> None:
    recipe.train(tmp_path, steps=recipe.StageSteps(memory=1), device="cpu", onto="svac-tiny")
    before = load_file(EMBEDDED["svac-tiny"] / "model.safetensors")
    after = load_file(tmp_path / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.removeprefix("sam.").startswith(TRAINED) for name in changed)
    assert not (tmp_path / "joint.pt").exists()


def test_segment_does_not_use_what_is_trained(shipped: Svac) -> None:
    """Masks and scores of expressions stay bit for bit, whatever the stage does to its weights."""
    scene = held_out_scene()
    said = ["the red object", "the largest object"]

    def run() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(f.masks, f.scores) for f in shipped.segment(ArrayVideo(scene), said)]

    before = run()
    kept = {name: value.clone() for name, value in shipped.sam.state_dict().items()}
    try:
        with torch.no_grad():
            for name, parameter in shipped.sam.named_parameters():
                if name.startswith(TRAINED):
                    parameter.normal_()
        after = run()
    finally:
        shipped.sam.load_state_dict(kept)
    assert any(masks.any() for masks, _ in before)
    for (masks, scores), (again, rated) in zip(before, after, strict=True):
        assert np.array_equal(masks, again)
        assert np.array_equal(scores, rated)


def held_out_scene() -> np.ndarray:
    return make_rich_scene(3, SCENES, range(8), words=False).frames


@pytest.mark.parametrize("reverse", [False, True])
def test_a_rollout_is_what_inference_does(shipped: Svac, reverse: bool) -> None:
    batch = held_out(5, SCENES, 6)
    given = {0: Given(masks=batch.masks[:, 0]), 5: Given(masks=batch.masks[:, 5])}
    with torch.no_grad():
        features = encode_frames(shipped.sam, batch.pixels)
        found = rollout(shipped.sam, features, batch.frame, given)
        tracker = MemoryTracker(shipped.sam, len(batch.frame), 6, no_object_masking=True)
        order = [5 - t if reverse else t for t in range(6)]
        for t in given:
            tracker.condition_masks(order[t], features.take([t]), batch.masks[:, t])
        for t in range(1, 5):
            logits, scores = tracker.track(order[t], features.take([t]), reverse=reverse)
            assert torch.allclose(logits, masked(found[t]), atol=1e-3)
            assert torch.allclose(scores, found[t].existence.sigmoid() * found[t].iou, atol=1e-4)


def test_the_loss_falls_on_one_batch(shipped: Svac) -> None:
    sam = fresh()
    fixed = {name: value for name, value in shipped.sam.state_dict().items() if not name.startswith(TRAINED)}
    sam.load_state_dict(fixed, strict=False)
    prepare(sam, SCENES, seed=0)
    batch = make_sequences(np.random.default_rng(6), SCENES, scenes=1, length=3, given=(0,))
    prompts = {0: Given(masks=batch.masks[:, 0])}
    losses = []
    with torch.no_grad():
        features = encode_frames(sam, batch.pixels)
    with only(sam, TRAINED) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        for _ in range(25):
            loss, figures = sequence_loss(sam, features, batch, prompts)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.75 * losses[0]
    assert set(figures) == {"first", "last", "exists"}


def test_objects_of_a_batch_do_not_see_each_other(shipped: Svac) -> None:
    batch = make_sequences(np.random.default_rng(4), SCENES, scenes=3, length=3, given=(0,))
    with torch.no_grad():
        features = encode_frames(shipped.sam, batch.pixels)
        together = rollout(shipped.sam, features, batch.frame, {0: Given(masks=batch.masks[:, 0])})
        last = rollout(shipped.sam, features, batch.frame[-1:], {0: Given(masks=batch.masks[-1:, 0])})
    assert torch.allclose(together[2].logits[-1:], last[2].logits, atol=1e-3)


def test_prompts_say_where_the_object_is() -> None:
    rng = np.random.default_rng(2)
    batch = make_sequences(rng, SCENES, scenes=12, length=4, given=(0, 3))
    masks, others = batch.masks[:, 0], others_of(batch, 0)
    size = masks.shape[-1]
    assert not (masks & others).any()
    points, labels = make_clicks(rng, masks, others)
    boxes, corners = make_boxes(rng, masks, jitter=0.0)
    seen = set()
    for n, mask in enumerate(masks):
        if mask.float().mean() <= SMALLEST:
            assert (labels[n] == -1).all()
            assert (corners[n] == -1).all()
            continue
        for (x, y), label in zip((points[n] * size).long().tolist(), labels[n].tolist(), strict=True):
            seen.add(label)
            assert label == -1 or bool(mask[y, x]) == (label == 1)
        (left, top), (right, bottom) = (boxes[n] * size).round().long().tolist()
        assert mask[top:bottom, left:right].sum() == mask.sum()
        assert mask[top, left:right].any()
        assert mask[top:bottom, right - 1].any()
    assert seen == {-1.0, 0.0, 1.0}


def test_sequences_show_each_object_when_prompted_and_sometimes_hide_it_after() -> None:
    rng = np.random.default_rng(8)
    gone = 0
    for _ in range(12):
        batch = make_sequences(rng, SCENES, scenes=4, length=5, given=(0, 4))
        assert torch.equal(batch.present > 0, batch.masks.flatten(2).float().mean(2) > SMALLEST)
        assert (batch.present[:, [0, 4]] > 0).any(1).all()
        gone += int((batch.present[:, 1:4] == 0).sum())
    assert gone > 0


def test_memory_starts_as_features_that_the_decoder_knows(shipped: Svac) -> None:
    sam = build_sam(CONFIG.sam).eval()
    sam.load_state_dict(shipped.sam.state_dict())
    batch = make_sequences(np.random.default_rng(1), SCENES, scenes=4, length=2, given=(0,))

    def distance() -> float:
        """Mean squared distance of fused features from those without memory, over these features' variance."""
        for layer in sam.memory_attention.layers:
            for branch in (layer.self_attn.out_proj, layer.cross_attn_image.out_proj, layer.linear2):
                branch.weight.data.zero_()
                branch.bias.data.zero_()
        low = features.low.flatten(2).permute(2, 0, 1)
        position = features.position.flatten(2).permute(2, 0, 1)
        memory = torch.zeros(len(low), low.shape[1], 64)
        fused = sam.memory_attention([low], memory, [position], memory)
        return float((fused - low).square().mean() / low.var())

    with torch.no_grad():
        features = encode_frames(sam, batch.pixels)
        sam.memory_attention.norm.reset_parameters()
        untouched = distance()
        prepare(sam, SCENES, seed=0)
        assert distance() < 0.2 < 0.4 < untouched


def test_what_ships_propagates_better_than_copying(shipped: Svac) -> None:
    figures = measure_memory(shipped.sam, SCENES, seeds=range(20, 22))
    far = slice(8, 16)
    copied = float(np.mean(figures["copied"][far]))
    for way in ("forward", "backward"):
        assert float(np.mean(figures[way][far])) > copied + 15
    assert float(np.mean(figures["two masks"][1:-1])) > float(np.mean(figures["copied"][1:-1])) + 15
    assert figures["forward"][1] > 70
