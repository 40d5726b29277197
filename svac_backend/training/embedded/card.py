"""The model card that ships beside the weights: what it is, what it was measured at, what it does not understand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from svac_backend.training.embedded.measure import ABSENT, Figures
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


def write_card(folder: Path, figures: Mapping[str, Figures], steps: Steps) -> None:
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
- Trained by `scripts/train_embedded.py` with {steps.masks} + {steps.looking} + {steps.language} + {steps.joint} steps \
(masks, looking, language, joint).

## Measured

On scenes of seeds 0 and up, none of which was trained on; J and F in per cent, means over expressions. "Chance" is
the J of a random object of the scene.

| expressions | count | J | F | chance |
|---|---|---|---|---|
{rows}

Objects that are not there (`the purple object` without one): {empty}.

## What it does not understand yet

- At or near chance: {missing}.
- Nothing but shapes: names of things (`dog`, `car`) are heard as "object".
- Order in time, relations, several objects in one expression.
- SAM-2's memory is in the file but untrained; each frame is decoded on its own.
""")
