"""J and F equal the official evaluation's, through every step from files to results."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, open_benchmark
from svac_backend.evaluation.predictions import Predictions
from svac_backend.evaluation.score import ExpressionScore, score, summarize
from svac_backend.evaluation.truth import open_truth
from svac_backend.masks.metrics import boundary_f, jaccard
from tests.evaluation import layouts

SHARED_MASKS = Path(__file__).parents[2] / ".." / "shared" / "masks"


def scored(benchmark: Benchmark, folder: Path, workers: int = 1) -> list[ExpressionScore]:
    truth = open_truth(benchmark)
    assert truth is not None
    return score(benchmark, truth, Predictions.found_in(folder, benchmark), workers=workers)


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real masks as Ref-DAVIS17 with predictions, by links."""
    if not SHARED_MASKS.is_dir():
        pytest.skip("../shared/masks (real masks of DAVIS sequences) is absent")
    root = tmp_path_factory.mktemp("davis17")
    (root / "valid" / "Annotations").mkdir(parents=True)
    videos = {}
    for name, official in json.loads((SHARED_MASKS / "davis_jf.json").read_text()).items():
        source = (SHARED_MASKS / name).resolve()
        (root / "valid" / "Annotations" / name).symlink_to(source / official["gt"])
        (root / "out" / name).mkdir(parents=True)
        (root / "out" / name / "0").symlink_to(source / official["pred"])
        frames = [f"{i:05d}" for i in range(official["frames"])]
        videos[name] = {"frames": frames, "expressions": {"0": {"exp": "it", "obj_id": 1}}}
    layouts.write_json(root / "meta_expressions" / "valid" / "meta_expressions.json", {"videos": videos})
    return root


def test_every_frame_equals_the_official_evaluation(davis: Path) -> None:
    official = json.loads((SHARED_MASKS / "davis_jf.json").read_text())
    scores = scored(open_benchmark("ref-davis17", davis), davis / "out")
    assert {s.video for s in scores} == set(official)
    for s in scores:
        np.testing.assert_allclose(s.j_per_frame, official[s.video]["J"], atol=1e-6, rtol=0)
        np.testing.assert_allclose(s.f_per_frame, official[s.video]["F"], atol=1e-6, rtol=0)
        assert s.j == pytest.approx(official[s.video]["J_mean"], abs=1e-6)
        assert s.f == pytest.approx(official[s.video]["F_mean"], abs=1e-6)
    results = summarize(scores, dataset="ref-davis17", split="valid", videos_of=5, manifest=None)
    assert results.overall.j == pytest.approx(
        100 * np.mean([v["J_mean"] for v in official.values()]), abs=1e-4
    )
    assert results.overall.f == pytest.approx(
        100 * np.mean([v["F_mean"] for v in official.values()]), abs=1e-4
    )


