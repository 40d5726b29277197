"""The page, the JSON and the CSV say what was scored, and nothing in them is a stranger's markup."""

from __future__ import annotations

import base64
import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from svac_backend.evaluation.benchmark import Benchmark, open_benchmark
from svac_backend.evaluation.predictions import Manifest, PredictionRun, Predictions
from svac_backend.evaluation.report import worst_cases, write_report
from svac_backend.evaluation.score import BenchmarkScores, score, summarize, write_csv, write_json
from svac_backend.evaluation.truth import open_truth
from tests.evaluation import layouts

MANIFEST = Manifest(
    "mevis", "valid_u", "svac-tiny", "svac-1234abcd", "svac", "0a0a0a0a", PredictionRun(8, 6, 0, 2.0, 1)
)


class Page(HTMLParser):
    """Every start tag with its attributes, and all text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(re.sub(r"<style>.*?</style>", "", text, flags=re.S))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += " ".join(data.split()) + " "


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Benchmark, Predictions, BenchmarkScores]:
    """Expression 1 of the first video is wrong, `two` of it missing; one sentence is markup."""
    root = layouts.mevis(tmp_path, expressions=2)
    meta = root / "mevis" / "valid_u" / "meta_expressions.json"
    content = json.loads(meta.read_text())
    content["videos"]["scene-0000001"]["expressions"]["1"]["exp"] = (
        '<script>alert("x")</script> & {{ 7 * 7 }}'
    )
    meta.write_text(json.dumps(content))
    benchmark = open_benchmark("mevis", root)
    for video, scene in zip(benchmark.videos, layouts.scenes().values(), strict=True):
        for e in range(2):
            truth = scene.masks[scene.expressions[e].targets[0]]
            wrong = (video.name, e) == ("scene-0000001", 1)
            masks = np.zeros_like(truth) if wrong else truth
            layouts.write_predictions(tmp_path / "out", video.name, str(e), video.frames, masks)
    truths = open_truth(benchmark)
    assert truths is not None
    predictions = Predictions.found_in(tmp_path / "out", benchmark)
    scores = score(benchmark, truths, predictions)
    return (
        benchmark,
        predictions,
        summarize(scores, dataset="mevis", split="valid_u", videos_of=3, manifest=MANIFEST),
    )


def page_of(evaluated: tuple[Benchmark, Predictions, BenchmarkScores], path: Path) -> Page:
    benchmark, predictions, results = evaluated
    truth = open_truth(benchmark)
    assert truth is not None
    write_report(results, worst_cases(benchmark, truth, predictions, results.scores), path)
    return Page(path.read_text())


def test_the_page_says_what_was_found(
    evaluated: tuple[Benchmark, Predictions, BenchmarkScores], tmp_path: Path
) -> None:
    results = evaluated[2]
    page = page_of(evaluated, tmp_path / "report.html")
    for text in (
        "mevis, valid_u",
        "svac-1234abcd (svac-tiny)",
        "8 frames, 6 expressions in 2.0 s, 1 process",
        "4.0 frames/s",
        "Only 2 of the 3 videos",
        "with a score of 0: 2 expressions, scene-0000001/two, scene-0000002/two",
        f"{results.overall.j_and_f:.1f} J&F",
        "scene-0000002",
    ):
        assert text in page.text


def test_the_page_needs_nothing_else_and_runs_nothing(
    evaluated: tuple[Benchmark, Predictions, BenchmarkScores], tmp_path: Path
) -> None:
    page = page_of(evaluated, tmp_path / "report.html")
    assert '<script>alert("x")</script> & {{ 7 * 7 }}' in page.text
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object"}
    assert all(
        (attrs.get("src") or "data:image/jpeg").startswith("data:image/jpeg") for _, attrs in page.tags
    )


def test_the_worst_case_comes_first_with_truth_and_prediction(
    evaluated: tuple[Benchmark, Predictions, BenchmarkScores], tmp_path: Path
) -> None:
    page = page_of(evaluated, tmp_path / "report.html")
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 2 * 4, "of every expression that was predicted"
    assert (pictures[0]["alt"] or "").startswith("truth: <script>")
    truth, prediction = (decoded(picture["src"] or "") for picture in pictures[:2])
    assert truth.shape == (48, 64, 3)
    scene = layouts.scenes()["scene-0000001"]
    results = evaluated[2]
    worst = next(s for s in results.scores if s.expression == "1")
    frame, i = scene.frames[worst.worst_frame], worst.worst_frame
    mask = scene.masks[scene.expressions[1].targets[0], i]
    assert np.abs(prediction.astype(int) - frame).mean() < 12, "nothing was predicted, nothing is drawn"
    assert np.abs(truth.astype(int) - frame)[mask].mean() > 25
    assert np.abs(truth.astype(int) - frame)[~mask].mean() < 14


def decoded(address: str) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert picture is not None
    return picture[..., ::-1]


def test_without_the_frames_the_pictures_are_grey(
    evaluated: tuple[Benchmark, Predictions, BenchmarkScores], tmp_path: Path
) -> None:
    for video in evaluated[0].videos:
        for file in video.folder.iterdir():
            file.unlink()
    page = page_of(evaluated, tmp_path / "report.html")
    picture = decoded(next(attrs["src"] or "" for tag, attrs in page.tags if tag == "img"))
    assert abs(int(np.median(picture)) - 128) < 4


def test_without_a_manifest_the_model_is_not_known(
    evaluated: tuple[Benchmark, Predictions, BenchmarkScores], tmp_path: Path
) -> None:
    benchmark, predictions, results = evaluated
    page = page_of((benchmark, predictions, replace(results, manifest=None)), tmp_path / "report.html")
    assert "not known: the predictions have no manifest" in page.text
    assert "frames/s" not in page.text


def test_json_and_csv(evaluated: tuple[Benchmark, Predictions, BenchmarkScores], tmp_path: Path) -> None:
    results = evaluated[2]
    write_json(results, tmp_path / "results.json")
    write_csv(results, tmp_path / "results.csv")
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["predictions"]["model_version"] == "svac-1234abcd"
    assert content["frames_per_second"] == 4
    assert (content["videos"], content["videos_of_the_split"]) == (2, 3)
    assert content["overall"]["j_and_f"] == pytest.approx(results.overall.j_and_f, abs=1e-4)
    assert [s["name"] for s in content["sequences"]] == ["scene-0000001", "scene-0000002"]
    for entry, s in zip(content["expressions"], results.scores, strict=True):
        assert entry["j_per_frame"] == pytest.approx(s.j_per_frame, abs=1e-6)
        assert entry["f_per_frame"] == pytest.approx(s.f_per_frame, abs=1e-6)
        assert entry["j_and_f"] == pytest.approx(100 * s.j_and_f, abs=1e-3)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["video"], row["expression"], row["text"]) for row in rows] == [
        (s.video, s.expression, s.text) for s in results.scores
    ]
    assert [float(row["j"]) for row in rows] == [pytest.approx(100 * s.j, abs=1e-3) for s in results.scores]


def test_figures_by_type(evaluated: tuple[Benchmark, Predictions, BenchmarkScores], tmp_path: Path) -> None:
    benchmark, predictions, results = evaluated
    kinds = ("colour", "motion", "colour", "motion", "colour", "motion")
    typed = [replace(s, type=kind) for s, kind in zip(results.scores, kinds, strict=True)]
    found = summarize(typed, dataset="mevis", split="valid_u", videos_of=2, manifest=None)
    assert [(f.name, f.expressions) for f in found.types] == [("colour", 3), ("motion", 3)]
    assert found.overall.j == pytest.approx(results.overall.j)
    assert "By type of expression" in page_of((benchmark, predictions, found), tmp_path / "r.html").text
