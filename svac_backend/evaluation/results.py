"""From scores of expressions to the figures that papers report, as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from svac_backend.evaluation.predictions import Manifest, Run, write_text, writing
from svac_backend.evaluation.score import ExpressionScore

# ReVOS: "overall" is the mean of these two types' figures, however many expressions each has.
_IN_OVERALL = ("referring", "reasoning")


@dataclass(frozen=True)
class Figures:
    """Means over expressions, in per cent.

    Attributes:
        name: of the sequence or the type; `overall`.
        expressions, missing: how many there are, and how many of them have no prediction.
        j, f, j_and_f: J, F and their mean.
        accuracy, robustness: as in `ExpressionScore`.
    """

    name: str
    expressions: int
    missing: int
    j: float
    f: float
    j_and_f: float
    accuracy: float | None = None
    robustness: float | None = None


@dataclass(frozen=True)
class Results:
    """What one evaluation found.

    Attributes:
        dataset, split: of what.
        videos_of: number of videos of the whole split; more than were scored after `--limit`.
        manifest: who made the predictions, and how fast; None if nobody said so.
        overall: over all.
        types: by type of expression, where the data set has types.
        sequences: by video.
        scores: by expression.
    """

    dataset: str
    split: str
    videos_of: int
    manifest: Manifest | None
    overall: Figures
    types: tuple[Figures, ...]
    sequences: tuple[Figures, ...]
    scores: tuple[ExpressionScore, ...]

    @property
    def run(self) -> Run | None:
        """The run that made the last of the predictions; None if nobody said so."""
        return self.manifest.run if self.manifest else None

    @property
    def frames_per_second(self) -> float | None:
        """Frames per second of the run, each frame for all expressions of its video together."""
        return (
            self.run.frames / self.run.seconds if self.run and self.run.frames and self.run.seconds else None
        )

    @property
    def missing(self) -> list[str]:
        """`<video>/<expression>` of the expressions without a prediction."""
        return [f"{score.video}/{score.expression}" for score in self.scores if not score.predicted]


def summarize(
    scores: Sequence[ExpressionScore],
    *,
    dataset: str,
    split: str,
    videos_of: int,
    manifest: Manifest | None,
) -> Results:
    """Return the figures of a benchmark."""
    named = sorted({score.type for score in scores if score.type})
    types = tuple(_figures(name, [s for s in scores if s.type == name]) for name in named)
    videos = sorted({score.video for score in scores})
    sequences = tuple(_figures(name, [s for s in scores if s.video == name]) for name in videos)
    return Results(
        dataset,
        split,
        videos_of,
        manifest,
        _overall(dataset, types) or _figures("overall", scores),
        types,
        sequences,
        tuple(scores),
    )


def write_json(results: Results, path: Path) -> None:
    """Write `results.json`: J and F in per cent, per frame 0..1."""
    content = {
        "dataset": results.dataset,
        "split": results.split,
        "videos": len(results.sequences),
        "videos_of_the_split": results.videos_of,
        "predictions": asdict(results.manifest) if results.manifest else None,
        "frames_per_second": results.frames_per_second,
        "overall": _rounded(results.overall),
        "types": [_rounded(figures) for figures in results.types],
        "sequences": [_rounded(figures) for figures in results.sequences],
        "expressions": [
            {
                **_row(score),
                "j_per_frame": [round(value, 7) for value in score.j_per_frame],
                "f_per_frame": [round(value, 7) for value in score.f_per_frame],
            }
            for score in results.scores
        ],
    }
    with writing(path.parent):
        write_text(path, json.dumps(content, ensure_ascii=False) + "\n")


def write_csv(results: Results, path: Path) -> None:
    """Write `results.csv`: a row per expression, figures in per cent."""
    text = io.StringIO()
    rows = [_row(score) for score in results.scores]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with writing(path.parent):
        write_text(path, text.getvalue())


def _row(score: ExpressionScore) -> dict[str, Any]:
    return {
        "video": score.video,
        "expression": score.expression,
        "text": score.text,
        "type": score.type,
        "frames": len(score.j_per_frame),
        "predicted": score.predicted,
        "worst_frame": score.worst_frame,
        **{name: _percent(value) for name, value in _parts(score).items()},
    }


def _parts(score: ExpressionScore) -> dict[str, float | None]:
    return {
        "j": score.j,
        "f": score.f,
        "j_and_f": score.j_and_f,
        "accuracy": score.accuracy,
        "robustness": score.robustness,
    }


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)


def _figures(name: str, scores: Sequence[ExpressionScore]) -> Figures:
    parts = [_parts(score) for score in scores]
    means = {key: _mean([part[key] for part in parts], 100) for key in parts[0]}
    missing = sum(not score.predicted for score in scores)
    return Figures(name, len(scores), missing, **means)  # type: ignore[arg-type]


def _overall(dataset: str, all_types: Sequence[Figures]) -> Figures | None:
    """Return ReVOS' mean of types, each of the same weight; None for other data sets."""
    types = [figures for figures in all_types if figures.name in _IN_OVERALL]
    if dataset != "revos" or not types:
        return None
    keys = ("j", "f", "j_and_f", "accuracy", "robustness")
    means = {key: _mean([getattr(figures, key) for figures in types]) for key in keys}
    return Figures(
        "overall",
        sum(figures.expressions for figures in types),
        sum(figures.missing for figures in types),
        **means,  # type: ignore[arg-type]
    )


def _mean(values: Iterable[float | None], scale: float = 1) -> float | None:
    known = list(values)
    return None if None in known else float(np.mean(np.array(known, np.float64))) * scale


def _rounded(figures: Figures) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(figures).items()}
