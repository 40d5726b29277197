"""The model card that ships beside the weights: what it is, what it was measured at, what it does not understand."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from safetensors import safe_open

from lab.train_tiny.card_tables import (
    MOST_DRAWN,
    NEEDS_TIME,
    asked_table,
    by_novelty,
    controls_table,
    gains,
    listed,
    measured_table,
    written,
)
from lab.train_tiny.controls import BLIND, OTHER_SENTENCE, OTHER_VIDEO, Controls
from lab.train_tiny.figures import ABSENT, Measured, absence_of, by_kind, mean_of
from lab.train_tiny.memory_measure import MemoryFigures
from svac_backend.svac.config import SvacConfig

# Less than this above a random thing of the same scene is not understanding; under `_OFTEN_WRONG` it is no help.
_MARGIN, _OFTEN_WRONG = 15.0, 50.0
# So much lower on words that training did not have, or above a wrong thing with a wrong sentence, is worth saying.
_WORTH_SAYING = 5.0
_WAYS = {
    "copied": "the mask copied unchanged",
    "forward": "one mask, forwards",
    "backward": "one mask, backwards",
    "two masks": "masks on frames 0 and 15",
    "click then memory": "one click, forwards",
}
_POINTINGS = {
    "click": "one click on the object",
    "click and negative": "and one on another object",
    "box": "a box",
    "box and click": "a box and a click",
}
_DISTANCES = (1, 2, 4, 8, 12, 15)


def write_card(
    folder: Path,
    measured: Measured,
    controls: Controls,
    motion: Controls,
    travelled: MemoryFigures,
    steps: Mapping[str, int],
) -> None:
    """Write `README.md` into a model folder.

    Args:
        folder: with config.json and model.safetensors.
        measured, controls: of these weights.
        motion: controls on all sentences of motion.
        travelled: what corrections are worth.
        steps: optimiser steps by stage.
    """
    config = SvacConfig.load(folder / "config.json")
    method = config.method
    weights = folder / "model.safetensors"
    (folder / "README.md").write_text(f"""# svac-tiny

The embedded model of svac-backend: SVAC's architecture in small (InternVL vision tower, pixel shuffle, Qwen2, [SEG]
tokens, SAM-2), trained from nothing on videos made by `svac_backend/synthetic`. It is for trying things out, for
tests and for the demo. {_seen(config)}

- {_parameters(weights) / 1e6:.1f} M parameters, {weights.stat().st_size / 1e6:.1f} MB of fp16 safetensors; \
SAM-2 part at {config.sam.image_size} px, vision tower at {config.vision.image_size} px; {method.num_clips} clips of \
{method.frames_per_clip} frames, grid {method.grid[0]}x{method.grid[1]}, one [SEG] per clip.
- Trained by `scripts/train_tiny.py` with {" + ".join(str(count) for count in steps.values())} steps \
({", ".join(steps)}).

## Measured

{measured_table(measured)}

## Asked for

{asked_table(measured, motion)}

## Controls

{controls_table(controls, motion)}

## Corrections

{_corrections(travelled)}

## What it does not understand yet

