"""The concept experiment: what fine-tuning on a few corrected clips is worth, and what it costs elsewhere.

A concept whose name and look the model has never seen (`concepts.py`); its clips count as corrected by their
truth. Measured before and after: J&F on clips of it that were neither trained on nor held out by the gate, and on the
embedded model's own held-out scenes by kind of expression. And the same with the corrections of the clips shuffled,
which must not be promoted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from lab.benchmarks.concepts import ZORBO, make_concept_clip
from lab.train_tiny.plain_measure import ABSENT, measure_plain
from svac_backend.learning.adapters import load_adapter, unload_adapter
from svac_backend.learning.examples import Example
from svac_backend.learning.finetune import FinetuneData, finetune
from svac_backend.learning.measure import mean_j_and_f, measure
from svac_backend.learning.options import TrainOptions, options_for
from svac_backend.learning.rehearsal import from_scene
from svac_backend.svac.model import Svac

CORRECTED_SEED, UNSEEN_SEED = 7000, 8000
Say = Callable[[str], None]


@dataclass(frozen=True)
class Learned:
    """What came out.

    Attributes:
        what: `corrections` or `shuffled corrections`.
        concept: J&F on unseen clips of the concept, before and after, 0..100.
        own: J&F on the embedded model's own held-out scenes, before and after: the mean over expressions.
        absent: per cent of frames left empty where the named colour is not there, before and after.
        kinds: `own` by kind of expression.
        promoted, reason: what the gate decided.
        steps: optimiser steps.
        minutes: of everything that a run does: measuring, training, measuring.
    """

    what: str
    concept: tuple[float, float]
    own: tuple[float, float]
    absent: tuple[float, float]
    kinds: dict[str, tuple[float, float]]
    promoted: bool
    reason: str
    steps: int
    minutes: float


def corrected(seeds: Sequence[int]) -> list[Example]:
    """Return clips of the concept as a person would have corrected them: the truth, every second frame drawn."""
    found = []
    for seed in seeds:
        clip = make_concept_clip(seed)
        said = [(ZORBO.expression, (len(clip.objects) - 1,))]
        made = from_scene(f"{ZORBO.name}-{seed}", lambda s=seed: make_concept_clip(s), clip, said)  # type: ignore[misc]
        for example in made:
            drawn = frozenset(i for i in example.drawn if i % 2 == 0)
            found.append(replace(example, drawn=drawn, accepted=example.drawn - drawn))
    return found


def shuffled(examples: Sequence[Example]) -> list[Example]:
    """Return each video with the masks of the next one: corrections that are wrong."""
    return [replace(e, masks=examples[(k + 1) % len(examples)].masks) for k, e in enumerate(examples)]


def run(
    out: Path, *, clips: int, unseen: int, scenes: int, options: TrainOptions | None, wrong: bool, say: Say
) -> list[Learned]:
    """Run the experiment; a run that was stopped goes on in the same folder.

    Args:
        out: folder of the runs and their reports.
        clips: that were corrected.
        unseen: clips of the concept to measure on.
        scenes: of the embedded model's own held-out set.
        options: of the training; None: those that suit the model.
        wrong: also learn from shuffled corrections.
        say: gets what happens, in words.
    """
    model = Svac.from_pretrained("svac-tiny", device="auto", dtype="float32")
    options = options or options_for(model.config)
    tests = corrected(range(UNSEEN_SEED, UNSEEN_SEED + unseen))
    right = corrected(range(CORRECTED_SEED, CORRECTED_SEED + clips))
    say("measuring the model as it is")
    before = figures(model, tests, scenes)
    results = []
    ways = {"corrections": right} | ({"shuffled corrections": shuffled(right)} if wrong else {})
    for what, examples in ways.items():
        folder = out / what.replace(" ", "-")
        began = time.monotonic()
        done = finetune(model, FinetuneData(examples), folder, options=options, progress=_told(say, what))
        minutes = (time.monotonic() - began) / 60
        say(f"{what}: {done.decision.reason}")
        assert done.adapter is not None
        load_adapter(model, done.adapter)
        after = figures(model, tests, scenes)
        unload_adapter(model)
        results.append(
            Learned(
                what,
                (before["concept"], after["concept"]),
                (before["own"], after["own"]),
                (before[ABSENT], after[ABSENT]),
                {k: (before[k], after[k]) for k in before if k not in ("concept", "own", ABSENT)},
                done.decision.promote,
                done.decision.reason,
                done.steps,
                minutes,
            )
        )
    (out / "learn.json").write_text(json.dumps([asdict(one) for one in results], indent=2) + "\n")
    return results


def figures(model: Svac, tests: Sequence[Example], scenes: int) -> dict[str, float]:
    """Return J&F of the concept, of the own held-out set (`own`, and by kind), and emptiness for absent objects."""
    found = {"concept": mean_j_and_f(measure(model, tests)) or 0.0}
    rows = measure_plain(model, seeds=range(scenes))
    kinds = {kind: row for kind, row in rows.items() if kind != ABSENT}
    total = sum(row.count for row in kinds.values())
    found["own"] = sum((row.j + row.f) / 2 * row.count for row in kinds.values()) / total
    found[ABSENT] = rows[ABSENT].j if ABSENT in rows else float("nan")
    return found | {kind: (row.j + row.f) / 2 for kind, row in kinds.items()}


def table(results: Sequence[Learned], clips: int) -> Table:
    """Return the figures side by side."""
    shown = Table(
        title=f"{clips} corrected clips of a new concept, {torch.get_num_threads()} torch thread(s)"
    )
    shown.add_column("J&F")
    for result in results:
        shown.add_column(result.what, justify="right")

    def row(name: str, pairs: Sequence[tuple[float, float]]) -> None:
        shown.add_row(name, *(f"{a:.1f} -> {b:.1f} ({b - a:+.1f})" for a, b in pairs))

    row("unseen clips of the concept", [r.concept for r in results])
    row("own held-out scenes", [r.own for r in results])
    for kind in results[0].kinds:
        row(f"  {kind}", [r.kinds[kind] for r in results])
    row("absent objects: empty frames, %", [r.absent for r in results])
    shown.add_row("promoted", *("yes" if r.promoted else "no" for r in results))
    shown.add_row("steps", *(str(r.steps) for r in results))
    shown.add_row("minutes, all in all", *(f"{r.minutes:.1f}" for r in results))
    return shown


def _told(say: Say, what: str) -> Callable[[float, str], None]:
    last = [-np.inf]

    def progress(done: float, message: str) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            say(f"{what}: {100 * done:.0f} %, {message}")

    return progress
