"""What the stages `looking` and `words` learn from: labels of pictures, sentences without pictures, Muon's matrices."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.train_tiny import recipe, words_stage
from lab.train_tiny.oracle import Oracle
from lab.train_tiny.pictures import make_pictures
from lab.train_tiny.schedule import Schedule, matrices_of
from lab.train_tiny.words_stage import Sentences, train_words, words_loss
from torch import nn

from svac_backend.svac.model import Svac
from tests import small

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
SCENES = replace(recipe.SCENES, width=64, height=64)


@pytest.fixture(scope="module")
def model(tokenizer_file: Path) -> Svac:
    torch.manual_seed(0)
    # Muon's steps take most of the time, and grow with the cube of the width.
    language = replace(small.CONFIG.language, hidden_size=64, intermediate_size=128)
    return Svac(replace(small.CONFIG, language=language), tokenizer_file)


def test_pictures_say_what_covers_their_cells_and_how_far_it_reaches(model: Svac) -> None:
    pictures = make_pictures(np.random.default_rng(0), model.config, SCENES, batch=3)
    assert pictures.pixels.shape == (12, 3, 64, 64)
    assert pictures.patches.seen.kind.shape == (12, 64)
    assert pictures.tokens.seen.kind.shape == (12, 16)
    for labels, side in ((pictures.patches, 8), (pictures.tokens, 4)):
        there = labels.seen.kind >= 0
        assert there.any()
        assert torch.equal(there, ~labels.outline.isnan().any(-1))
        for alone in range(12):
            if alone % 4 == 3:  # the composite shows four frames
                continue
            cell = (torch.arange(side) + 0.5) / side
            own = torch.stack(torch.meshgrid(cell, cell, indexing="xy"), -1).view(-1, 2)[there[alone]]
            middle = own + labels.outline[alone][there[alone]][:, :2] / 5
            assert ((middle > 0) & (middle < 1)).all()
            width, height, size = (
                labels.outline[alone][there[alone]][:, 2:].exp() * torch.tensor([0.18, 0.18, 0.15])
            ).T
            # A cell that a thing covers lies within its outline, and its area within width times height.
            assert ((middle - own).abs() <= torch.stack([width, height], -1) / 2 + 0.5 / side).all()
            assert (size.square() <= width * height + 1e-5).all()


def test_every_name_is_drawn_as_often_as_another() -> None:
    sentences = Sentences(SCENES, np.random.default_rng(0), 30)
    drawn = sentences.draw(np.random.default_rng(1), 4000)
    counts = Counter(sentence.name for sentence in drawn)
    nameless = counts.pop(None)
    assert len(counts) > 20
    assert max(counts.values()) < 2.5 * min(counts.values())
    assert 0.1 < nameless / 4000 < 0.25


def test_words_are_learned_from_sentences_alone(
    model: Svac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words_stage, "enough_for", lambda schedule: 5)
    oracle = Oracle(128)
    log = tmp_path / "curves.jsonl"
    vision = model.mllm.vision_model.embeddings.cls_token.clone()
    schedule = Schedule(name="words", steps=28, lr=1e-3, seed=0, log=log, every=7)
    train_words(model, oracle, SCENES, schedule, batch=32)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[-1]["words"] < 0.7 * lines[0]["words"]
    assert lines[-1]["names"] > 0.4
    assert torch.equal(vision, model.mllm.vision_model.embeddings.cls_token)
    # The shorter of two sentences does not feel the other's length.
    sentences = Sentences(SCENES, np.random.default_rng(2), 5).draw(np.random.default_rng(3), 12)
    with torch.no_grad():
        together = words_loss(model.eval(), oracle, sentences)[0]
        each = torch.stack([words_loss(model, oracle, [sentence])[0] for sentence in sentences]).mean()
    assert torch.allclose(together, each, atol=1e-5)


def test_muon_takes_weights_of_layers_and_no_tables(model: Svac) -> None:
    language = model.mllm.language_model
    chosen = {id(weight) for weight in matrices_of(language)}
    assert id(language.model.embed_tokens.weight) not in chosen  # tied to the layer that writes words
    assert id(language.model.layers[0].mlp.down_proj.weight) in chosen
    assert len(matrices_of(nn.Sequential(nn.Linear(2, 3), nn.Conv2d(1, 1, 3), nn.Embedding(4, 2)))) == 1
