"""The GPU's check without a GPU: shapes as the catalogue says, dry runs, and what is written from its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lab.benchmarks.gpu_memory import values_of
from lab.gpu_check import report
from lab.gpu_check.__main__ import good
from lab.gpu_check.stages import STAGES, Run
from lab.shapes import FAMILIES, SHAPES, config_of

from svac_backend.svac.files.catalogue import PUBLISHED, gpu_bytes

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_the_shapes_have_as_many_parameters_as_the_catalogue_says() -> None:
    """On the meta device, every published model: 1B to 26B."""
    known = {model.name: model for model in PUBLISHED}
    assert known.keys() == SHAPES.keys()
    counted: dict[str, int] = {}
    for name, model in known.items():
        config = config_of(name)
        assert config.preset == model.preset, name
        shape = repr((config.vision, config.language, config.sam))
        if shape not in counted:
            counted[shape] = values_of(config)
        assert counted[shape] == model.parameters, name
        assert model.fine_tuning is None or model.fine_tuning > gpu_bytes(counted[shape]) / 1.2, name
    assert len(counted) == len(known) - 2, "only SaSaSa2VA has Sa2VA's shapes"


def test_what_was_found_on_a_gpu_becomes_the_docs_section(tmp_path: Path) -> None:
    way: dict[str, Any] = {"seconds": 3.2, "frames_per_s": 31.2, "peak_gb": 12.5}
    way["ms"] = dict.fromkeys(report._STAGES, 100.0)
    speed = {"ours_1": way, "ours_5": way, "published_1": way | {"seconds": 16.0}, "times_faster": 5.0}
    machine = {"gpu": "Some GPU", "device": "cuda", "torch": "2.11", "cuda": "12.8", "transformers": "5.17"}
    stages = {
        "machine": {"result": machine},
        "speed: ByteDance/Sa2VA-4B": {"result": speed},
        "compiled": {"problem": "Traceback\nnot done after 90 s"},
    }
    found, page = tmp_path / "found.json", tmp_path / "benchmarks.md"
    found.write_text(json.dumps({"dry_run": False, "stages": stages}))
    page.write_text(f"# Before\n\n{report.BEGIN}\nold\n{report.END}\n\n## After\n")
    assert report.write_docs(found, page) == 0
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\n## After\n")
    assert "old" not in text
    assert "| ByteDance/Sa2VA-4B | 16.0 | 3.2 | 5.0 | 31.2 | 3.2 | 12.5 | 12.5 |" in text
    assert "- compiled: not done after 90 s" in text
    assert report.BEGIN in (ROOT / "docs" / "benchmarks.md").read_text()


@pytest.mark.integration
def test_a_dry_run_finds_what_it_should_and_every_figure_has_its_place() -> None:
    """The stages that need no process of their own, on the CPU, as they run on a GPU."""
    names = ("machine", "speed: kumuji/Sa2VA-i-4B", "little memory", "training: ByteDance/Sa2VA-1B")
    dry = Run(torch.device("cpu"), dry=True)
    stages = {name: {"result": STAGES[name].run(dry)} for name in names}
    assert all(good(one) for one in stages.values()), stages
    little = stages["little memory"]["result"]
    assert little["smallest"] == 2
    assert little["pixels_different"] == 0
    assert "memory is not enough" in little["failure"]
    text = report.section({"stages": stages})
    for said in (
        f"torch {torch.__version__}",
        "| kumuji/Sa2VA-i-4B |",
        "| ByteDance/Sa2VA-1B | 2 |",
        "went down to 2",
    ):
        assert said in text


def test_every_family_has_a_small_shape() -> None:
    assert {config_of(name).family for name in FAMILIES.values()} == {
        config_of(name).family for name in SHAPES
    }
