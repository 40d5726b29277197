"""How well a frame's score tells whether its mask is good: photographs made into clips, whose truth is known.

The photographs are those that `lab.train_tiny` keeps apart. Each clip is asked for by sentences, and its things are
shown by a click, a box or their true mask and carried on. AUROC is the chance that a frame with J below one half has
the lower certainty (the score; where nothing is drawn, one minus it); 0.5 is chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from lab.benchmarks.flags import WRONG, auroc
from lab.train_tiny.photo_words import Speaker
from lab.train_tiny.photographs import load_photographs
from lab.train_tiny.pseudo_videos import compose
from svac_backend.errors import SvacError
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.metrics import jaccard
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.pipeline import prelabel, propagate
from svac_backend.svac.model import Svac
from svac_backend.video.reader import ArrayVideo

Masks = NDArray[np.bool_]
# What is asked of a clip, and what is too small to be shown, as a share of the frame.
SENTENCES, OBJECTS, _SMALLEST = 4, 2, 0.004
_SEED = 21


@dataclass(frozen=True)
class Clip:
    """A clip with its truth.

    Attributes:
        frames: u8 [T, H, W, 3] RGB.
        said: sentences, and what each means, bool [T, H, W].
        things: bool [N, T, H, W].
    """

    frames: NDArray[np.uint8]
    said: dict[str, Masks]
    things: Masks


@dataclass
class Measured:
    """Frames that were asked for one way: how sure the model was, and J."""

    certainty: list[float] = field(default_factory=list)
    j: list[float] = field(default_factory=list)

    def add(self, track: Track, truth: Masks, frames: Sequence[int]) -> None:
        """Add a track's frames."""
        for i in frames:
            drawn, score = track.masks.get(i), track.scores[i]
            mask = np.zeros(truth.shape[1:], np.bool_) if drawn is None else from_coco(drawn).astype(np.bool_)
            self.certainty.append(score if drawn is not None else 1 - score)
            self.j.append(jaccard(truth[i], mask))

    @property
    def auroc(self) -> float:
        """See the module."""
        return auroc([1 - value for value in self.certainty], [value < WRONG for value in self.j])


def photographed(folder: Path, count: int, frames: int, size: int) -> Iterator[Clip]:
    """Yield clips made of the photographs that are kept apart."""
    photos, number = load_photographs(folder, "validation"), 0
    if not photos:
        raise SvacError(f"{folder} has no photographs.", "It holds coco, clothing and cats.")
    while count:
        rng = np.random.default_rng([_SEED, number])
        number += 1
        try:
            scene = compose(rng, photos, length=frames, paces=(0.25, 0.5, 1.0), whole=True)
            painted, masks = scene.paint(size)
            said = Speaker(scene.labels, scene.unmarked, painted, masks).say(rng, 3 * SENTENCES)
        except (ValueError, ZeroDivisionError):  # nothing to be seen, or nothing to be said of it
            continue
        meant = {
            s.text: masks[list(s.regions)].any(0) for s in said if s.kind not in ("relation", "position")
        }
        large = [n for n in range(len(masks)) if masks[n, 0].mean() > _SMALLEST]
        yield Clip(painted, dict(list(meant.items())[:SENTENCES]), masks[large[:OBJECTS]])
        count -= 1


def hints_of(mask: Masks) -> dict[str, FrameHint]:
    """Return what shows an object, bool [H, W]: its middle, its box and itself."""
    inside = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(inside.argmax()), mask.shape)
    rows, columns = np.nonzero(mask)
    box = float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
    return {
        "click": FrameHint(clicks=(Click(float(x), float(y), True),)),
        "box": FrameHint(box=box),
        "mask": FrameHint(mask=to_coco(mask)),
    }


def measure(model: Svac, clip: Clip, into: dict[str, Measured]) -> None:
    """Ask a model for what a clip shows in every way, and add what it was sure of."""
    video, every = ArrayVideo(clip.frames), range(len(clip.frames))
    prompts = [ObjectPrompt(f"obj{n}", "object", text) for n, text in enumerate(clip.said)]
    for track, truth in zip(prelabel(model, video, prompts), clip.said.values(), strict=True):
        into.setdefault("sentence", Measured()).add(track, truth, every)
    for thing in clip.things:
        for way, hint in hints_of(thing[0]).items():
            [track] = propagate(model, video, [Track("obj1", "object", "")], {"obj1": {0: hint}})
            into.setdefault(way, Measured()).add(track, thing, every[1:] if way == "mask" else every)


def table(found: dict[str, Measured], title: str) -> Table:
    """Return the result as a table."""
    shown = Table(title=title)
    for column in ("asked by", "frames", "mean J", "J under 0.5", "AUROC"):
        shown.add_column(column, justify="right")
    for way, one in found.items():
        wrong = np.mean([value < WRONG for value in one.j])
        shown.add_row(
            way, str(len(one.j)), f"{100 * np.mean(one.j):.0f}", f"{100 * wrong:.0f} %", f"{one.auroc:.2f}"
        )
    return shown
