"""What the embedded model understands: J&F by kind of expression on the rich held-out split, the official way.

The same as `write_mevis(folder, SEEDS, expressions=PER_SCENE, level="rich")` and `svac-backend evaluate --dataset
mevis`: the masks of `Svac.segment` are written in MeViS's format, read again and scored. Beside it stands what blind
choices would score.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lab.mevis import PER_SCENE, SEEDS, VALIDATION, write_mevis
from lab.train_tiny.figures import ABSENT, ExpressionResult, Measured
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, open_benchmark, read_json
from svac_backend.evaluation.predict import predict
from svac_backend.evaluation.predictions import Predictions
from svac_backend.evaluation.score import ExpressionScore, score
from svac_backend.evaluation.truth import Truth, open_truth
from svac_backend.masks.metrics import j_and_f
from svac_backend.settings import Settings
from svac_backend.svac.files.weights import version_of
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene

Progress = Callable[[float, str], None]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
_DATASET: Literal["mevis"] = "mevis"
_SPLIT = "valid_u"


@dataclass(frozen=True)
class Split:
    """The rich held-out split on disk.

    Attributes:
        benchmark, truth: as `svac-backend evaluate` reads them.
        rows: what is asked and what blind choices score; j and f are 0.
    """

    benchmark: Benchmark
    truth: Truth
    rows: tuple[ExpressionResult, ...]

    def only(self, kind: str) -> Split:
        """Return the expressions of one kind, and the videos that have any."""
        videos = (
            replace(v, expressions=tuple(e for e in v.expressions if e.type == kind))
            for v in self.benchmark.videos
        )
        kept = tuple(video for video in videos if video.expressions)
        rows = tuple(row for row in self.rows if row.kind == kind)
        return Split(replace(self.benchmark, videos=kept), self.truth, rows)


def write_split(
    root: Path,
    *,
    seeds: Sequence[int] = SEEDS,
    config: RichConfig = VALIDATION,
    expressions: int | None = PER_SCENE,
) -> Split:
    """Write the split, `root/mevis/valid_u`, in place of what is there, and score blind choices.

    Args:
        root: what `svac-backend evaluate --dataset mevis --root` is given.
        seeds, config, expressions: as in `write_mevis`; the defaults are the whole split (90 videos).

    Raises:
        SvacError: the folder can't be written.
    """
    folder = root / _DATASET / _SPLIT
    shutil.rmtree(folder, ignore_errors=True)
    write_mevis(folder, seeds, config, expressions=expressions, level="rich")
    benchmark = open_benchmark(_DATASET, root, _SPLIT)
    truth = open_truth(benchmark)
    if truth is None:
        raise SvacError(f"{folder} has no masks.", "Write it again on a disk with space.")
    said = read_json(folder / "meta_expressions.json")["videos"]
    rows = []
    for seed, video in zip(sorted(seeds), benchmark.videos, strict=True):
        scene = make_rich_scene(seed, config)
        blind: dict[tuple[int, ...], tuple[float, float]] = {}
        for expression in video.expressions:
            entry = said[video.name]["expressions"][expression.id]
            if expression.obj_ids not in blind:
                blind[expression.obj_ids] = _blind(scene.masks, expression.obj_ids)
            rows.append(
                _asked(video.name, expression.id, entry, blind[expression.obj_ids], len(video.frames))
            )
    return Split(benchmark, truth, tuple(rows))


def measure(
    model: str | Path,
    split: Split,
    out: Path,
    *,
    device: str = "auto",
    dtype: Dtype = "auto",
    threads: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Measured:
    """Predict every expression of the split and score it.

    Args:
        model: `svac-tiny`, or a folder with a model.
        split: from `write_split`.
        out: folder of the predictions; what is in it is deleted.
        device, dtype, threads: as in `Settings`.
        workers: processes.
        progress: called with a fraction 0..1 and a message.

    Raises:
        SvacError: the model or the split can't be used.
    """
    settings = Settings(
        _env_file=None,
        model=str(model),
        model_revision=None,
        preset=None,
        generate=False,
        original_sam=None,
        compile=False,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    shutil.rmtree(out, ignore_errors=True)
    predictions = Predictions(out, split.benchmark)
    with predictions.locked():
        predict(
            split.benchmark, predictions, settings, workers=workers, progress=_told(progress, "predicting")
        )
    scores = score(
        split.benchmark, split.truth, predictions, workers=workers, progress=_told(progress, "scoring")
    )
    found = {(s.video, s.expression): s for s in scores}
    return Measured(version_of(settings), tuple(scored(row, found[row.key]) for row in split.rows))


def scored(row: ExpressionResult, score: ExpressionScore) -> ExpressionResult:
    """Return a row with its score."""
    drawn = sum(j < 1 for j in score.j_per_frame) if row.kind == ABSENT else None
    return ExpressionResult(**{**vars(row), "j": 100 * score.j, "f": 100 * score.f, "drawn": drawn})


def _asked(
    video: str, expression: str, entry: dict[str, Any], blind: tuple[float, float], frames: int
) -> ExpressionResult:
    return ExpressionResult(
        video,
        expression,
        entry["exp"],
        entry["kind"],
        entry["group"],
        bool(entry["needs_time"]),
        tuple(entry["novel"]),
        0.0,
        0.0,
        *blind,
        frames,
        None,
    )


def _blind(masks: NDArray[np.bool_], targets: tuple[int, ...]) -> tuple[float, float]:
    """Return J&F, 0..100, of any one thing (of masks [N, T, H, W]) and of one that is not meant, both at random."""
    truth = np.asarray(masks[list(targets)].any(axis=0))
    scores = [100 * j_and_f(thing, truth).j_and_f for thing in masks]
    others = [value for n, value in enumerate(scores) if n not in targets]
    return float(np.mean(scores)), float(np.mean(others)) if others else 0.0


def _told(progress: Progress | None, what: str) -> Callable[[float], None] | None:
    return None if progress is None else lambda done: progress(done, what)
