"""J, F and their mean for every expression of a benchmark, as the official scripts define them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, BenchmarkVideo, Expression
from svac_backend.evaluation.predictions import Predictions, read_mask
from svac_backend.evaluation.truth import Mask, Target, Truth
from svac_backend.masks.metrics import boundary_f, jaccard

Progress = Callable[[float], None]

# A process needs about as long to start as it scores this many masks.
_MASKS_PER_PROCESS = 1000


@dataclass(frozen=True)
class ExpressionScore:
    """The score of one expression.

    Attributes:
        video, expression: names of the folders.
        text: the sentence.
        type: as in `Expression`.
        predicted: False where no prediction was found: it scores 0 on every frame.
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
        """0-based index of the frame that scores least."""
        return int(np.argmin(np.add(self.j_per_frame, self.f_per_frame)))


@dataclass(frozen=True)
class _Job:
    video: BenchmarkVideo
    expressions: tuple[Expression, ...]
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
        benchmark: what was asked.
        truth: its masks.
        predictions: the answers.
        workers: processes; small benchmarks take fewer, since a process takes its time to start.
        progress: called with a fraction 0..1.

    Returns:
        One score per expression, by video and expression.

    Raises:
        SvacError: there is no prediction at all, one is damaged, lacks frames or has another size than its truth; or
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
            jobs.append(_Job(video, there, targets, truth.foreground(video)))
            total += len(video.frames) * len(there)
    if not jobs:
        raise SvacError(
            f"There is no prediction of {benchmark.dataset} {benchmark.split} in {predictions.masks}.",
            "Give the folder that holds a folder per video, or the one above Annotations.",
        )
    done = 0
    revos = benchmark.dataset == "revos"
    for job, found in _scored(
        jobs, predictions, revos, min(workers, len(jobs), 1 + total // _MASKS_PER_PROCESS)
    ):
        scores += found
        done += len(job.video.frames) * len(job.expressions)
        if progress:
            progress(done / total)
    return sorted(scores, key=lambda s: (s.video, s.expression))


def _zero(video: BenchmarkVideo, expression: Expression, benchmark: Benchmark) -> ExpressionScore:
    nothing = (0.0,) * len(video.frames)
    extra = 0.0 if benchmark.dataset == "revos" else None
    return ExpressionScore(
        video.name, expression.id, expression.text, expression.type, False, nothing, nothing, extra, extra
    )


def _scored(
    jobs: Sequence[_Job], predictions: Predictions, revos: bool, workers: int
) -> Iterator[tuple[_Job, list[ExpressionScore]]]:
    if workers <= 1:
        for job in jobs:
            yield job, _score_video(job, predictions, revos)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        waiting = [pool.submit(_work, job, predictions, revos) for job in jobs]
        try:
            for job, future in zip(jobs, waiting, strict=True):
                outcome = future.result()
                if isinstance(outcome, tuple):
                    raise SvacError(*outcome)
                yield job, outcome
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    """The processes fill the cores already."""
    cv2.setNumThreads(1)


def _work(job: _Job, predictions: Predictions, revos: bool) -> list[ExpressionScore] | tuple[str, str]:
    """Score a video; return what is wrong and what to do instead of raising it (exceptions don't travel well)."""
    try:
        return _score_video(job, predictions, revos)
    except SvacError as error:
        return error.message, error.hint


def _score_video(job: _Job, predictions: Predictions, revos: bool) -> list[ExpressionScore]:
    """Score a video frame by frame, so that few masks are held and expressions of one meaning share theirs."""
    shape = (len(job.video.frames), len(job.expressions))
    j, f, accuracy, robustness = (np.zeros(shape) for _ in range(4))
    meanings = [(e.anno_ids, e.obj_ids) for e in job.expressions]
    for i, frame in enumerate(job.video.frames):
        truths: dict[object, Mask | None] = {}
        foreground = job.foreground.mask(i) if job.foreground else None
        for k, expression in enumerate(job.expressions):
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
        for k, e in enumerate(job.expressions)
    ]


def _robustness(mask: Mask, truth: Mask, foreground: NDArray[np.bool_] | None) -> float:
    beside = int(np.count_nonzero(mask & ~truth))
    pixels = 0 if foreground is None else int(np.count_nonzero(foreground))
    return max(1 - beside / (pixels + 1e-6), 0.0)
