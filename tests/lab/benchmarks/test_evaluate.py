"""The benchmark against vos-benchmark: its layouts, its refusals, and, where that is installed, the speed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from lab.benchmarks import evaluate as benchmark
from PIL import Image
from rich.console import Console

from svac_backend.errors import SvacError
from svac_backend.masks.metrics import j_and_f

SHARED_MASKS = Path(__file__).parents[3] / ".." / "shared" / "masks"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One sequence; the prediction is the truth, moved by three pixels."""
    for part, shift in (("ground_truth", 0), ("prediction", 3)):
        (tmp_path / "masks" / "square" / part).mkdir(parents=True)
        for i, mask in enumerate(square(shift)):
            Image.fromarray(mask).save(tmp_path / "masks" / "square" / part / f"{i:05d}.png")
    return tmp_path / "masks"


def square(shift: int) -> np.ndarray:
    masks = np.zeros((3, 60, 80), bool)
    for i in range(3):
        masks[i, 10:40, 20 + shift + i : 50 + shift + i] = True
    return masks


def other_program(path: Path, j: float, f: float) -> Path:
    """Stands in for the Python of vos-benchmark's environment: it takes its arguments and prints its answer."""
    path.write_text(
        f"#!/bin/sh\ntest -f $3/square/00000.png && test -f $4/square/00000.png && echo '[0.5, {j}, {f}]'\n"
    )
    path.chmod(0o755)
    return path


def test_both_must_agree(folder: Path, tmp_path: Path) -> None:
    truth = j_and_f(square(3), square(0))
    result = benchmark.run(folder, vos_python=other_program(tmp_path / "vos", 100 * truth.j, 100 * truth.f))
    assert (result.masks, result.processes, result.vos_s) == (3, 1, 0.5)
    assert result.share == result.ours_s / 0.5
    console = Console(width=120)
    with console.capture() as shown:
        console.print(benchmark.table(result))
    assert "3 pairs of masks" in shown.get()
    assert "vos-benchmark │   0.50 │       6" in shown.get()
    with pytest.raises(SvacError, match=r"vos-benchmark finds J 99\.0000"):
        benchmark.run(folder, vos_python=other_program(tmp_path / "vos", 99, 100 * truth.f))


def test_without_vos_benchmark_it_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    failing = tmp_path / "python"
    failing.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'vos_benchmark'\" >&2\nexit 1\n"
    )
    failing.chmod(0o755)
    with pytest.raises(SvacError, match="No module named 'vos_benchmark'") as caught:
        benchmark.run(folder, vos_python=failing)
    assert "--vos-python" in caught.value.hint
    with pytest.raises(SvacError, match="no sequence"):
        benchmark.run(tmp_path / "nosuch")


def test_ours_takes_at_most_half_of_the_time() -> None:
    if not SHARED_MASKS.is_dir():
        pytest.skip("../shared/masks (real masks of DAVIS sequences) is absent")
    if importlib.util.find_spec("vos_benchmark") is None:
        pytest.skip(f"vos-benchmark is not installed for {sys.executable}")
    for processes in (1, 2):
        assert benchmark.run(SHARED_MASKS, processes=processes).share <= 0.5