{_not_yet(measured, controls)}
""")


def _seen(config: SvacConfig) -> str:
    """Say whether it has seen photographs."""
    if config.hints is None:
        return "It has never seen a photograph."
    return (
        f"A second SAM-2, at {config.hints.image_size} px, has seen photographs: it takes what a person shows "
        "(a click, a box, a corrected mask)\nand, told by a language model of its own, sentences about real video."
    )


def _not_yet(measured: Measured, controls: Controls) -> str:
    """Return the list of what the figures say it can't do, and of what it was never taught."""
    kinds = {kind: row for kind, row in by_kind(measured.rows).items() if kind != ABSENT}
    guessed = [kind for kind, row in kinds.items() if row.j_and_f < row.chance + _MARGIN]
    wrong = [kind for kind, row in kinds.items() if kind not in guessed and row.j_and_f < _OFTEN_WRONG]
    said = []
    if guessed:
        said.append(f"At or near chance: {listed(guessed)}.")
    if wrong:
        said.append(f"More often wrong than right (J&F under {_OFTEN_WRONG:.0f}): {listed(wrong)}.")
    gain = gains(controls)[NEEDS_TIME]
    if gain and gain.low <= 0:
        said.append(f"Time: all frames gain nothing certain over one frame, {written(gain)} points.")
    shown = [row for row in measured.rows if row.kind != ABSENT]
    exchanged = controls.of(OTHER_SENTENCE, lambda row: row.kind != ABSENT)
    if exchanged and exchanged.j_and_f > exchanged.other + _WORTH_SAYING:
        said.append(
            f"The sentence does not decide alone: with another one J&F is {exchanged.j_and_f:.1f}, a wrong thing's is "
            f"{exchanged.other:.1f}."
        )
    blindly = controls.of(BLIND, lambda row: row.kind != ABSENT)
    if blindly and blindly.j_and_f > blindly.chance + _WORTH_SAYING:
        said.append(
            f"The scenes are alike: of a model that sees another video J&F is {blindly.j_and_f:.1f}, chance is "
            f"{blindly.chance:.1f}."
        )
    elsewhere = controls.of(OTHER_VIDEO, lambda row: row.kind != ABSENT)
    if elsewhere and elsewhere.j_and_f > elsewhere.chance + _WORTH_SAYING:
        said.append(
            f"The masks do not hang on what the language model sees alone: shown another video, it leaves J&F at "
            f"{elsewhere.j_and_f:.1f}, chance is {elsewhere.chance:.1f}. SAM-2 finds what the words say by itself."
        )
    absence = absence_of(measured.rows)
    if absence and absence.drawn > MOST_DRAWN:
        said.append(f"Things that are not there: {absence.drawn:.0f} % of them get a mask.")
    novel = by_novelty(shown)
    known, *new = (mean_of(name, rows) for name, rows in novel.items())
    said += [
        f"Words: with {row.name}, J&F is {row.j_and_f:.1f} in place of {known.j_and_f:.1f}."
        for row in new
        if row.j_and_f < known.j_and_f - _WORTH_SAYING
    ]
    said += [
        "Words beyond those of the generated sentences, and the kinds of things that training never shows.",
        "In real video: rarer things, colours, places, relations and actions; which of several of a kind is meant; "
        "parts of things; what is said of a part of the video.",
        "Expressions are decoded frame by frame; memory serves corrections only.",
    ]
    return "\n".join(f"- {line}" for line in said)


def _parameters(weights: Path) -> int:
    """Return the number of parameters of a safetensors file."""
    with safe_open(weights, framework="numpy") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _corrections(travelled: MemoryFigures) -> str:
    """Return what a person's masks, clicks and boxes are worth."""
    head = " | ".join(str(d) for d in _DISTANCES)
    rows = []
    for name, meaning in _WAYS.items():
        values = travelled[name]
        # A frame that was given is not predicted.
        cells = ["given" if name == "two masks" and d == 15 else f"{values[d]:.0f}" for d in _DISTANCES]
        predicted = values[1:-1] if name == "two masks" else values[1:]
        rows.append(f"| {meaning} | {' | '.join(cells)} | {sum(predicted) / len(predicted):.1f} |")
    lines = "\n".join(rows)
    shown = "\n".join(f"| {meaning} | {travelled[name][0]:.1f} |" for name, meaning in _POINTINGS.items())
    return f"""J in per cent by the number of frames from the correction, on clips of 20 frames of held-out scenes.

| what was given | {head} | mean |
|---|{"---|" * (len(_DISTANCES) + 1)}
{lines}

Clicks and boxes, J on the frame that they are on:

| what was given | J |
|---|---|
{shown}

Objects that are covered or leave the picture: {travelled["hidden"][0]:.0f} % of the frames without them stay empty,
and {travelled["seen"][0]:.0f} % of the frames with them say so. J of objects that came back:
{travelled["came back"][0]:.0f}; of those that never left: {travelled["never left"][0]:.0f}."""
