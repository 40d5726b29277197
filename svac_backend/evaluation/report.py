"""The report: one HTML file with figures and pictures of the worst cases. It loads nothing, so it opens anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from svac_backend.atomic import atomic_write
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark
from svac_backend.evaluation.predictions import Predictions, read_mask, writing
from svac_backend.evaluation.score import BenchmarkScores, ExpressionScore
from svac_backend.evaluation.truth import Truth
from svac_backend.masks.render import overlay
from svac_backend.video.images import ImageFolderVideo

WORST_CASES = 12
_PICTURE_WIDTH = 420
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class WorstCase:
    """An expression with a low score, at its worst frame.

    Attributes:
        frame: name of the frame.
        j, f: of this frame, 0..1.
        truth, prediction: pictures as data addresses.
    """

    score: ExpressionScore
    frame: str
    j: float
    f: float
    truth: str
    prediction: str


def worst_cases(
    benchmark: Benchmark,
    truth: Truth,
    predictions: Predictions,
    scores: Sequence[ExpressionScore],
    count: int = WORST_CASES,
) -> list[WorstCase]:
    """Return the predicted expressions with the lowest J&F, the lowest first.

    Missing frames are grey: people may score without the data set's pictures.
    """
    videos = {video.name: video for video in benchmark.videos}
    cases = []
    for score in sorted((s for s in scores if s.predicted), key=lambda s: s.j_and_f)[:count]:
        video = videos[score.video]
        expression = next(e for e in video.expressions if e.id == score.expression)
        i = score.worst_frame
        predicted = read_mask(predictions.of(video.name, expression.id) / f"{video.frames[i]}.png")
        expected = truth.target(video, expression).mask(i)
        if expected is None:
            expected = np.zeros_like(predicted)
        grey = np.full((*predicted.shape, 3), 128, np.uint8)
        try:
            picture = ImageFolderVideo(video.folder, [video.frames[i]]).frame(0)
        except SvacError:
            picture = grey
        if picture.shape != grey.shape:
            picture = grey
        cases.append(
            WorstCase(
                score,
                video.frames[i],
                score.j_per_frame[i],
                score.f_per_frame[i],
                _drawn(picture, expected),
                _drawn(picture, predicted),
            )
        )
    return cases


def write_report(results: BenchmarkScores, cases: Sequence[WorstCase], path: Path) -> None:
    """Write the page. Raises `SvacError` if the folder can't be written."""
    page = render_page(Path(__file__).with_name("report.html.j2"), results=results, cases=cases)
    with writing(path.parent):
        atomic_write(path, page)


def render_page(template: Path, **values: Any) -> str:
    """Return a page made from a Jinja2 template. Every value is escaped: texts and names come from strangers."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)


def data_address(picture: NDArray[np.uint8], width: int, quality: int) -> str:
    """Return a picture u8 [H, W, 3] as a `data:` address: a JPEG of some quality, 1 to 100, `width` pixels wide."""
    scale = width / picture.shape[1]
    size = (width, max(1, round(picture.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    sized = cv2.resize(picture, size, interpolation=way)
    done, data = cv2.imencode(".jpg", sized[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise SvacError("A picture of the report could not be made.", "Check the installation of OpenCV.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _drawn(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """Return a frame with a mask over it as a data address; small ones keep their size."""
    return data_address(overlay(picture, mask[None]), min(_PICTURE_WIDTH, picture.shape[1]), _JPEG_QUALITY)
