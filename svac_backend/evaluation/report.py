"""The report page: one HTML file with figures and the worst cases as pictures, which opens anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark
from svac_backend.evaluation.page import PAGE
from svac_backend.evaluation.predictions import Predictions, read_mask, write_text, writing
from svac_backend.evaluation.results import Results
from svac_backend.evaluation.score import ExpressionScore
from svac_backend.evaluation.truth import Truth
from svac_backend.masks.render import overlay
from svac_backend.video.images import ImageFolderVideo

WORST_CASES = 12
_PICTURE_WIDTH = 420
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Case:
    """An expression with a low score, at its worst frame.

    Attributes:
        score: its score.
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
) -> list[Case]:
    """Return the predicted expressions with the lowest J&F, the lowest first.

    Frames that are not there (someone scores without the data set's pictures) are grey.
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
        try:
            picture = ImageFolderVideo(video.folder, [video.frames[i]]).frame(0)
        except SvacError:
            picture = np.full((*predicted.shape, 3), 128, np.uint8)
        if picture.shape[:2] != predicted.shape:
            picture = np.full((*predicted.shape, 3), 128, np.uint8)
        cases.append(
            Case(
                score,
                video.frames[i],
                score.j_per_frame[i],
                score.f_per_frame[i],
                _drawn(picture, expected),
                _drawn(picture, predicted),
            )
        )
    return cases


def write_report(results: Results, cases: Sequence[Case], path: Path) -> None:
    """Write the page. Raises `SvacError` where the folder can't be written."""
    # Prompts and names come from files of strangers: everything is escaped.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(PAGE).render(results=results, cases=cases)
    with writing(path.parent):
        write_text(path, page)


def _drawn(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """Return a frame with a mask over it as a data address."""
    drawn = overlay(picture, mask[None])
    scale = min(1.0, _PICTURE_WIDTH / drawn.shape[1])
    size = (max(1, round(drawn.shape[1] * scale)), max(1, round(drawn.shape[0] * scale)))
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise SvacError("A picture of the report could not be written.", "Check the installation of OpenCV.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
