"""The model card that ships beside the weights: what it is, what it was measured at, what it does not understand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from svac_backend.training.embedded.measure import ABSENT, Figures
from svac_backend.training.embedded.memory_measure import MemoryFigures
from svac_backend.training.embedded.recipe import CONFIG, Steps

_MEANING = {
    "color": "by colour (`the red object`)",
    "color_shape": "by colour and shape (`the red circle`)",
    "shape": "by shape (`the circle`)",
    "size": "by size (`the largest object`)",
    "motion": "by motion (`the object moving left`)",
}
# Less than this far above a random object of the same scene is not understanding.
_MARGIN = 15.0


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


def write_card(folder: Path, figures: Mapping[str, Figures], travelled: MemoryFigures, steps: Steps) -> None:
    """Write `README.md` into a model folder."""
    size = (folder / "model.safetensors").stat().st_size / 1e6
    method = CONFIG.method
    rows = "\n".join(
        f"| {_MEANING[kind]} | {row.count} | {row.j:.1f} | {row.f:.1f} | {row.chance:.1f} |"
        for kind, row in figures.items()
        if kind in _MEANING
    )
    known = [kind for kind, row in figures.items() if kind in _MEANING and row.j >= row.chance + _MARGIN]
    unknown = [kind for kind in _MEANING if kind in figures and kind not in known]
    absent = figures.get(ABSENT)
    empty = f"{absent.j:.1f} % of the frames stay empty" if absent else "not measured"
    missing = ", ".join(_MEANING[kind] for kind in unknown) or "none of the kinds above"
    (folder / "README.md").write_text(f"""# svac-tiny

The embedded model of svac-backend: SVAC's architecture in small (InternVL vision tower, pixel shuffle, Qwen2, [SEG]
tokens, SAM-2), trained from nothing on videos made by `svac_backend/synthetic`. It is for trying things out, for
tests and for the demo. It has never seen a photograph: on real videos it finds colours at best.

- {size:.1f} MB of fp16 safetensors; SAM-2 part at {CONFIG.sam.image_size} px, vision tower at \
{CONFIG.vision.image_size} px; {method.num_clips} clips of {method.frames_per_clip} frames, grid \
{method.grid[0]}x{method.grid[1]}, one [SEG] per clip.
- Trained by `scripts/train_embedded.py` with {steps.masks} + {steps.looking} + {steps.language} + {steps.joint} + \
{steps.points} + {steps.memory} steps (masks, looking, language, joint, points, memory).

## Measured

On scenes of seeds 0 and up, none of which was trained on; J and F in per cent, means over expressions. "Chance" is
the J of a random object of the scene.

| expressions | count | J | F | chance |
|---|---|---|---|---|
{rows}

Objects that are not there (`the purple object` without one): {empty}.

## Corrections

{_corrections(travelled)}

## What it does not understand yet

- At or near chance: {missing}.
- Nothing but shapes: names of things (`dog`, `car`) are heard as "object".
- Order in time, relations, several objects in one expression.
- Expressions are decoded frame by frame; memory serves corrections only.
""")


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
