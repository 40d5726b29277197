"""The computed memory need: its counts are the model's, and it moves with the options as memory does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lab.benchmarks.gpu_memory import memory_need

from svac_backend.learning.adapters import LoraOptions, attach_lora, trained_parameters
from svac_backend.learning.options import TrainOptions
from tests.learning.made import SMALL, small_model


def test_the_counts_are_the_models(tokenizer_file: Path) -> None:
    need = memory_need(SMALL, TrainOptions())
    model = small_model(tokenizer_file)
    assert need.parameters == sum(p.numel() for p in model.parameters())
    attach_lora(model, LoraOptions().capped(32))
    assert need.trained == sum(p.numel() for p in trained_parameters(model).values())
    assert need.total == need.weights + need.training + need.activations + need.held


def test_more_parts_and_a_lower_rank_need_less() -> None:
    options = TrainOptions(batch=8, accumulate=1)
    need = memory_need(SMALL, options)
    assert memory_need(SMALL, replace(options, accumulate=8)).activations * 8 == need.activations
    assert memory_need(SMALL, replace(options, rank=2)).training < need.training
    assert memory_need(SMALL, options, checkpointing=False).activations > need.activations
