"""J, F and their mean for every expression of a benchmark, as the official scripts define them.

From these come the figures that papers report, as JSON and CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.atomic import atomic_write
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, BenchmarkExpression, BenchmarkVideo
from svac_backend.evaluation.predictions import Manifest, PredictionRun, Predictions, read_mask, writing
from svac_backend.evaluation.truth import Mask, Target, Truth
from svac_backend.masks.metrics import boundary_f, jaccard

Progress = Callable[[float], None]

# Starting a process takes about as long as scoring this many masks.
_MASKS_PER_PROCESS = 1000


@dataclass(frozen=True)
class ExpressionScore:
    """The score of one expression.

    Attributes:
        video, expression: names of the folders.
        text: the sentence.
        type: as in `BenchmarkExpression`.
        predicted: False where there is no prediction: every frame scores 0.
        j_per_frame, f_per_frame: 0..1, one per frame.
        accuracy: mean share of pixels that agree, 0..1; robustness: mean of 1 - (pixels predicted beside the truth) /
            (pixels of all annotated objects), at least 0. Both only for ReVOS, else None.
    """

    video: str
    expression: str
    text: str
    type: str | None
    predicted: bool
    j_per_frame: tuple[float, ...]
    f_per_frame: tuple[float, ...]
    accuracy: float | None = None
    robustness: float | None = None

    @property
    def j(self) -> float:
        """Mean region similarity over all frames, 0..1."""
        return float(np.mean(self.j_per_frame))

    @property
    def f(self) -> float:
        """Mean boundary accuracy over all frames, 0..1."""
        return float(np.mean(self.f_per_frame))

    @property
    def j_and_f(self) -> float:
        """Mean of J and F, 0..1."""
        return (self.j + self.f) / 2

    @property
    def worst_frame(self) -> int:
        """0-based index of the frame with the lowest score."""
        return int(np.argmin(np.add(self.j_per_frame, self.f_per_frame)))


@dataclass(frozen=True)
class _VideoToScore:
    video: BenchmarkVideo
    targets: tuple[Target, ...]
    foreground: Target | None


def score(
    benchmark: Benchmark,
    truth: Truth,
    predictions: Predictions,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[ExpressionScore]:
    """Score every expression; one without a prediction scores 0.

    Args:
        benchmark: the expressions.
        truth: their masks.
        predictions: the masks to score.
        workers: processes; small benchmarks use fewer, since a process takes a while to start.
        progress: called with a fraction 0..1.

    Returns:
        One score per expression, sorted by video and expression.

    Raises:
        SvacError: there is no prediction at all; one is damaged, lacks frames, or differs in size from its truth; or
            the truth is damaged.
    """
    if not benchmark.expression_count:
        raise SvacError("There is no expression to score.", "Take more videos: --limit.")
    scores: list[ExpressionScore] = []
    jobs, total = [], 0
    for video in benchmark.videos:
        there = tuple(e for e in video.expressions if predictions.of(video.name, e.id).is_dir())
        scores += [_zero(video, e, benchmark) for e in video.expressions if e not in there]
        if there:
            targets = tuple(truth.target(video, e) for e in there)
            jobs.append(_VideoToScore(replace(video, expressions=there), targets, truth.foreground(video)))
            total += len(video.frames) * len(there)
    if not jobs:
        raise SvacError(
            f"There is no prediction of {benchmark.dataset} {benchmark.split} in {predictions.masks}.",
            "Give the folder that holds a folder for each video, or the one above Annotations.",
        )
    done = 0
    revos = benchmark.dataset == "revos"
    for job, found in _scored(
        jobs, predictions, revos, min(workers, len(jobs), 1 + total // _MASKS_PER_PROCESS)
    ):
        scores += found
        done += len(job.video.frames) * len(job.video.expressions)
        if progress:
            progress(done / total)
    return sorted(scores, key=lambda s: (s.video, s.expression))


def _zero(video: BenchmarkVideo, expression: BenchmarkExpression, benchmark: Benchmark) -> ExpressionScore:
    nothing = (0.0,) * len(video.frames)
    extra = 0.0 if benchmark.dataset == "revos" else None
    return ExpressionScore(
        video.name, expression.id, expression.text, expression.type, False, nothing, nothing, extra, extra
    )


def _scored(
    jobs: Sequence[_VideoToScore], predictions: Predictions, revos: bool, workers: int
) -> Iterator[tuple[_VideoToScore, list[ExpressionScore]]]:
    if workers <= 1:
        for job in jobs:
            yield job, _score_video(job, predictions, revos)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        waiting = [pool.submit(_score_video, job, predictions, revos) for job in jobs]
        try:
            for job, future in zip(jobs, waiting, strict=True):
                yield job, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    """Keep OpenCV to one thread: the processes fill the cores already."""
    cv2.setNumThreads(1)


def _score_video(job: _VideoToScore, predictions: Predictions, revos: bool) -> list[ExpressionScore]:
    """Score a video frame by frame, so that few masks are held, and expressions of the same truth share its masks."""
    expressions = job.video.expressions
    shape = (len(job.video.frames), len(expressions))
    j, f, accuracy, robustness = (np.zeros(shape) for _ in range(4))
    meanings = [(e.anno_ids, e.obj_ids) for e in expressions]
    for i, frame in enumerate(job.video.frames):
        truths: dict[object, Mask | None] = {}
        foreground = job.foreground.mask(i) if job.foreground else None
        for k, expression in enumerate(expressions):
            file = predictions.of(job.video.name, expression.id) / f"{frame}.png"
            mask = read_mask(file)
            if meanings[k] not in truths:
                truths[meanings[k]] = job.targets[k].mask(i)
            truth = truths[meanings[k]]
            if truth is None:
                truth = np.zeros_like(mask)
            if truth.shape != mask.shape:
                raise SvacError(
                    f"The prediction {file} has {mask.shape[1]}x{mask.shape[0]} pixels, the truth "
                    f"{truth.shape[1]}x{truth.shape[0]}.",
                    "Predict at the size of the data set's frames.",
                )
            j[i, k], f[i, k] = jaccard(mask, truth), boundary_f(mask, truth)
            if revos:
                accuracy[i, k] = np.mean(mask == truth)
                robustness[i, k] = _robustness(mask, truth, foreground)
    return [
        ExpressionScore(
            job.video.name,
            e.id,
            e.text,
            e.type,
            True,
            tuple(j[:, k].tolist()),
            tuple(f[:, k].tolist()),
            float(accuracy[:, k].mean()) if revos else None,
            float(robustness[:, k].mean()) if revos and job.foreground else None,
        )
        for k, e in enumerate(expressions)
    ]


def _robustness(mask: Mask, truth: Mask, foreground: NDArray[np.bool_] | None) -> float:
    beside = int(np.count_nonzero(mask & ~truth))
    pixels = 0 if foreground is None else int(np.count_nonzero(foreground))
    return max(1 - beside / (pixels + 1e-6), 0.0)


# The overall figures of ReVOS are the means of these two types, however many expressions each has.
_IN_OVERALL = ("referring", "reasoning")
_MEASURES = ("j", "f", "j_and_f", "accuracy", "robustness")


@dataclass(frozen=True)
class MeanScores:
    """Means over expressions, in per cent.

    Attributes:
        name: a sequence, a type, or `overall`.
        expressions, missing: the number of expressions, and of those without a prediction.
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
class BenchmarkScores:
    """The figures of one evaluation.

    Attributes:
        videos_of: number of videos of the whole split; with `--limit` fewer are scored.
        manifest: which model made the predictions, and how fast; None if that is not recorded.
        types: by type of expression, where the data set has types.
        sequences: by video.
        scores: by expression.
    """

    dataset: str
    split: str
    videos_of: int
    manifest: Manifest | None
    overall: MeanScores
    types: tuple[MeanScores, ...]
    sequences: tuple[MeanScores, ...]
    scores: tuple[ExpressionScore, ...]

    @property
    def run(self) -> PredictionRun | None:
        """The run that made the last predictions; None if that is not recorded."""
        return self.manifest.run if self.manifest else None

    @property
    def frames_per_second(self) -> float | None:
        """Frames per second of the run, each frame for all expressions of its video together."""
        run = self.run
        return run.frames / run.seconds if run and run.frames and run.seconds else None

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
) -> BenchmarkScores:
    """Return the figures that follow from the scores of a benchmark's expressions."""
    named = sorted({score.type for score in scores if score.type})
    types = tuple(_figures(name, [s for s in scores if s.type == name]) for name in named)
    videos = sorted({score.video for score in scores})
    sequences = tuple(_figures(name, [s for s in scores if s.video == name]) for name in videos)
    return BenchmarkScores(
        dataset,
        split,
        videos_of,
        manifest,
        _overall(dataset, types) or _figures("overall", scores),
        types,
        sequences,
        tuple(scores),
    )


