"""A training's curves: reading and drawing them, and estimating the time left. Free of torch: the pages use it, too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FILE = "curves.jsonl"
_CURVES = {
    "loss": "loss",
    "iou": "IoU of the masks in training",
    "lm": "answer's cross-entropy",
    "lr": "rate",
}


def read_curves(path: Path) -> list[dict[str, float]]:
    """Return the lines of `curves.jsonl`, without a last line that was cut off."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def drawn_curves(path: Path) -> list[dict[str, str]]:
    """Return the curves as points of a 320 x 120 SVG, with ends and bounds; none for a run with a single line."""
    lines = read_curves(path)
    found = []
    for key, name in _CURVES.items():
        at = [(line["step"], line[key]) for line in lines if key in line]
        if len(at) < 2:
            continue
        steps, values = np.array(at).T
        low, high = float(values.min()), float(values.max())
        x = 320 * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
        y = 115 - 110 * (values - low) / ((high - low) or 1)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        ends = {"first": values[0], "last": values[-1], "low": low, "high": high}
        told = {key: f"{value:.3g}" for key, value in ends.items()}
        steps_told = {"from": f"{steps[0]:.0f}", "to": f"{steps[-1]:.0f}"}
        found.append({"name": name, "points": points, **told, **steps_told})
    return found


def seconds_left(path: Path) -> float | None:
    """Return the seconds that the training itself will still take at its present pace; None before its first line."""
    lines = read_curves(path)
    if not lines or not lines[-1].get("of") or not lines[-1]["step"]:
        return None
    step, of, seconds = (lines[-1][key] for key in ("step", "of", "seconds"))
    return max(0.0, of - step) * seconds / step
