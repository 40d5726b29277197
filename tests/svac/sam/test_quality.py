"""Scores of masks by what their decoding says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svac_backend.svac.config import SamConfig, SvacConfig
from svac_backend.svac.sam.grounding import FrameFeatures, build_sam, decode, encode_frames, without_memory
from svac_backend.svac.sam.quality import SOURCES, SUREST, Quality, Source, signals
from tests.small import CONFIG

SURE, DOUBTED = [0.0] * 6 + [3.0], [0.0] * 6 + [-3.0]


def test_what_speaks_for_a_mask() -> None:
    logits = torch.full((2, 3, 8, 8), -4.0)
    logits[0, 1, :4] = 4.0  # the best one: half of the picture, stable
    logits[0, 0, :2] = 4.0  # the second one: a quarter
    logits[1, 1, :4, :4] = 0.5  # would go at a higher threshold
    ious = torch.tensor([[0.6, 0.9, 0.1], [0.2, 0.5, 0.3]])
    added = torch.full((2, 1, 8, 8), -1.0)
    added[0, 0, :4] = 1.0
    found = signals(logits, ious, torch.tensor([2.0, -9.0]), added)
    assert found[0].tolist() == pytest.approx([2.197, 2.0, 1.0, 0.5, 1.0, -0.693], abs=1e-3)
    assert found[1].tolist() == pytest.approx([0.0, -6.0, 0.0, 0.0, 0.0, -1.386], abs=1e-3)
    assert signals(logits, ious, torch.zeros(2), None)[:, 4].tolist() == [1.0, 1.0]


@pytest.fixture
def features() -> FrameFeatures:
    torch.manual_seed(0)
    sam = build_sam(CONFIG.sam).eval()
    size = CONFIG.sam.image_size
    with torch.no_grad():
        return encode_frames(sam, torch.randn(2, 3, size, size))


@pytest.mark.parametrize("source", SOURCES)
def test_a_model_scores_by_its_weights_what_it_draws(features: FrameFeatures, source: Source) -> None:
    weights = (*(tuple(SURE if one == source else DOUBTED) for one in SOURCES), (0.0,) * 7)
    torch.manual_seed(0)
    sam = build_sam(replace(CONFIG.sam, quality=weights)).eval()
    seg = torch.randn(2, CONFIG.sam.d_model)

    def scored(level: float) -> list[float]:
        added = torch.full((2, 1, CONFIG.sam.image_size // 4, CONFIG.sam.image_size // 4), level)
        with torch.no_grad():
            out = decode(
                sam,
                without_memory(sam, features),
                features.high,
                seg,
                no_object_masking=False,
                added=added,
                source=source,
            )
        return out.score.tolist()

    assert scored(100.0) == pytest.approx([0.9526, 0.9526], abs=1e-3)
    assert scored(-100.0) == [0.5, 0.5]  # nothing is drawn


def test_weights_are_configuration(tmp_path: Path) -> None:
    config = replace(CONFIG, hints=SamConfig(quality=((0.5,) * 7,) * 4), absent_below=0.2)
    config.save(tmp_path / "config.json")
    assert SvacConfig.load(tmp_path / "config.json") == config


def test_no_score_is_that_of_what_a_person_drew() -> None:
    quality = Quality([[0.0] * 6 + [50.0]] * 4)
    found = quality.score("carried", torch.zeros(2, 6), torch.tensor([True, False]))
    assert found.tolist() == pytest.approx([SUREST, SUREST])


def test_there_is_a_row_of_weights_for_every_source() -> None:
    with pytest.raises(ValueError, match="zip"):
        Quality([SURE])