def test_processes_change_nothing(davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = open_benchmark("ref-davis17", davis).limited(2)
    alone = scored(benchmark, davis / "out")
    monkeypatch.setattr("svac_backend.evaluation.score._MASKS_PER_PROCESS", 1)
    assert scored(benchmark, davis / "out", workers=2) == alone


@pytest.fixture
def mevis(tmp_path: Path) -> Benchmark:
    return open_benchmark("mevis", layouts.mevis(tmp_path, expressions=2))


def write_scenes(benchmark: Benchmark, folder: Path, **shifts: int) -> None:
    """Predict the truth of every expression, shifted to the right where asked."""
    for video, scene in zip(benchmark.videos, layouts.scenes().values(), strict=True):
        truths = {str(k): scene.masks[e.targets[0]] for k, e in enumerate(scene.expressions)}
        truths["two"] = scene.masks[0] | scene.masks[1]
        for expression in video.expressions:
            masks = np.roll(truths[expression.id], shifts.get(f"e{expression.id}", 0), axis=2)
            layouts.write_predictions(folder, video.name, expression.id, video.frames, masks)


def test_the_truth_scores_one_and_a_shifted_one_less(mevis: Benchmark, tmp_path: Path) -> None:
    write_scenes(mevis, tmp_path / "out", e1=20)
    for s in scored(mevis, tmp_path / "out"):
        assert (s.j == s.f == 1) == (s.expression != "1")
        assert s.predicted
    first = layouts.scenes()["scene-0000001"]
    truth = first.masks[first.expressions[1].targets[0]]
    (found,) = [s for s in scored(mevis, tmp_path / "out") if (s.video[-1], s.expression) == ("1", "1")]
    assert found.j_per_frame == tuple(jaccard(np.roll(m, 20, axis=1), m) for m in truth)
    assert found.f_per_frame == tuple(boundary_f(np.roll(m, 20, axis=1), m) for m in truth)
    assert found.worst_frame == int(np.argmin(np.add(found.j_per_frame, found.f_per_frame)))


def test_what_was_not_predicted_scores_zero_and_counts(mevis: Benchmark, tmp_path: Path) -> None:
    write_scenes(mevis, tmp_path / "out")
    layouts_out = tmp_path / "out" / "scene-0000001"
    for file in (layouts_out / "two").iterdir():
        file.unlink()
    (layouts_out / "two").rmdir()
    scores = scored(mevis, tmp_path / "out")
    assert [s.expression for s in scores if not s.predicted] == ["two"]
    results = summarize(scores, dataset="mevis", split="valid_u", videos_of=2, manifest=None)
    assert results.missing == ["scene-0000001/two"]
    assert results.overall.j_and_f == pytest.approx(100 * 5 / 6)
    assert results.sequences[0].j_and_f == pytest.approx(100 * 2 / 3)
    assert (results.sequences[0].missing, results.overall.missing) == (1, 1)


def test_both_empty_is_one(tmp_path: Path) -> None:
    benchmark = open_benchmark("revos", layouts.revos(tmp_path))
    empty, some = np.zeros((4, 48, 64), bool), np.zeros((4, 48, 64), bool)
    some[1:, 5:9, 5:9] = True
    for video in benchmark.videos:
        layouts.write_predictions(tmp_path / "out", video.name, "2", video.frames, some)
        layouts.write_predictions(tmp_path / "out", video.name, "0", video.frames, empty)
    scores = {s.expression: s for s in scored(benchmark, tmp_path / "out") if s.video.endswith("1")}
    assert scores["2"].j_per_frame == scores["2"].f_per_frame == (1, 0, 0, 0)
    assert scores["0"].j == 0


def test_revos_accuracy_robustness_and_overall(tmp_path: Path) -> None:
    benchmark = open_benchmark("revos", layouts.revos(tmp_path))
    beside = 30
    for video, scene in zip(benchmark.videos, layouts.scenes().values(), strict=True):
        wrong = scene.masks[0].copy()
        background = np.flatnonzero(~scene.masks.any(axis=0)[2].ravel())[:beside]
        wrong[2].flat[background] = True
        layouts.write_predictions(tmp_path / "out", video.name, "0", video.frames, wrong)
        layouts.write_predictions(tmp_path / "out", video.name, "1", video.frames, scene.masks[1])
        layouts.write_predictions(tmp_path / "out", video.name, "2", video.frames, scene.masks[1])
    scores = scored(benchmark, tmp_path / "out")
    for s, scene in zip(scores[::3], layouts.scenes().values(), strict=True):
        assert s.accuracy == pytest.approx(1 - beside / (48 * 64) / 4)
        foreground = np.count_nonzero(scene.masks.any(axis=0)[2])
        assert s.robustness == pytest.approx(1 - beside / foreground / 4)
    assert [s.robustness for s in scores[1::3]] == [1, 1]
    results = summarize(scores, dataset="revos", split="valid", videos_of=2, manifest=None)
    assert [figures.name for figures in results.types] == ["hallucination", "reasoning", "referring"]
    by_type = {figures.name: figures for figures in results.types}
    assert by_type["reasoning"].j_and_f == 100
    assert results.overall.j == pytest.approx((by_type["referring"].j + 100) / 2)
    assert results.overall.robustness == pytest.approx((by_type["referring"].robustness or 0) / 2 + 50)
    assert results.overall.expressions == 4


def test_revos_without_a_foreground_has_no_robustness(tmp_path: Path) -> None:
    benchmark = open_benchmark("revos", layouts.revos(tmp_path))
    (tmp_path / "ReVOS" / "mask_dict_foreground.json").unlink()
    for video, scene in zip(benchmark.videos, layouts.scenes().values(), strict=True):
        layouts.write_predictions(tmp_path / "out", video.name, "1", video.frames, scene.masks[1])
    there = [s for s in scored(benchmark, tmp_path / "out") if s.predicted]
    assert [s.robustness for s in there] == [None, None]
    assert [s.accuracy for s in there] == [1, 1]


def test_predictions_of_other_code_in_annotations(mevis: Benchmark, tmp_path: Path) -> None:
    write_scenes(mevis, tmp_path / "theirs" / "Annotations")
    assert {s.j for s in scored(mevis, tmp_path / "theirs")} == {1.0}


def test_predictions_that_cannot_be_scored(mevis: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="no folder"):
        scored(mevis, tmp_path / "nosuch")
    (tmp_path / "out").mkdir()
    with pytest.raises(SvacError, match="no prediction of mevis valid_u"):
        scored(mevis, tmp_path / "out")
    write_scenes(mevis, tmp_path / "out")
    file = tmp_path / "out" / "scene-0000001" / "0" / "00002.png"
    cv2.imwrite(str(file), np.zeros((24, 32), np.uint8))
    with pytest.raises(SvacError, match="32x24 pixels, the truth 64x48"):
        scored(mevis, tmp_path / "out")
    for content in (b"", b"no picture"):
        file.write_bytes(content)
        with pytest.raises(SvacError, match="not a picture"):
            scored(mevis, tmp_path / "out")
    file.unlink()
    with pytest.raises(SvacError, match=r"00002\.png cannot be read"):
        scored(mevis, tmp_path / "out")


def test_an_error_in_a_process_is_told(
    mevis: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenes(mevis, tmp_path / "out")
    (tmp_path / "out" / "scene-0000001" / "0" / "00002.png").write_text("no picture")
    monkeypatch.setattr("svac_backend.evaluation.score._MASKS_PER_PROCESS", 1)
    with pytest.raises(SvacError, match="not a picture") as caught:
        scored(mevis, tmp_path / "out", workers=2)
    assert "predict it again" in caught.value.hint
