"""Sentences about photographs: each stage learns its own part, leaves the rest, and what they make can be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.train_tiny.photo_nouns import TEACHER_NOUNS, View
from lab.train_tiny.photo_recipe import export
from lab.train_tiny.photo_scenes import Clip, Material, Scene, draw, material, rarity, said_of
from lab.train_tiny.photo_sentences import (
    PLANS,
    Finding,
    Learner,
    Saying,
    Spoken,
    Words,
    learners_of,
    speaking_model,
    train_sentences,
    trained,
)
from lab.train_tiny.resumable import ResumableStage

from svac_backend.errors import SvacError
from svac_backend.svac.config import SamConfig
from svac_backend.svac.language.mllm import Seen
from svac_backend.svac.model import Svac
from svac_backend.video.reader import ArrayVideo
from tests.lab.train_tiny.test_photo_words import photographs
from tests.small import CONFIG

pytestmark = pytest.mark.slow

HINTS = SamConfig(image_size=64, d_model=64, memory_layers=1, trunk="mobilenet_v2", match_dim=12)
FEW = tuple(replace(plan, steps=2) for plan in PLANS)


@pytest.fixture(scope="module")
def base(tokenizer_file: Path) -> Svac:
    torch.manual_seed(0)
    vision = replace(CONFIG.vision, num_hidden_layers=1)
    language = replace(CONFIG.language, num_hidden_layers=2)
    config = replace(CONFIG, hints=HINTS, vision=vision, language=language)
    return Svac(config, tokenizer_file).eval()


def speaking(base: Svac) -> Svac:
    """Return the same model every time."""
    assert base.hint_sam is not None
    torch.manual_seed(1)
    return speaking_model(base, HINTS, base.hint_sam.state_dict())


@pytest.fixture
def model(base: Svac) -> Svac:
    return speaking(base)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture
def data(model: Svac, folder: Path) -> Material:
    return material(model, folder, photographs(), photographs(), scenes=6, clips=2, generated=1, judged=3)


def two_kinds() -> list[Scene]:
    """Return scenes of a car and a dog on 4x4 cells, each with channels of its own."""
    scenes = []
    for n in range(8):
        rng = np.random.default_rng(n)
        fine = rng.normal(size=(96, 4, 4)).astype(np.float32)
        things = np.zeros((2, 16, 16), np.uint8)
        for k, left in enumerate(rng.permutation(2)):
            things[k, 4:12, 8 * left : 8 * left + 8] = 255
            fine[8 * k : 8 * k + 8, 1:3, 2 * left : 2 * left + 2] += 3
        target = np.concatenate([things, np.zeros((1, 16, 16), np.uint8)])
        scenes.append(
            Scene(
                torch.zeros(64, 64, 3, dtype=torch.uint8),
                torch.from_numpy(fine).half(),
                torch.from_numpy(rng.normal(size=(320, 2, 2))).half(),
                ["the car", "the dog", "the zebra"],
                ["category", "category", "absent"],
                torch.from_numpy(target),
                torch.from_numpy(things),
            )
        )
    return scenes


def test_cells_tell_two_kinds_apart_after_a_few_steps(model: Svac, tmp_path: Path) -> None:
    scenes = two_kinds()
    data = Material(scenes, [], [], [], [], [], [], [])
    finding = Finding(model, Words(64))
    finding.prepare(data)

    def right() -> float:
        overlaps = []
        with torch.no_grad():
            for scene in scenes:
                cells = finding.cells.cells(scene.fine[None].float(), scene.coarse[None].float())
                found = finding.cells(cells.expand(3, -1, -1, -1), finding.words(scene.texts)) > 0
                truth = scene.target[:, 2::4, 2::4] > 0
                both = (found & truth).sum((1, 2))
                overlaps.append((both / (found | truth).sum((1, 2)).clamp(min=1))[:2].mean())
                overlaps.append((~found[2]).float().mean())
        return float(torch.stack(overlaps).mean())

    assert right() < 0.7
    run = ResumableStage(replace(PLANS[0], steps=40, lr=0.05), finding, tmp_path)
    for _, batch in run.batches(lambda rng, _: finding.batch(rng, data)):
        run.take(*finding.loss(batch))
    assert right() > 0.9


def test_a_batch_is_mirrored_with_its_masks_and_rare_words_come_more_often() -> None:
    scenes = two_kinds()
    scenes[0].texts = ["the left car", "the dog", "the rightmost zebra"]
    weights = rarity(scenes)
    assert weights[0][0] > weights[1][0]
    few = [scenes[0]], [weights[0]]
    plain = draw(np.random.default_rng(0), *few, count=1, sentences=3)
    turned = draw(np.random.default_rng(0), *few, count=1, sentences=3, mirrored=True)
    assert len(plain.texts) == 3
    assert len(turned.texts) == 1
    assert turned.texts[0].startswith("the dog")
    assert torch.equal(turned.fine, plain.fine.flip(-1))
    assert torch.equal(
        turned.target[0], plain.target[[t.startswith("the dog") for t in plain.texts]][0].flip(-1)
    )
    seen = draw(np.random.default_rng(0), *few, count=1, sentences=2, visible=True)
    assert seen.visible.all()


def test_scenes_are_made_once_and_about_what_is_on_them(
    data: Material, model: Svac, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (len(data.scenes), len(data.clips), len(data.natural), len(data.stills)) == (6, 2, 3, 3)
    for scene in (*data.scenes, *data.natural):
        assert scene.fine.shape == (96, 4, 4)
        assert scene.target.shape == (len(scene.texts), 16, 16)
        assert len(set(scene.texts)) == len(scene.texts) == len(scene.kinds)
        assert not scene.visible[[kind == "absent" for kind in scene.kinds]].any()
    car = data.natural[0]
    where = car.target[[kind == "category" for kind in car.kinds]] > 127
    assert (where[0].nonzero().float().mean(0) - 7.5).abs().max() < 1  # in the middle, as on the photograph
    monkeypatch.setattr("lab.train_tiny.photo_scenes.composed_scene", None)
    again = material(model, folder, photographs(), photographs(), scenes=6, clips=2, generated=1, judged=3)
    assert all(torch.equal(a.image, b.image) for a, b in zip(data.scenes, again.scenes, strict=True))


def test_sentences_side_by_side_are_as_one_by_one(model: Svac, data: Material) -> None:
    texts = ["the car", "all the small red cars on the left", "dog"]
    clip, config = data.clips[0], model.config.method
    with torch.no_grad():
        assert model.hint_mllm is not None
        found = said_of(model.hint_mllm, model.chat, clip, texts)
        images = config.num_clips * config.images_per_clip
        chats = [model.chat.build(text, images, config.num_clips) for text in texts]
        alone = model.hint_mllm.seg_states(Seen(clip.tokens, ()), chats, model.chat.context_id)
    assert torch.allclose(found, torch.stack(alone), atol=1e-4)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stage_trains_its_own_part_and_nothing_else(model: Svac, data: Material, number: int) -> None:
    learner: Learner = learners_of(model)[number]
    learner.prepare(data)
    learner.requires_grad_()
    loss, _ = learner.loss(learner.batch(np.random.default_rng(0), data))
    loss.backward()
    own = {id(p) for p in learner.parameters()}
    assert not [name for name, p in model.named_parameters() if p.grad is not None and id(p) not in own]
    without = [name for name, p in learner.named_parameters() if p.grad is None]
    # Whether anything is there, the cells say themselves.
    idle = (*PLANS[number].rests, "decoder.pred_obj_score_head")
    assert [name for name in without if not name.startswith(idle)] == []


def test_what_a_teacher_names_is_learned_beside_masks_and_said(model: Svac, data: Material) -> None:
    rng = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, channels, side, side, generator=rng) for channels, side in ((96, 4), (320, 2))]
    nouns = torch.randn(2, len(TEACHER_NOUNS), 7, 7, generator=rng)
    taught = replace(data, views=[View(*parts) for parts in zip(*maps, nouns, strict=True)])
    finding, _, saying = learners_of(model)
    finding.prepare(taught)
    finding.requires_grad_()
    loss, figures = finding.loss(finding.batch(np.random.default_rng(0), taught))
    assert figures["nouns"] > 0
    loss.backward()
    assert all(p.grad is not None for name, p in finding.named_parameters() if name != "cells.weight")
    spoken = saying.batch(np.random.default_rng(0), taught)
    names = {text.removeprefix("the ") for text in spoken.photographs[1][1]}
    assert sum(name.startswith(TEACHER_NOUNS) for name in names) == len(names) > 20


def test_the_old_seg_stays_and_the_new_one_moves(base: Svac, data: Material, tmp_path: Path) -> None:
    clip, made = data.clips[0], data.generated[0]
    batch = Spoken([(clip, ["the car", "a dog", "the men"])], Clip(made.tokens, made.texts[:4]))
    model = speaking(base)
    torch.manual_seed(3)
    saying = learners_of(model)[2]
    assert isinstance(saying, Saying)
    saying.prepare(data)
    before = saying.loss(batch)[1]
    run = ResumableStage(replace(PLANS[2], steps=12, lr=0.03), saying, tmp_path)
    for _ in range(12):
        run.take(*saying.loss(batch))
    after = saying.loss(batch)[1]
    assert after["said"] < 0.8 * before["said"]
    assert after["silent"] < before["silent"]
    first = base.mllm.state_dict()
    assert all(torch.equal(first[name], value) for name, value in model.mllm.state_dict().items())


def weights(model: Svac) -> Iterator[torch.Tensor]:
    yield from model.state_dict().values()


def test_a_killed_training_goes_on_and_what_it_makes_takes_sentences(
    base: Svac, data: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = speaking(base), speaking(base)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    train_sentences(whole, data, tmp_path / "whole", plans=FEW)
    assert "natural drawn J category" in (tmp_path / "whole" / "curves.jsonl").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(Saying, "loss", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_sentences(killed, data, tmp_path / "killed", plans=FEW)
    assert trained(speaking(base), tmp_path / "killed") is None
    resumed = speaking(base)
    train_sentences(resumed, data, tmp_path / "killed", plans=FEW)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(whole), weights(speaking(base)), strict=True))

    base.save_pretrained(tmp_path / "base")
    export(tmp_path / "whole", tmp_path / "exported", tiny=str(tmp_path / "base"), size=96)
    loaded = Svac.from_pretrained(tmp_path / "exported", device="cpu", dtype="float32")
    assert loaded.config.hints is not None
    assert (loaded.config.hints.image_size, loaded.config.hints.original_decoder) == (96, True)
    before, after = (m.hint_sam.state_dict() for m in (base, loaded))  # type: ignore[union-attr]
    name = "mask_decoder.iou_token.weight"  # clicks and memory have the decoder that they had
    assert torch.allclose(after[f"original_{name}"], before[f"sam_{name}"], atol=1e-3)
    assert not torch.allclose(after[f"sam_{name}"], before[f"sam_{name}"], atol=1e-4)
    assert torch.allclose(
        loaded.hint_mllm.text_hidden_fcs[0][0].weight,  # type: ignore[union-attr]
        whole.hint_mllm.text_hidden_fcs[0][0].weight,  # type: ignore[union-attr]
        atol=1e-3,
    )
    video = ArrayVideo(np.random.default_rng(0).integers(0, 255, (5, 40, 60, 3), np.uint8))
    frames = list(loaded.segment(video, ["the car", "the dog dancing"]))
    assert [frame.masks.shape for frame in frames] == [(2, 40, 60)] * 5


def test_a_model_without_a_second_sam_is_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    Svac(CONFIG, tokenizer_file).save_pretrained(tmp_path / "base")
    with pytest.raises(SvacError, match="no SAM-2 for frame hints"):
        export(tmp_path, tmp_path / "exported", tiny=str(tmp_path / "base"))
