"""J and F by kind of expression on the plain scenes (`synthetic.scene`): a small test of colours, shapes and motions.

`measure` has the figures of the model card, on the rich scenes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from svac_backend.masks.metrics import j_and_f
from svac_backend.svac.model import Svac
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.synthetic.shapes import COLORS
from svac_backend.video.reader import ArrayVideo

ABSENT = "absent"
# Real videos are squashed into the model's squares, so generated ones are too.
PLAIN = SceneConfig(aspects=(1.0, 4 / 3, 16 / 9, 9 / 16))


@dataclass(frozen=True)
class PlainFigures:
    """Means over the expressions of one kind.

    Attributes:
        count: number of expressions.
        j, f: region and boundary measure, 0..100. For `absent`: `j` is the share of frames left empty.
        chance: J of a random object of the scene in place of the right one, 0..100.
    """

    count: int
    j: float
    f: float
    chance: float


def measure_plain(
    model: Svac, scenes: SceneConfig = PLAIN, *, seeds: range, per_kind: int = 1
) -> dict[str, PlainFigures]:
    """Measure through the same path that users take (`Svac.segment`).

    Args:
        model: the model.
        scenes: what they look like.
        seeds: validation seeds.
        per_kind: expressions of each kind and scene.
    """
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for seed in seeds:
        scene = make_scene(seed, scenes)
        rng = np.random.default_rng(seed)
        chosen: list[tuple[str, str, int]] = []
        for named in sorted({e.kind for e in scene.expressions}):
            of_kind = [e for e in scene.expressions if e.kind == named]
            for k in rng.permutation(len(of_kind))[:per_kind]:
                chosen.append((named, of_kind[k].text, of_kind[k].targets[0]))
        absent = sorted(set(COLORS) - {o.color for o in scene.objects})
        if absent:
            chosen.append((ABSENT, f"the {rng.choice(absent)} object", -1))
        frames = list(model.segment(ArrayVideo(scene.frames), [text for _, text, _ in chosen]))
        for n, (kind, _, target) in enumerate(chosen):
            masks = [frame.masks[n] for frame in frames]
            if target < 0:
                empty = float(np.mean([not mask.any() for mask in masks]))
                found[kind].append((empty, empty, 0.0))
                continue
            score = j_and_f(masks, list(scene.masks[target]))
            chance = float(
                np.mean([j_and_f(list(other), list(scene.masks[target])).j for other in scene.masks])
            )
            found[kind].append((score.j, score.f, chance))
    return {
        kind: PlainFigures(len(rows), *(round(100 * float(value), 1) for value in np.mean(rows, axis=0)))
        for kind, rows in sorted(found.items())
    }
