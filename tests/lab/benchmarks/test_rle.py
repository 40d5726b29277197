"""The brush codec's benchmark: its command, and the speed that is promised."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lab.benchmarks import rle as benchmark_module

SCRIPTS = Path(__file__).parents[3] / "scripts"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"COLUMNS": "160"}, check=False
    )


def test_the_command_prints_both_codecs() -> None:
    done = run("rle", "--count", "2", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    for task in ("encode", "decode"):
        numbers = re.findall(r"\d+\.\d+", next(line for line in done.stdout.splitlines() if task in line))
        sdk_best, ours_best, ratio = map(float, numbers[:3])
        assert ratio == pytest.approx(sdk_best / ours_best, rel=0.2)


def test_a_folder_without_masks_is_one_line_of_error(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "rle", "--masks", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("benchmark").main()
    assert stopped.value.code == 1
    assert "There is no PNG below" in capsys.readouterr().err


def test_generated_masks_are_worth_timing() -> None:
    masks, what = benchmark_module.load_masks(None, 3)
    assert what == "generated blobs"
    assert all(0.02 < mask.mean() < 0.6 for mask in masks)
    assert not np.array_equal(masks[0], masks[1])


def test_ours_is_at_least_five_times_faster(shared_masks: Path) -> None:
    masks, _ = benchmark_module.load_masks(shared_masks, 8)
    for result in benchmark_module.compare(masks, rounds=5):
        assert result.ratio >= 5, f"{result.task}: {result.ratio:.1f} times faster"


def test_a_wrong_codec_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = benchmark_module.encode_brush
    monkeypatch.setattr(benchmark_module, "encode_brush", lambda mask: encode(~mask))
    with pytest.raises(Exception, match="disagree"):
        benchmark_module.compare([np.eye(4, dtype=bool)], rounds=1)


def test_masks_whose_bits_end_on_a_byte_agree_too() -> None:
    full = np.ones((40, 60), dtype=np.bool_)  # the SDK adds an empty byte here, we do not
    assert [result.task for result in benchmark_module.compare([full], rounds=1)] == ["encode", "decode"]
