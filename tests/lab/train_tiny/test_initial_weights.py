"""Before any training, a place that [SEG] is shown stands in its embedding; the store gives what was made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.train_tiny import recipe
from lab.train_tiny.clip_batch import make_clip_batch
from lab.train_tiny.initial_weights import RANK, init_language, init_vision, lanes_of
from lab.train_tiny.language_loss import PLACE_LAYER, visual_of
from lab.train_tiny.oracle import place
from lab.train_tiny.packed import run_packed
from lab.train_tiny.scene_store import store_scenes

from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import encode_frames

torch.set_num_threads(1)
SCENES = replace(recipe.SCENES, width=64, height=64)


@pytest.fixture(scope="module")
def model(tokenizer_file: Path) -> Svac:
    torch.manual_seed(0)
    model = Svac(recipe.CONFIG, tokenizer_file).eval()
    with torch.no_grad():
        model.sam.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(recipe.WAVES)
    init_vision(model)
    init_language(model, PLACE_LAYER)
    return model


def test_few_lanes_say_nearly_all_of_a_place(model: Svac) -> None:
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    code = place(model.sam, points)
    lanes, basis = lanes_of(model, points)
    assert lanes.shape == (200, RANK)
    lost = (code - lanes @ basis).square().sum() / (code - code.mean(0)).square().sum()
    assert lost < 0.05


def test_a_place_reaches_the_seg_embedding_before_training(model: Svac) -> None:
    config = replace(model.config, method=replace(model.config.method, num_clips=1))
    data = make_clip_batch(np.random.default_rng(1), config, SCENES, batch=1, sentences=8, frames=0)
    cells = torch.randint(64, (8,), generator=torch.Generator().manual_seed(1))
    shown = torch.zeros(1, 8, 1, 128, dtype=torch.bool)
    shown[0, torch.arange(8), 0, cells] = True
    with torch.no_grad():
        visual = visual_of(model, data)
        prompts = [[model.chat.build(s.text, 2, 1) for s in data.sentences[0]]]
        states = run_packed(
            model.mllm, visual, prompts, model.chat.context_id, layers=(3, PLACE_LAYER), shown=shown
        )
        lanes = lanes_of(model, torch.stack([cells % 8 + 0.5, cells // 8 + 0.5], -1) / 8)[0]
        # What passes is a place up to its size, which the norms on the way change.
        same = torch.cosine_similarity(states.seg[0, :, 0, -RANK:], lanes)
        others = torch.cosine_similarity(states.seg[0, :, 0, -RANK:], lanes.roll(1, 0))
        embedding = torch.cosine_similarity(
            model.mllm.project(states.seg)[0, :, 0], lanes @ lanes_of(model, lanes[:, :2])[1]
        )
    assert same.min() > 0.9
    assert (same > others).all()
    assert embedding.min() > 0.6


def test_the_bank_gives_what_was_made(model: Svac) -> None:
    rng = np.random.default_rng(3)
    store = store_scenes(model, SCENES, rng, 2, sentences=6, frames=2)
    made = make_clip_batch(
        np.random.default_rng(3), model.config, SCENES, batch=1, sentences=6, frames=2, easy=0.5
    )
    with torch.no_grad():
        tokens = visual_of(model, made)
        features = encode_frames(model.sam, made.sam_pixels[0])
    drawn = store.draw(np.random.default_rng(5), batch=3, sentences=6, weights={})
    of = drawn.data.owner // 2
    of_first = [b for b in range(3) if torch.equal(drawn.data.owner[of == b] - 2 * b, made.owner)]
    assert of_first
    b = of_first[0]
    assert torch.equal(drawn.data.things[of == b], made.things)
    assert torch.allclose(drawn.visual[b], tokens[0], atol=2e-2, rtol=1e-2)
    assert drawn.features is not None
    assert torch.allclose(drawn.features.low[2 * b : 2 * b + 2], features.low, atol=2e-2, rtol=1e-2)
    for e, sentence in enumerate(drawn.data.sentences[b]):
        k = made.sentences[0].index(sentence)
        assert torch.equal(drawn.data.covers[b, e], made.covers[0, k])
        assert torch.equal(drawn.data.said.absent[b, e], made.said.absent[0, k])
        assert torch.allclose(drawn.data.points[b, e], made.points[0, k], equal_nan=True)
        assert torch.allclose(drawn.data.target[b, e], made.target[0, k], atol=1e-3)


def test_the_bank_chooses_kinds_as_often_as_asked(model: Svac) -> None:
    store = store_scenes(model, SCENES, np.random.default_rng(8), 6, sentences=24)
    rng = np.random.default_rng(9)

    def share(weights: dict[str, float]) -> float:
        drawn = store.draw(rng, batch=24, sentences=1, weights=weights).data.sentences
        return float(np.mean([said.kind == "color" for row in drawn for said in row]))

    rare, plain, often = share({"color": 0.01}), share({}), share({"color": 100.0})
    assert rare < 0.05 < plain < 0.7 * often
