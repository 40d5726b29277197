"""A whole fine-tuning: split, old scores, training, new scores, the gate, a report. It resumes after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from svac_backend.atomic import atomic_write
from svac_backend.errors import NotEnoughData
from svac_backend.learning.adapters import load_adapter, unload_adapter
from svac_backend.learning.examples import Batches, Example, split_by_video
from svac_backend.learning.gate import Decision, GateOptions, Scores, decide, too_few
from svac_backend.learning.measure import ExampleScore, fit, mean_j_and_f, measure
from svac_backend.learning.options import TrainOptions, options_for
from svac_backend.learning.rehearsal import SCENES, as_answered, generated
from svac_backend.learning.report import write_report
from svac_backend.learning.train import train
from svac_backend.learning.videos import ClipCache
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.files.adapters import verify_adapter
from svac_backend.svac.files.weights import EMBEDDED
from svac_backend.svac.model import Svac
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED

Progress = Callable[[float, str], None]

# Seeds of generated scenes: the model was trained on those that are replayed, never on the regression set.
REPLAY_SEEDS = range(FIRST_TRAIN_SEED, FIRST_TRAIN_SEED + 120)
REGRESSION_SEEDS = range(5000, 5024)
# Progress, 0..1, after each stage.
_BEFORE, _TRAINED = 0.08, 0.92


@dataclass(frozen=True)
class FinetuneData:
    """What a fine-tuning learns from and is judged by.

    Attributes:
        examples: all corrections; a share of the videos is held out.
        replay: what is trained on besides the corrections; None: generated scenes for the embedded model, else nothing.
        regression: what must not get worse; None: generated scenes for the embedded model, else nothing.
    """

    examples: Sequence[Example]
    replay: Sequence[Example] | None = None
    regression: Sequence[Example] | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a fine-tuning.

    Attributes:
        adapter: the new version's folder; None without a training.
        decision: whether it is promoted, and why.
        steps: optimiser steps.
        seconds: time spent training.
        report: the page; None without a training.
        finished: False if it was stopped; called again with the same folder, it resumes.
    """

    adapter: Path | None
    decision: Decision
    steps: int = 0
    seconds: float = 0.0
    report: Path | None = None
    finished: bool = True


