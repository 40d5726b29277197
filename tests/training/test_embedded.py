"""The embedded model's training: what it is taught is true, and the packed sequence equals single ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svac_backend.svac.config import LanguageConfig, VisionConfig
from svac_backend.svac.grounding import build_sam
from svac_backend.svac.model import Svac
from svac_backend.svac.prompts import IMG_CONTEXT, SEG
from svac_backend.synthetic.scene import make_scene
from svac_backend.synthetic.vocabulary import COLORS
from svac_backend.training.embedded import language_stage, recipe
from svac_backend.training.embedded.clip_batch import make_clip_batch
from svac_backend.training.embedded.mask_stage import make_batch
from svac_backend.training.embedded.oracle import Oracle, place
from svac_backend.training.embedded.sentences import sentences_of, train_tokenizer

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Svac:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(recipe.CONFIG.method.question, scenes=20, vocabulary=recipe.VOCABULARY).save(str(path))
    torch.manual_seed(0)
    return Svac(recipe.CONFIG, path).eval()


def test_packed_sentences_equal_sentences_alone(model: Svac) -> None:
    data = make_clip_batch(
        np.random.default_rng(0), model.config, recipe.SCENES, batch=2, sentences=3, frames=0
    )
    with torch.no_grad():
        visual = language_stage._visual(model, data)
        _, packed = language_stage._run(model, data, visual)
        for b in range(2):
            for e in range(3):
                prompt = model.prompts.build(data.sentences[b][e].text, visual.shape[1], 4)
                alone = model.mllm.seg_embeddings(visual[b], [prompt], model.prompts.context_id)
                assert torch.allclose(alone[0], packed[b, e], atol=1e-5)


def test_points_and_tokens_lie_on_the_object_in_the_anchor_frame(model: Svac) -> None:
    rng = np.random.default_rng(3)
    data = make_clip_batch(rng, model.config, recipe.SCENES, batch=3, sentences=4, frames=2)
    side = 4
    checked = 0
    for b in range(3):
        for e, sentence in enumerate(data.sentences[b]):
            for n in range(4):
                token = int(data.token[b, e, n])
                if sentence.target < 0:
                    assert token == -1
                    continue
                if token < 0:
                    continue
                x, y = data.point[b, e, n]
                assert token == int(y * side) * side + int(x * side)
                anchor = n * model.config.method.images_per_clip
                if sentence.color >= 0 and data.seen_colors[b, anchor, token].any():
                    checked += int(data.seen_colors[b, anchor, token, sentence.color])
    assert checked > 0
    assert torch.equal(data.visible > 0, data.target.flatten(3).sum(3) > 3)


def test_mask_prompts_mean_one_object_or_none() -> None:
    batch = make_batch(np.random.default_rng(1), recipe.SCENES, scenes=6, point_share=0.5)
    empty = batch.target.flatten(1).sum(1) == 0
    assert torch.equal(empty, batch.present == 0)
    said = (batch.color >= 0) | (batch.shape >= 0) | ~batch.point.isnan().any(1)
    assert said.all()


def test_the_oracle_says_only_what_is_said(model: Svac) -> None:
    oracle = Oracle(128)
    none = torch.tensor([-1])
    assert oracle.attributes(none, none, none).abs().sum() == 0
    red = oracle.attributes(torch.tensor([COLORS.index("red")]), none, none)
    assert torch.equal(red[0], oracle.color.weight[COLORS.index("red")])
    sam = build_sam(recipe.CONFIG.sam)
    code = place(sam, torch.tensor([[0.5, 0.25]]))
    points, labels = torch.tensor([[[64.0, 32.0]]]), torch.ones(1, 1)
    expected = sam.sam_prompt_encoder._embed_points(points - 0.5, labels, pad=False)
    assert torch.allclose(code, expected[0], atol=1e-6)


def test_absent_colours_are_absent() -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for seed in range(30):
        scene = make_scene(seed, recipe.SCENES, indices=[0])
        for sentence in sentences_of(scene, 8, rng):
            if sentence.target < 0:
                seen += 1
                assert COLORS[sentence.color] not in {o.color for o in scene.objects}
            elif sentence.color >= 0:
                assert scene.objects[sentence.target].color == COLORS[sentence.color]
    assert seen > 5


def test_the_tokenizer_knows_the_special_tokens_and_any_text(model: Svac) -> None:
    tokenizer = model.prompts.tokenizer
    assert len(tokenizer) <= recipe.VOCABULARY
    for token in (SEG, IMG_CONTEXT):
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1
    text = "Größe: 猫 😀 the zebra"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_training_runs_through_all_stages_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(
        recipe.CONFIG,
        vision=VisionConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        ),
        language=replace(
            recipe.CONFIG.language,
            hidden_size=32,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=32,
        ),
    )
    assert isinstance(small.language, LanguageConfig)
    monkeypatch.setattr(recipe, "CONFIG", small)
    recipe.train(tmp_path, steps=recipe.Steps(2, 1, 1, 1, 1, 1), device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["masks", "looking", "language", "joint", "points", "memory"]
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    recipe.train(tmp_path, steps=recipe.Steps(2, 1, 1, 1, 1, 1), device="cpu")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
    assert len((tmp_path / "curves.jsonl").read_text().splitlines()) == 6
