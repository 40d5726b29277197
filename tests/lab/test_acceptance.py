"""`scripts/accept_published.sh`, end to end: a small model behind a hub on 127.0.0.1, and a small data set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab.acceptance import reported
from lab.mevis import write_mevis

from svac_backend.synthetic.layout import SceneConfig
from tests.svac.fake_hub import fake_hub

SCRIPT = Path(__file__).parents[2] / "scripts" / "accept_published.sh"
NAME = "someone/Svac-small"


def test_what_was_reported_is_for_its_own_split() -> None:
    davis = reported("ByteDance/Sa2VA-4B", "ref-davis17", "valid")
    assert davis is not None
    assert davis[0] == 73.7
    assert reported("ByteDance/Sa2VA-4B@abc", "mevis", "valid") == (46.4, davis[1])
    # Its figure is of `valid`, whose masks only the challenge's server has: nothing is compared with another split.
    assert reported("ByteDance/Sa2VA-4B", "mevis", "valid_u") is None
    assert reported(NAME, "ref-davis17", "valid") is None


@pytest.mark.integration
def test_a_model_is_downloaded_run_and_compared(random_model: Path, tmp_path: Path) -> None:
    write_mevis(
        tmp_path / "data" / "valid_u",
        range(2),
        SceneConfig(frames=4, width=64, height=64),
        expressions=1,
    )
    with fake_hub(tmp_path / "unused") as hub:
        hub.add(NAME, random_model)

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            environment = {
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "hf"),
                "SVAC_DATA_DIR": str(tmp_path / "state"),
                "SVAC_DEVICE": "cpu",
                "SVAC_PYTHON": sys.executable,
            }
            command = [str(SCRIPT), *arguments, "--root", str(tmp_path / "data"), "--dataset", "mevis"]
            return subprocess.run(
                command,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=250,
                check=False,
            )

        first = run(NAME, "--expect", "50", "--margin", "50")
        assert first.returncode == 0, first.stdout + first.stderr
        assert "3 of 3 files have the hub's hash" in first.stderr
        assert f"{NAME} runs: preset svac, float32 on cpu." in first.stderr
        assert "50.0 was reported (given by --expect)" in first.stdout
        assert "within the margin of 50.0" in first.stdout
        # What was predicted is kept; a figure beyond the margin is refused.
        second = run(NAME, "--expect", "101", "--margin", "0.5")
        assert second.returncode == 1, second.stdout + second.stderr
        assert "All had been predicted before" in second.stderr
        assert "beyond the margin of 0.5" in second.stdout
        wrong = run("nobody/Nothing")
        assert wrong.returncode == 2
        assert "no model nobody/Nothing" in wrong.stdout
