"""How long runs will take, from one scene and one training step of the model's own way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.reproduction.adaptation import Trainee, losses
from lab.reproduction.cost import Cost, measure_cost, prefill_work
from lab.reproduction.evaluation import evaluate
from lab.reproduction.plan import PlannedRun, StudySettings
from lab.reproduction.scenes import lesson, look, scored_scenes
from lab.reproduction.seeing import Viewer
from lab.reproduction.variants import Variant, own_astc
from svac_backend.svac.model import Svac

# However few tokens a variant has, this share of the work stays: painting, masks, scores.
_LEAST = 0.2


@dataclass(frozen=True)
class TimedProbe:
    """What the model's own way took.

    Attributes:
        making: seconds to make a scored scene.
        scoring: to score it.
        learning: to make a training scene and learn from it; 0 where nothing is trained.
        cost: of one prefill.
    """

    making: float
    scoring: float
    learning: float
    cost: Cost


def estimates(trainee: Trainee, settings: StudySettings, runs: Sequence[PlannedRun]) -> list[float]:
    """Return about how many seconds each of the runs takes, one after another."""
    model, options = trainee.model, settings.adaptation
    own = own_astc(model.config)
    probe = _probe(model, settings, own, runs[0].seed)
    seconds, last_seed, last_weights = [], None, None
    for run in runs:
        longer = _longer(model, run.variant, own, probe.cost)
        total = settings.scenes * max(probe.scoring + longer, _LEAST * probe.scoring) + 2 * longer
        if run.seed != last_seed:
            total += settings.scenes * probe.making
        weights = (run.seed, *run.trained_as.identity)
        if weights != last_weights:
            # A step goes forward and about twice as far back.
            more = 3 * _longer(model, run.trained_as, own, probe.cost)
            each = max(probe.learning + more, _LEAST * probe.learning)
            total += options.steps * options.scenes * each
        last_seed, last_weights = run.seed, weights
        seconds.append(total)
    return seconds


def _probe(model: Svac, settings: StudySettings, own: Variant, seed: int) -> TimedProbe:
    s, options = settings, settings.adaptation
    making = time.perf_counter()
    scenes = scored_scenes(model, seed=seed, count=1, length=s.length, scored=s.scored, sentences=s.sentences)
    scoring = time.perf_counter()
    evaluate(model, own, scenes)
    learning = time.perf_counter()
    if options.steps:
        config, rng = look(model, s.length, "train"), np.random.default_rng(0)
        one = lesson(config, rng, own.seen(s.length), frames=options.frames, sentences=options.sentences)
        losses(Viewer(model, own), one, s.length)[0].backward()
        model.zero_grad(set_to_none=True)
    done = time.perf_counter()
    cost = measure_cost(model, own, scenes[0].frames(own.seen(s.length)))
    return TimedProbe(scoring - making, learning - scoring, done - learning, cost)


def _longer(model: Svac, variant: Variant, own: Variant, cost: Cost) -> float:
    """Return by how many seconds one scene takes longer than the model's own way: vision and prefill."""
    # Beside the visual tokens stand image marks and text: about 3 an image, and 40.
    there, here = (prefill_work(model.config.language, v.tokens + 3 * v.images + 40) for v in (variant, own))
    prefill = cost.prefill_ms * (there / here - 1)
    vision = cost.vision_ms * (variant.images / own.images - 1)
    return (prefill + vision) / 1000
