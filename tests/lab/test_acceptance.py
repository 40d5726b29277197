"""`scripts/accept_published.sh`, end to end: a small model behind a hub on 127.0.0.1, and a small data set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab.acceptance import ACCEPTED, accept, reported
from lab.mevis import write_mevis

from svac_backend.errors import SvacError
from svac_backend.svac.families import family as families
from svac_backend.svac.files.weights import model_version
from svac_backend.synthetic.layout import SceneConfig
from tests.svac.fake_hub import fake_hub
from tests.svac.published_folders import TINY_SAM, published_folder
from tests.svac.qwen_models import GOLDEN, qwen_folder

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


@pytest.mark.integration
def test_every_family_in_its_published_layout_is_accepted_and_what_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tiny weights, whose config.json says nothing of SAM-2: the size of that is all that is not as published."""
    monkeypatch.setattr(families, "SAM", TINY_SAM)
    monkeypatch.setenv("SVAC_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SVAC_DEVICE", "cpu")
    data = tmp_path / "data"
    write_mevis(data / "valid_u", range(1), SceneConfig(frames=3, width=64, height=64), expressions=1)
    presets = {
        "Sa2VA": ("sa2va", "sa2va"),
        "Sa2VA-i": ("sa2vai", "sa2va-i"),
        "SaSaSa2VA": ("sasasa2va", "sasasa2va"),
        "Sa2VA-Qwen3-VL": ("qwen3vl", "sa2va"),
        "Sa2VA-Qwen2_5-VL": ("qwen25vl", "sa2va"),
    }
    model_version.cache_clear()
    with fake_hub(tmp_path / "cache") as hub:
        for name, (kind, preset) in presets.items():
            folder = tmp_path / name
            if kind.startswith("qwen"):
                qwen_folder(folder, kind)
            else:
                published_folder(folder, GOLDEN, kind)
            hub.add(f"tiny/{name}", folder)
            status = accept(f"tiny/{name}", data, "mevis", out=tmp_path / f"out-{name}", expect=50, margin=50)
            captured = capsys.readouterr()
            told = " ".join((captured.out + captured.err).split())
            assert status == ACCEPTED, name
            assert f"tiny/{name} runs: preset {preset}, float32 on cpu." in told
            assert "within the margin of 50.0" in told

        def refused(name: str, why: str) -> None:
            hub.add(f"tiny/{name}", tmp_path / "Sa2VA")
            with pytest.raises(SvacError, match=why) as found:
                accept(f"tiny/{name}", data, "mevis", out=tmp_path / f"out-{name}")
            assert found.value.hint

        config = tmp_path / "Sa2VA" / "config.json"
        text = config.read_text()
        config.write_text((tmp_path / "Sa2VA-Qwen3-VL" / "config.json").read_text())
        shutil.copy(tmp_path / "Sa2VA-Qwen3-VL" / "tokenizer.json", tmp_path / "Sa2VA" / "tokenizer.json")
        refused("Wrong", "unknown tensor 'language_model.*read as Sa2VA on Qwen3-VL")
        config.write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
        refused("Unknown", "no model that this version knows")
        config.write_text(text)
        (tmp_path / "Sa2VA" / "model-00002-of-00003.safetensors").unlink()
        refused("Half", "lacks 1 of 3 weight files, for example model-00002-of-00003")
