"""The benchmark of corrections: which frames are corrected, what is counted, and a small run of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lab.benchmarks import correct as benchmark
from rich.console import Console

from svac_backend.synthetic.scene import VALIDATION_SEEDS, SceneConfig

SMALL = SceneConfig(width=96, height=64, frames=8)


def test_corrections_begin_at_the_first_wrong_frame() -> None:
    truth = np.zeros((12, 8, 8), bool)
    truth[:, 2:5, 2:5] = True
    masks = truth.copy()
    masks[4:] = ~truth[4:]
    assert benchmark.corrected_frames(masks, truth, 1) == [4]
    assert benchmark.corrected_frames(masks, truth, 2) == [4, 8]
    assert benchmark.corrected_frames(masks, truth, 4) == [4, 6, 8, 10]
    assert benchmark._nearest([0, 5, 6, 7, 11], [4, 8]) == [4, 4, 4, 8, 8]


def test_clips_have_a_wanted_object_and_a_name_of_another() -> None:
    clips = benchmark.make_clips(4, SMALL)
    assert len({clip.scene.seed for clip in clips}) == 4
    for clip in clips:
        assert clip.scene.seed in VALIDATION_SEEDS
        (named,) = (e.targets[0] for e in clip.scene.expressions if e.text == clip.wrong)
        assert named != clip.target
        assert clip.truth.any((1, 2)).mean() >= 0.9


def test_a_small_run(random_model: Path, tmp_path: Path) -> None:
    results, wrong, version = benchmark.run(
        str(random_model), clips=1, frames=8, width=96, height=64, counts=(0, 2, 4)
    )
    assert [result.corrections for result in results] == [0, 2, 4]
    assert len(wrong) == 1
    none, two, _ = results
    assert 0 <= two.copied[0] <= 100
    assert none.copied == list(none.j_and_f)  # nothing to copy: the pre-labels
    title = benchmark.describe(results, wrong, "8 frames of 96x64", version)
    Console().print(benchmark.table(results, title))
    benchmark.write_markdown(tmp_path / "t.md", results, title)
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert version in lines[0]
    assert [line.split("|")[1].strip() for line in lines[4:7]] == ["0", "2", "4"]
