"""Predictions on disk: the challenges' format, whole or not at all, and of one model."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, open_benchmark
from svac_backend.evaluation.predictions import (
    Manifest,
    PredictionRun,
    Predictions,
    VideoWriter,
    encode_mask,
    read_mask,
)
from tests.evaluation import layouts

MANIFEST = Manifest("mevis", "valid_u", "svac-tiny", "svac-00000000", "svac", "0a0a0a0a")
MASKS = np.zeros((4, 2, 48, 64), bool)
MASKS[1:, 0, 10:20, 30:50] = True


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    return open_benchmark("mevis", layouts.mevis(tmp_path, expressions=2))


def write(predictions: Predictions, benchmark: Benchmark, masks: np.ndarray = MASKS) -> None:
    video = benchmark.videos[0]
    with VideoWriter(predictions, replace(video, expressions=video.expressions[:2])) as writer:
        for frame in masks:
            writer.write(frame)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_a_mask_survives(tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "mask.png"
    path.write_bytes(encode_mask(mask))
    assert np.array_equal(read_mask(path), mask)


def test_the_format_is_the_challenges(benchmark: Benchmark, tmp_path: Path) -> None:
    out = Predictions(tmp_path / "out", benchmark)
    write(out, benchmark)
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in out.masks.rglob("*.png"))
    assert files == [f"scene-0000001/{e}/{i:05d}.png" for e in (0, 1) for i in range(4)]
    picture = Image.open(tmp_path / "out" / "scene-0000001" / "0" / "00002.png")
    assert (picture.mode, picture.size) == ("L", (64, 48))
    assert np.array_equal(np.array(picture), MASKS[2, 0] * np.uint8(255))


def test_an_expression_is_there_wholly_or_not_at_all(benchmark: Benchmark, tmp_path: Path) -> None:
    out = Predictions(tmp_path / "out", benchmark)
    video = benchmark.videos[0]
    writer = VideoWriter(out, video)
    writer.__enter__()
    writer.write(np.zeros((3, 48, 64), bool))
    assert not out.of(video.name, "0").exists()
    writer.__exit__(KeyboardInterrupt)
    assert list(out.masks.rglob("*.png")) == []
    with pytest.raises(SvacError, match="masks of 3 of 4 frames"):
        write(out, benchmark, MASKS[:3])
    assert not out.is_complete(video, video.expressions[0])
    write(out, benchmark)
    assert [out.is_complete(video, e) for e in video.expressions] == [True, True, False]
    (out.of(video.name, "1") / "00003.png").unlink()
    assert [out.is_complete(video, e) for e in video.expressions] == [True, False, False]


def test_what_a_killed_run_left_is_replaced(benchmark: Benchmark, tmp_path: Path) -> None:
    out = Predictions(tmp_path / "out", benchmark)
    for name in (".0.part", "1"):
        (out.masks / "scene-0000001" / name).mkdir(parents=True)
        (out.masks / "scene-0000001" / name / "00000.png").write_text("half")
    write(out, benchmark)
    assert {path.name for path in (out.masks / "scene-0000001").iterdir()} == {"0", "1"}
    assert np.array_equal(read_mask(out.of("scene-0000001", "1") / "00000.png"), MASKS[0, 1])


def test_models_do_not_mix(benchmark: Benchmark, tmp_path: Path) -> None:
    out = Predictions(tmp_path / "out", benchmark)
    out.claim(MANIFEST)
    signed = replace(MANIFEST, run=PredictionRun(8, 6, 0, 2.0, 1))
    out.sign(signed)
    out.claim(replace(MANIFEST, model="/elsewhere/svac-tiny"))
    assert out.manifest() == signed
    for other in (
        {"model_version": "svac-11111111"},
        {"preset": "sa2va"},
        {"config": "0b0b0b0b"},
        {"split": "train"},
    ):
        with pytest.raises(SvacError, match="holds predictions of svac-00000000") as caught:
            out.claim(replace(MANIFEST, **other))
        assert "--out" in caught.value.hint
    assert out.manifest() == signed


def test_a_folder_with_others_files_is_not_taken(benchmark: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "out" / "holiday").mkdir(parents=True)
    with pytest.raises(SvacError, match="the model that made them is not known") as caught:
        Predictions(tmp_path / "out", benchmark).claim(MANIFEST)
    assert "--predictions" in caught.value.hint
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["holiday"]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"run": {"a": 1}}', '{"run": 3}'])
def test_a_damaged_manifest(benchmark: Benchmark, tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(SvacError, match=r"manifest\.json"):
        Predictions(tmp_path, benchmark).manifest()


def test_two_runs_do_not_write_to_one_folder(benchmark: Benchmark, tmp_path: Path) -> None:
    out = Predictions(tmp_path / "out", benchmark)
    with out.locked(), pytest.raises(SvacError, match="Another evaluation"), out.locked():
        pass
    with out.locked():
        pass


def test_a_folder_that_cannot_be_written(benchmark: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = Predictions(tmp_path / "file" / "out", benchmark)
    with pytest.raises(SvacError, match="cannot be written") as caught:
        out.claim(MANIFEST)
    assert "--out" in caught.value.hint
    with pytest.raises(SvacError, match="cannot be written"), out.locked():
        pass


def test_the_submission_of_ref_youtube_vos(tmp_path: Path) -> None:
    benchmark = open_benchmark("ref-youtube-vos", layouts.by_split(tmp_path, "valid"))
    out = Predictions(tmp_path / "out", benchmark)
    out.claim(replace(MANIFEST, dataset="ref-youtube-vos"))
    for video in benchmark.videos:
        with pytest.raises(SvacError, match="has no prediction"):
            out.zip(benchmark)
        with VideoWriter(out, video) as writer:
            for masks in MASKS:
                writer.write(masks)
    with zipfile.ZipFile(out.zip(benchmark)) as archive:
        names = archive.namelist()
        assert len(names) == 2 * 2 * 4
        assert names[0] == "Annotations/scene-0000001/0/00000.png"
        assert archive.read(names[1]) == encode_mask(MASKS[1, 0])
    assert not list((tmp_path / "out").glob(".*.part"))


def test_the_manifest_is_readable(benchmark: Benchmark, tmp_path: Path) -> None:
    Predictions(tmp_path, benchmark).sign(MANIFEST)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert (content["model_version"], content["preset"], content["run"]) == ("svac-00000000", "svac", None)