def finetune(
    model: Svac,
    data: FinetuneData,
    out: Path,
    *,
    options: TrainOptions | None = None,
    gate: GateOptions | None = None,
    parent: Path | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Learn from corrections and judge the new version. The model is left without any adapter.

    Args:
        model: the base model.
        data: what to learn from, and what to judge by.
        out: folder of the run. Called again with the same arguments, it resumes where it was killed or stopped.
        options: options of the training; None: those that suit the model.
        gate: what the new version must achieve; None: the defaults.
        parent: adapter of the version that serves now: the new one starts from it and is compared with it.
        progress: called with a fraction 0..1 and a message; an exception that it raises ends the run.
        should_stop: asked after each step.

    Raises:
        SvacError: a video can't be read, memory ran out, the parent is damaged, or the folder can't be written.
    """
    unload_adapter(model)
    options, gate = options or options_for(model.config), gate or GateOptions()
    if missing := too_few(len({e.video.key for e in data.examples}), gate):
        return Outcome(None, missing)
    learn, held = split_by_video(data.examples, share=gate.held_out_share, least=gate.min_held_out)
    own = is_embedded(model.config)
    regression, replay = data.regression, data.replay
    if regression is None:
        regression = generated(REGRESSION_SEEDS, SCENES) if own else []

    def told(start: float, stop: float, what: str) -> Progress | None:
        if progress is None:
            return None
        return lambda done, message: progress(start + (stop - start) * done, f"{what}, {message}")

    tests = [*held, *regression]
    try:
        if parent is not None:
            load_adapter(model, parent)
        measuring = told(0.0, 0.4 * _BEFORE, "measuring the old version")
        old = _scored(model, tests, out / "before.json", parent, measuring)
        if replay is None:
            replay = generated(REPLAY_SEEDS, SCENES) if own else []
            asking = told(0.4 * _BEFORE, _BEFORE, "asking the old version")
            replay = as_answered(model, replay, out / "replay", _mark(replay, parent), progress=asking)
        batches = Batches(
            learn,
            replay,
            ClipCache(model.config, out / "cache"),
            batch=options.batch,
            replay_share=options.replay_share,
            frames_per_clip=options.frames_per_clip,
            seed=options.seed,
        )
        trained = train(
            model,
            batches,
            out,
            options,
            parent=parent,
            progress=told(_BEFORE, _TRAINED, "training"),
            should_stop=should_stop,
        )
        if trained.adapter is None:
            stopped = Decision(False, f"Stopped after {trained.steps} steps; it resumes from there.")
            return Outcome(None, stopped, trained.steps, trained.seconds, finished=False)
        info = load_adapter(model, trained.adapter)
        new = _scored(
            model,
            tests,
            out / "after.json",
            trained.adapter,
            told(_TRAINED, 1.0, "measuring the new version"),
        )
    finally:
        unload_adapter(model)
    before, after = figures_of(held, old), figures_of(held, new)
    decision = decide(before, after, gate)
    figures = {
        **decision.figures,
        "learned_from": float(len(learn)),
        "held_out": float(len(held)),
        "steps": float(trained.steps),
        "minutes": trained.seconds / 60,
    }
    decision = replace(decision, figures=figures)
    report = write_report(
        out / "report.html",
        decision,
        info,
        curves=trained.curves,
        held=list(zip(held, old[: len(held)], new[: len(held)], strict=True)),
        regression=list(zip(regression, old[len(held) :], new[len(held) :], strict=True)),
        ended=trained.ended,
    )
    (out / "outcome.json").write_text(json.dumps(asdict(decision), indent=2) + "\n", encoding="utf-8")
    return Outcome(trained.adapter, decision, trained.steps, trained.seconds, report)


def figures_of(held: Sequence[Example], scores: Sequence[ExampleScore]) -> Scores:
    """Return a version's scores, given those of the held-out examples followed by those of the regression set.

    Raises:
        SvacError: nothing is held out.
    """
    of_held = scores[: len(held)]
    mean = mean_j_and_f(of_held)
    if mean is None:
        raise NotEnoughData("No correction is held out, so nothing can be judged.", "Correct more videos.")
    own, chance = fit(held, of_held)
    return Scores(mean, mean_j_and_f(scores[len(held) :]), chance, own)


def is_embedded(config: SvacConfig) -> bool:
    """Return whether a model has the embedded model's architecture, which generated scenes are made for."""
    shipped = SvacConfig.load(EMBEDDED["svac-tiny"] / "config.json")
    return (config.vision, config.language, config.sam) == (shipped.vision, shipped.language, shipped.sam)


def _scored(
    model: Svac, tests: Sequence[Example], path: Path, adapter: Path | None, progress: Progress | None
) -> list[ExampleScore]:
    """Evaluate, or read the scores that an earlier attempt of this run stored for the same version and examples."""
    mark = _mark(tests, adapter)
    if path.is_file():
        try:
            kept = json.loads(path.read_text())
            if kept["mark"] == mark:
                return [ExampleScore(**row) for row in kept["scores"]]
        except (ValueError, KeyError, TypeError):
            path.unlink()
    scores = measure(model, tests, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps({"mark": mark, "scores": [asdict(score) for score in scores]}))
    return scores


def _mark(examples: Sequence[Example], adapter: Path | None) -> str:
    """Return a hash that identifies some examples and the version that is scored on them."""
    said = [(e.video.key, e.expression, e.frames, len(e.masks)) for e in examples]
    version = verify_adapter(adapter).sha256 if adapter else None
    return hashlib.sha256(repr((said, version)).encode()).hexdigest()
