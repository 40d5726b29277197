"""`evaluate` with the embedded model on two short videos: everything that it writes is read back."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from svac_backend.cli.evaluate import run
from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.svac.files.weights import model_version
from tests.evaluation import layouts

pytestmark = pytest.mark.slow


@pytest.fixture
def with_model(settings: Settings) -> Settings:
    return settings.model_copy(update={"model": "svac-tiny"})


def test_predictions_scores_and_report(
    with_model: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, root = tmp_path / "a" / "b", layouts.mevis(tmp_path, expressions=2)
    run(with_model, "mevis", root, out=out)
    names = {"manifest.json", "results.json", "results.csv", "report.html", "scene-0000001", "scene-0000002"}
    assert {path.name for path in out.iterdir()} == {*names, ".lock"}
    results = json.loads((out / "results.json").read_text())
    assert results["predictions"]["model_version"] == model_version("svac-tiny")
    assert results["frames_per_second"] > 0
    assert 0 < results["overall"]["j_and_f"] < 100
    first = capsys.readouterr().err
    assert "6 expressions on 8 frames" in first
    assert f"overall: J&F {results['overall']['j_and_f']:.1f}" in first

    report = (out / "report.html").read_text()
    run(with_model, "mevis", root, out=out, zipped=True)
    assert "All had been predicted before: 6 expressions." in capsys.readouterr().err
    assert (out / "report.html").read_text() == report
    assert len(zipfile.ZipFile(out / "submission.zip").namelist()) == 24


def test_a_split_without_masks_is_predicted_only(
    with_model: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layouts.by_split(tmp_path / "rvos", "valid")
    run(with_model, "ref-youtube-vos", tmp_path, out=tmp_path / "out", limit=1, zipped=True)
    printed = capsys.readouterr().err
    assert "predictions only" in printed
    assert not (tmp_path / "out" / "results.json").exists()
    names = zipfile.ZipFile(tmp_path / "out" / "submission.zip").namelist()
    assert names[0] == "Annotations/scene-0000001/0/00000.png"
    assert len(names) == 8
    with pytest.raises(SvacError, match="nothing can be scored"):
        run(with_model, "ref-youtube-vos", root, out=tmp_path / "o", predictions=tmp_path / "out")


def test_scoring_anothers_predictions_needs_no_model(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layouts.by_split(tmp_path, "valid")
    for name, scene in layouts.scenes().items():
        for k, e in enumerate(scene.expressions[:2]):
            frames = [f"{5 * i:05d}" for i in range(4)]
            masks = scene.masks[e.targets[0]] if k else np.zeros_like(scene.masks[0])
            layouts.write_predictions(tmp_path / "theirs", name, str(k), frames, masks)
    before = set((tmp_path / "theirs").rglob("*"))
    gone = settings.model_copy(update={"model": "nosuch"})
    run(gone, "ref-davis17", root, out=tmp_path / "out", predictions=tmp_path / "theirs")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["predictions"] is None
    assert [e["j"] for e in results["expressions"]] == [0, 100, 0, 100]
    assert results["overall"]["j_and_f"] == 50
    assert set((tmp_path / "theirs").rglob("*")) == before
    assert "overall: J&F 50.0" in capsys.readouterr().err


def test_what_is_wrong_is_told_before_the_model_is_loaded(settings: Settings, tmp_path: Path) -> None:
    root = layouts.mevis(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(SvacError, match="'nosuch'"):
        run(settings.model_copy(update={"model": "nosuch"}), "mevis", root, out=out)
    (root / "mevis" / "valid_u" / "mask_dict.json").write_text("{")
    with pytest.raises(SvacError, match=r"mask_dict\.json is not JSON"):
        run(settings, "mevis", root, out=out)
    with pytest.raises(SvacError, match="There is no folder"):
        run(settings, "mevis", tmp_path / "nosuch", out=out)


def test_mistakes_and_scores_need_no_torch() -> None:
    script = "import sys, svac_backend.cli.evaluate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


def test_the_console_script_says_what_is_wrong(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("svac-backend")), "evaluate", "--dataset", "mevis"]
    done = subprocess.run(
        [*command, "--root", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    wrong, todo = done.stderr.splitlines()
    assert "there is no valid_u/meta_expressions.json" in wrong
    assert "--split" in todo
    assert list(tmp_path.iterdir()) == []
