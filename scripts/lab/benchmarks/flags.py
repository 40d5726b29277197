"""How well doubts find true errors: propagated masks of made clips, whose truth is known.

Every object of a clip is shown once by its true mask, on the first frame or in the middle, and carried to all others.
A frame is an error where J is below 0.5, or has fallen by 0.25 below the best between the shown frame and this one.
AUROC is the chance that an error is more in doubt than a frame without one; 0.5 is chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track as shown_progress
from rich.table import Table

from svac_backend.errors import SvacError
from svac_backend.masks.flags import doubts
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.metrics import jaccard
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track
from svac_backend.pipeline import propagate
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.scene import RichConfig, RichScene, make_rich_scene
from svac_backend.synthetic.scene import VALIDATION_SEEDS, Scene, SceneConfig, make_scene
from svac_backend.video.reader import ArrayVideo

# The measure was chosen on the thousand before.
FIRST_SEED = VALIDATION_SEEDS.start + 8000
# Below this J, or so much below the best on the way, a mask is wrong.
WRONG, FALLEN = 0.5, 0.25
# What is too small to be shown, as a share of the frame, and the most objects of a clip.
_SMALLEST, _MOST = 0.003, 3


@dataclass
class Measured:
    """What was measured on clips of one kind; arrays have an entry for each frame and object that was predicted.

    Attributes:
        doubt: as `masks.flags` has it; score: what the model's score alone says; wrong: whether it is an error.
    """

    kind: str
    clips: int = 0
    doubt: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    wrong: list[bool] = field(default_factory=list)

    @property
    def found_in_worst_tenth(self) -> float:
        """Share of the errors that lie in the most doubtful tenth of all frames."""
        order = np.argsort(-np.asarray(self.doubt), kind="stable")
        worst = np.asarray(self.wrong)[order[: max(1, len(order) // 10)]]
        return float(worst.sum() / max(1, sum(self.wrong)))


def auroc(values: Sequence[float], wrong: Sequence[bool]) -> float:
    """Return the chance that a wrong one has the higher value (half a chance where equal); NaN without both kinds."""
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    is_wrong = np.asarray(wrong, dtype=bool)
    bad, good = int(is_wrong.sum()), int((~is_wrong).sum())
    return (
        float((ranks[is_wrong].sum() - bad * (bad + 1) / 2) / (bad * good)) if bad and good else float("nan")
    )


def errors(j: NDArray[np.float64], shown: int) -> NDArray[np.bool_]:
    """Return on which frames J, f64 [T], says that a mask is wrong; see the module. The shown frame is none."""
    best = np.zeros(len(j))
    for step in (1, -1):
        highest = 0.0
        for i in range(shown + step, len(j) if step > 0 else -1, step):
            best[i] = highest = max(highest, j[i])
    wrong = (j < WRONG) | (j < best - FALLEN)
    wrong[shown] = False
    return wrong


def clips(count: int, width: int, height: int, frames: int) -> Iterator[tuple[str, Scene | RichScene]]:
    """Yield so many rich clips and as many plain ones, with their kind."""
    if FIRST_SEED + count > VALIDATION_SEEDS.stop:
        raise SvacError(f"There are no {count} such clips.", "Ask for fewer.")
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        rich = RichConfig(width=width, height=height, frames=frames)
        yield "rich", make_rich_scene(seed, rich, words=False)
        yield "plain", make_scene(seed, SceneConfig(width=width, height=height, frames=frames))


def measure(model: Svac, scene: Scene | RichScene, shown: int, into: Measured) -> None:
    """Carry what a scene shows on one frame to the others, and add each frame's doubt and truth."""
    count, height, width = scene.masks.shape[1:]
    chosen = [n for n in range(len(scene.masks)) if scene.masks[n, shown].mean() >= _SMALLEST][:_MOST]
    if not chosen:
        return
    tracks = [Track(f"obj{n}", "object", "") for n in chosen]
    hints = {f"obj{n}": {shown: FrameHint(mask=to_coco(scene.masks[n, shown]))} for n in chosen}
    found = propagate(model, ArrayVideo(scene.frames), tracks, hints, specks=0.01)
    doubt = doubts(found, range(count))
    into.clips += 1
    nothing = np.zeros((height, width), np.bool_)
    for n, track in zip(chosen, found, strict=True):
        masks = [from_coco(track.masks[i]) if i in track.masks else nothing for i in range(count)]
        wrong = errors(
            np.array([jaccard(mask, truth) for mask, truth in zip(masks, scene.masks[n], strict=True)]), shown
        )
        for i in range(count):
            if i != shown:
                into.doubt.append(doubt[track.object_id][i])
                score = track.scores[i]
                into.score.append(1 - score if i in track.masks else score)
                into.wrong.append(bool(wrong[i]))


def run(model: str, *, count: int, width: int, height: int, frames: int) -> list[Measured]:
    """Measure on rich and on plain clips; returns both, and all together."""
    loaded = Svac.from_pretrained(model)
    found = {"rich": Measured("rich"), "plain": Measured("plain")}
    console = Console(stderr=True)
    every = clips(count, width, height, frames)
    for number, (kind, scene) in enumerate(
        shown_progress(every, "propagating", total=2 * count, console=console, transient=True)
    ):
        measure(loaded, scene, 0 if number // 2 % 2 else frames // 2, found[kind])
    both = Measured("all")
    for one in found.values():
        both.clips += one.clips
        both.doubt += one.doubt
        both.score += one.score
        both.wrong += one.wrong
    return [*found.values(), both]


def table(found: Sequence[Measured], title: str) -> Table:
    """Return the result as a table."""
    shown = Table(title=title)
    columns = (
        "clips",
        "",
        "masks",
        "errors",
        "AUROC of the doubt",
        "of the score alone",
        "errors in the worst tenth",
    )
    for column in columns:
        shown.add_column(column, justify="right")
    for one in found:
        shown.add_row(
            one.kind,
            str(one.clips),
            str(len(one.wrong)),
            str(sum(one.wrong)),
            f"{auroc(one.doubt, one.wrong):.3f}",
            f"{auroc(one.score, one.wrong):.3f}",
            f"{100 * one.found_in_worst_tenth:.0f} %",
        )
    return shown
