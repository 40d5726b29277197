"""Measures a model folder and writes its card: the split, the official figures, the controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lab.mevis import SEEDS
from lab.train_tiny.card import write_card
from lab.train_tiny.controls import (
    BLIND,
    FULL,
    OTHER_SENTENCE,
    OTHER_VIDEO,
    SHUFFLED,
    SINGLE,
    Controls,
    run_controls,
)
from lab.train_tiny.figures import ABSENT, MOTION, Measured, absence_of, by_kind
from lab.train_tiny.measure import Split, measure, write_split
from lab.train_tiny.memory_measure import MemoryFigures


def measure_all(
    model: str | Path,
    work: Path,
    *,
    videos: int | None = None,
    control_videos: int | None = None,
    workers: int = 1,
    device: str = "auto",
    split: Split | None = None,
    motions: Split | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Measured, Controls, Controls]:
    """Measure a model on the benchmark's split; returns its figures, the controls, and those of motion.

    Args:
        model: `svac-tiny`, or a folder with a model that has a [SEG] per clip.
        work: gets `measured.json`, `controls.json`, `motion.json`, the split (`rich`; `rich-all` with every sentence)
            and the predictions.
        videos: of the split; None takes all 90.
        control_videos: of these, for the controls; None takes all.
        workers: processes that predict and score; the controls run in this one.
        device: as in `Svac.from_pretrained`.
        split: another split than the benchmark's.
        motions: other sentences of motion than all that can be said of the benchmark's videos.
        say: gets the figures, in lines.

    Raises:
        SvacError: the model can't be used, or a folder can't be written.
    """
    split = split or write_split(work / "rich", seeds=SEEDS[:videos])
    measured = measure(model, split, work / "predicted", device=device, dtype="float32", workers=workers)
    measured.save(work / "measured.json")
    for kind, row in by_kind(measured.rows).items():
        say(
            f"{kind:15} n={row.count:3} J&F={row.j_and_f:5.1f} J={row.j:5.1f} F={row.f:5.1f} chance={row.chance:5.1f}"
        )
    if absence := absence_of(measured.rows):
        say(
            f"absent: {absence.drawn:.0f} % of {absence.count} get a mask, {absence.frames:.0f} % of their frames"
        )
    controls = run_controls(model, split, videos=control_videos, device=device, dtype="float32")
    controls.save(work / "controls.json")
    for name in (FULL, OTHER_SENTENCE, BLIND, OTHER_VIDEO, SHUFFLED):
        if figures := controls.of(name, lambda row: row.kind != ABSENT):
            say(
                f"{name:17} J&F={figures.j_and_f:5.1f} chance={figures.chance:5.1f} wrong thing={figures.other:5.1f}"
            )
    if gain := controls.difference(lambda row: row.needs_time and row.kind != ABSENT):
        say(
            f"over the {gain.best}, where time is needed: {gain.points:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
        )
    # A split has few sentences of a kind; whether time counts is asked with all that there are.
    motions = motions or write_split(work / "rich-all", seeds=SEEDS[:videos], expressions=None).only(MOTION)
    motion = run_controls(model, motions, controls=(SHUFFLED, *SINGLE), device=device, dtype="float32")
    motion.save(work / "motion.json")
    for name in (FULL, SHUFFLED, *SINGLE):
        if figures := motion.of(name, lambda _: True):
            say(
                f"motion, {name:15} n={figures.count} J&F={figures.j_and_f:5.1f} chance={figures.chance:5.1f}"
            )
    if gain := motion.difference(lambda _: True):
        say(f"motion over the {gain.best}: {gain.points:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})")
    return measured, controls, motion


def measure_and_write_card(
    folder: Path,
    work: Path,
    travelled: MemoryFigures,
    steps: Mapping[str, int],
    *,
    videos: int | None = None,
    control_videos: int | None = None,
    workers: int = 1,
    device: str = "auto",
    split: Split | None = None,
    motions: Split | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Measured, Controls]:
    """Measure a model's folder and write its card there; returns the figures.

    Args:
        folder: a published model; gets `README.md`.
        work: as in `measure_all`.
        travelled: how memory tracks.
        steps: training steps by stage.
        videos, control_videos, workers, device, split, motions, say: as in `measure_all`.

    Raises:
        SvacError: the model can't be used, or a folder can't be written.
    """
    measured, controls, motion = measure_all(
        folder,
        work,
        videos=videos,
        control_videos=control_videos,
        workers=workers,
        device=device,
        split=split,
        motions=motions,
        say=say,
    )
    write_card(folder, measured, controls, motion, travelled, steps)
    return measured, controls