def write_json(results: BenchmarkScores, path: Path) -> None:
    """Write `results.json`: J and F in per cent; those of single frames 0..1."""
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
        atomic_write(path, json.dumps(content, ensure_ascii=False) + "\n")


def write_csv(results: BenchmarkScores, path: Path) -> None:
    """Write `results.csv`: a row per expression, figures in per cent."""
    text = io.StringIO()
    rows = [_row(score) for score in results.scores]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with writing(path.parent):
        atomic_write(path, text.getvalue())


def _row(score: ExpressionScore) -> dict[str, Any]:
    return {
        "video": score.video,
        "expression": score.expression,
        "text": score.text,
        "type": score.type,
        "frames": len(score.j_per_frame),
        "predicted": score.predicted,
        "worst_frame": score.worst_frame,
        **{name: _percent(getattr(score, name)) for name in _MEASURES},
    }


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)


def _figures(name: str, scores: Sequence[ExpressionScore]) -> MeanScores:
    means = {key: _mean([getattr(score, key) for score in scores], 100) for key in _MEASURES}
    missing = sum(not score.predicted for score in scores)
    return MeanScores(name, len(scores), missing, **means)  # type: ignore[arg-type]


def _overall(dataset: str, all_types: Sequence[MeanScores]) -> MeanScores | None:
    """Return the mean of the ReVOS types, with equal weights; None for other data sets."""
    types = [figures for figures in all_types if figures.name in _IN_OVERALL]
    if dataset != "revos" or not types:
        return None
    means = {key: _mean([getattr(figures, key) for figures in types]) for key in _MEASURES}
    return MeanScores(
        "overall",
        sum(figures.expressions for figures in types),
        sum(figures.missing for figures in types),
        **means,  # type: ignore[arg-type]
    )


def _mean(values: Iterable[float | None], scale: float = 1) -> float | None:
    known = list(values)
    return None if None in known else float(np.mean(np.array(known, np.float64))) * scale


def _rounded(figures: MeanScores) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(figures).items()}
