"""The embedded model over two short videos: what is written is what it segments, once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.evaluation import predict as module
from svac_backend.evaluation.benchmark import Benchmark, open_benchmark
from svac_backend.evaluation.predict import manifest_of, predict
from svac_backend.evaluation.predictions import Predictions, read_mask
from svac_backend.settings import Settings
from svac_backend.svac.files.weights import model_version
from svac_backend.video.images import ImageFolderVideo
from tests.evaluation import layouts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings(_env_file=None, model="svac-tiny", device="cpu")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return open_benchmark("mevis", layouts.mevis(tmp_path_factory.mktemp("data"), expressions=2))


@pytest.fixture(scope="module")
def predicted(
    benchmark: Benchmark, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Predictions:
    """Predictions of this process; tests don't change them."""
    out = Predictions(tmp_path_factory.mktemp("predicted") / "out", benchmark)
    seen: list[float] = []
    run = predict(benchmark, out, settings, progress=seen.append)
    assert (run.frames, run.expressions, run.skipped, run.workers) == (8, 6, 0, 1)
    assert run.seconds > 0
    assert seen == [pytest.approx(k / 8) for k in range(1, 9)]
    return out


def contents(predictions: Predictions) -> dict[str, bytes]:
    return {
        path.relative_to(predictions.masks).as_posix(): path.read_bytes()
        for path in predictions.masks.rglob("*.png")
    }


def test_the_files_are_what_the_model_segments(
    benchmark: Benchmark, predicted: Predictions, settings: Settings
) -> None:
    from svac_backend.pipeline import load_model

    model = load_model(settings)
    found = 0
    for video in benchmark.videos:
        source = ImageFolderVideo(video.folder, video.frames)
        for frame in model.segment(source, [e.text for e in video.expressions]):
            for expression, mask in zip(video.expressions, frame.masks, strict=True):
                file = predicted.of(video.name, expression.id) / f"{video.frames[frame.index]}.png"
                assert np.array_equal(read_mask(file), mask)
                found += mask.any()
    assert found, "the model sees something"
    manifest = predicted.manifest()
    assert manifest is not None
    assert manifest.model_version == model_version("svac-tiny")
    assert manifest.preset == "svac"
    assert manifest.run is not None
    assert manifest.run.frames == 8


def test_several_processes_write_the_same_files(
    benchmark: Benchmark, predicted: Predictions, settings: Settings, tmp_path: Path
) -> None:
    out = Predictions(tmp_path / "out", benchmark)
    one_thread = settings.model_copy(update={"threads": 1})
    run = predict(benchmark, out, one_thread, workers=5)
    assert (run.frames, run.workers) == (8, 2)
    assert contents(out) == contents(predicted)


def test_only_what_is_missing_is_predicted(
    benchmark: Benchmark, predicted: Predictions, settings: Settings, tmp_path: Path
) -> None:
    out = Predictions(tmp_path / "out", benchmark)
    first = predict(benchmark.limited(1), out, settings)
    assert (first.expressions, first.frames) == (3, 4)
    kept = {path: path.stat().st_mtime_ns for path in out.masks.rglob("*.png")}
    (out.of("scene-0000001", "1") / "00002.png").unlink()
    second = predict(benchmark, out, settings)
    assert (second.expressions, second.skipped, second.frames) == (4, 2, 8)
    again = [path for path, time in kept.items() if path.stat().st_mtime_ns != time]
    assert {path.parent.name for path in again} == {"1"}
    assert contents(out) == contents(predicted)
    third = predict(benchmark, out, settings.model_copy(update={"device": "cuda:7"}))  # no model is loaded
    assert (third.frames, third.skipped, third.workers) == (0, 6, 0)
    manifest = out.manifest()
    assert manifest is not None
    assert manifest.run == second


def test_another_model_does_not_go_on(
    benchmark: Benchmark, settings: Settings, random_model: Path, tmp_path: Path
) -> None:
    out = Predictions(tmp_path / "out", benchmark)
    predict(benchmark.limited(1), out, settings)
    with pytest.raises(SvacError, match="holds predictions of"):
        predict(benchmark, out, settings.model_copy(update={"model": str(random_model)}))


def test_missing_frames_are_found_before_the_model_is_loaded(settings: Settings, tmp_path: Path) -> None:
    benchmark = open_benchmark("mevis", layouts.mevis(tmp_path))
    (benchmark.videos[1].folder / "00003.jpg").unlink()
    out = Predictions(tmp_path / "out", benchmark)
    with pytest.raises(SvacError, match=r"1 of 4 frames are missing in .*scene-0000002"):
        predict(benchmark, out, settings.model_copy(update={"device": "cuda:7"}))


def test_the_same_weights_run_in_another_way_are_another_model(
    benchmark: Benchmark, settings: Settings, random_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "model"
    shutil.copytree(random_model, other)
    config = json.loads((other / "config.json").read_text())
    config["method"]["sampling"] = "wrap_around_plus"
    (other / "config.json").write_text(json.dumps(config))
    first = settings.model_copy(update={"model": str(random_model)})
    second = settings.model_copy(update={"model": str(other)})
    assert manifest_of(benchmark, first).model_version == manifest_of(benchmark, second).model_version
    assert manifest_of(benchmark, first).maker != manifest_of(benchmark, second).maker


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_frame_leaves_no_half_predictions(settings: Settings, tmp_path: Path, workers: int) -> None:
    benchmark = open_benchmark("mevis", layouts.mevis(tmp_path, expressions=1))
    frame = benchmark.videos[1].folder / "00003.jpg"
    frame.write_bytes(frame.read_bytes()[:300])
    out = Predictions(tmp_path / "out", benchmark)
    with pytest.raises(SvacError, match=r"00003\.jpg is damaged"):
        predict(benchmark, out, settings, workers=workers)
    assert not (out.masks / "scene-0000002").exists() or not list((out.masks / "scene-0000002").iterdir())


def test_a_model_that_processes_cannot_load_is_told(
    benchmark: Benchmark,
    settings: Settings,
    random_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What such a process does, in this one: starting another takes seconds."""
    broken = tmp_path / "model"
    shutil.copytree(random_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    monkeypatch.setattr(module, "_model", None)
    chosen, out = settings.model_copy(update={"model": str(broken)}), Predictions(tmp_path / "out", benchmark)
    with pytest.raises(SvacError, match=r"model\.safetensors"):
        module._work(benchmark.videos[0], out, chosen)
