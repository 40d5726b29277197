"""Our way to run a model beside the published one: both do the same work, and each stage of it is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lab.benchmarks import model as benchmark
from lab.benchmarks import model_ways as ways

EXPRESSIONS = ["the red circle", "the blue square"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of seven frames: five that [SEG]s decode in most families, and two that memory reaches."""
    path, _ = benchmark.make_clip(tmp_path_factory.mktemp("clip"), 7, 96, 64)
    return path


@pytest.mark.parametrize("size", ["sa2va", "sa2va-i", "sasasa2va", "qwen3-vl"])
def test_both_ways_draw_the_same_masks_and_every_stage_is_timed(size: str, clip: Path) -> None:
    model = benchmark.build(size, torch.device("cpu"), torch.float32)
    masks: list[ways.Masks] = []
    for way in (ways.published, ways.ours):
        clock = ways.Clock(model.device)
        drawn: list[list[ways.Masks]] = [[] for _ in EXPRESSIONS]
        for number, found in way(model, clip, EXPRESSIONS, clock):
            drawn[number].extend(found)
        assert all(clock.ms[stage] > 0 for stage in ways.STAGES), clock.ms
        masks.append(np.stack([np.stack(one) for one in drawn]))
    assert masks[0].shape == (2, 7, 64, 96)
    assert masks[0].any()
    # Sums in another order may decide a pixel whose logit is 0 within rounding.
    assert (masks[0] != masks[1]).sum() <= 2
