"""The measure of flags: what counts as an error, AUROC by its definition, and a small run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from lab.benchmarks import flags as benchmark
from rich.console import Console


def test_errors_are_low_or_have_fallen_on_the_way_from_the_shown_frame() -> None:
    j = np.array([0.4, 0.6, 0.9, 1.0, 0.85, 0.55, 0.7])
    assert np.flatnonzero(benchmark.errors(j, 3)).tolist() == [0, 1, 5]
    assert not benchmark.errors(np.full(4, 0.6), 0).any()


def test_auroc_is_the_chance_that_an_error_has_the_higher_value() -> None:
    rng = np.random.default_rng(0)
    values, wrong = rng.integers(0, 6, 60) / 5, rng.random(60) < 0.3
    pairs = [(a > b) + (a == b) / 2 for a in values[wrong] for b in values[~wrong]]
    assert math.isclose(benchmark.auroc(list(values), list(wrong)), np.mean(pairs))
    assert math.isnan(benchmark.auroc([0.1, 0.2], [False, False]))


def test_a_small_run(random_model: Path) -> None:
    rich, plain, both = benchmark.run(str(random_model), count=1, width=96, height=64, frames=6)
    assert rich.clips == plain.clips == 1
    assert len(both.doubt) == len(both.score) == len(both.wrong) == len(rich.wrong) + len(plain.wrong)
    assert len(plain.wrong) % 5 == 0  # the shown frame is not counted
    Console().print(benchmark.table([rich, plain, both], "small"))
