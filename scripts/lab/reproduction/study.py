"""The runs of the study, one after another; what is there is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.reproduction.adaptation import Trainee, adapt
from lab.reproduction.cost import Cost, measure_cost
from lab.reproduction.estimate import estimates
from lab.reproduction.evaluation import Score, evaluate
from lab.reproduction.plan import PlannedRun, StudySettings, runs_of
from lab.reproduction.results import Results
from lab.reproduction.scenes import Scored, scored_scenes
from lab.reproduction.variants import Variant
from svac_backend.svac.model import Svac

Say = Callable[[str], None]


class Study:
    """Runs what is missing.

    Args:
        model: in float32; its weights are changed and, at the end, what they were.
        settings: of all runs.
        out: folder of `results.jsonl` and `curves.jsonl`.
        say: is told what happens.
    """

    def __init__(self, model: Svac, settings: StudySettings, out: Path, say: Say) -> None:
        self.model, self.settings, self.out, self.say = model, settings, out, say
        self.results = Results(out, settings.as_json())
        self.trainee = Trainee(model)
        self._weights: tuple[object, ...] | None = None
        self._scenes: tuple[int, list[Scored]] | None = None

    def run(self, claims: Sequence[str], seeds: Sequence[int]) -> Results:
        """Run every claim with every seed."""
        runs = runs_of(self.model.config, self.settings, claims, seeds)
        todo = [run for run in runs if list(self._missing(run))]
        self.say(f"{len(runs)} runs, {len(runs) - len(todo)} of them are there.")
        if todo:
            guess = estimates(self.trainee, self.settings, todo)
            self.say(f"About {_minutes(sum(guess))} for {len(todo)} runs.")
            began, spent = time.monotonic(), 0.0
            for number, run in enumerate(todo):
                started = time.monotonic()
                summary = self._one(run)
                spent += guess[number]
                pace = (time.monotonic() - began) / max(spent, 1e-9)
                self.say(
                    f"{number + 1} of {len(todo)}: seed {run.seed}, {run.variant.label}: {summary},"
                    f" {time.monotonic() - started:.1f} s; about {_minutes(pace * sum(guess[number + 1 :]))} left."
                )
        self.trainee.reset()
        self._weights = None
        return self.results

    def _missing(self, run: PlannedRun) -> Iterator[tuple[str, Variant]]:
        for claim, variant in run.wanted:
            if self.results.find(claim, variant.name, run.seed) is None:
                yield claim, variant

    def _one(self, run: PlannedRun) -> str:
        """Run, and write a line for each claim; returns what came out."""
        started = time.monotonic()
        line = self.results.same(run.identity, run.seed)
        if line is None:
            self._adapt(run)
            scenes = self._scored(run.seed)
            scores = evaluate(self.model, run.variant, scenes)
            cost = measure_cost(
                self.model, run.variant, scenes[0].frames(run.variant.seen(self.settings.length))
            )
            line = self._line(run, scores, cost, time.monotonic() - started)
        for claim, variant in self._missing(run):
            named = {key: getattr(variant, key) for key in ("label", "series", "weights_of")}
            self.results.add({**line, "claim": claim, "variant": variant.name, **named})
        mean = sum(row[3] for row in line["scores"]) / len(line["scores"])
        return f"J&F {mean:.1f}"

    def _line(self, run: PlannedRun, scores: Sequence[Score], cost: Cost, seconds: float) -> dict[str, Any]:
        variant = run.variant
        return {
            "seed": run.seed,
            "identity": list(run.identity),
            "frames": variant.frames,
            "images": variant.images,
            "tokens": variant.tokens,
            "segs": variant.segs,
            **asdict(cost),
            "device": self.model.device.type,
            "seconds": round(seconds, 1),
            "scores": [[s.kind, s.needs_time, s.speed, s.j_and_f] for s in scores],
        }

    def _adapt(self, run: PlannedRun) -> None:
        wanted = (run.seed, *run.trained_as.identity)
        if self._weights == wanted:
            return
        self._weights = None
        self.out.mkdir(parents=True, exist_ok=True)
        adapt(
            self.trainee,
            run.trained_as,
            self.settings.adaptation,
            seed=run.seed,
            length=self.settings.length,
            log=self.out / "curves.jsonl",
            name=f"seed {run.seed}, {run.trained_as.label}",
        )
        self._weights = wanted

    def _scored(self, seed: int) -> list[Scored]:
        if self._scenes is None or self._scenes[0] != seed:
            s = self.settings
            self._scenes = None  # frees those of the last seed first
            made = scored_scenes(
                self.model, seed=seed, count=s.scenes, length=s.length, scored=s.scored, sentences=s.sentences
            )
            self._scenes = (seed, made)
        return self._scenes[1]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
