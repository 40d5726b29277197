"""`each:` on made clips with 2 to 4 like things: how many are found with one id from first to last, and IDF1.

The things of a clip share colour and shape, so that nothing but place and motion tells them apart; they pass and hide
each other. A true instance is found when one object is its match (IoU 0.5 or more, by the exact assignment of each
frame) on at least `MOSTLY` of the frames on which it is to be seen, near its first and its last one, too. IDF1 (Ristani
et al. 2016) is py-motmetrics' own, over all clips.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import motmetrics
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track as shown_progress
from rich.table import Table

from svac_backend.masks.rle import shares, to_coco
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.pipeline import prelabel
from svac_backend.svac.model import Svac
from svac_backend.synthetic.scene import VALIDATION_SEEDS, Scene, SceneConfig, make_scene
from svac_backend.video.reader import ArrayVideo

FIRST_SEED = VALIDATION_SEEDS.start + 9000
# Of the frames on which a thing is to be seen; nearer its first and last one than so many frames; and seen at all.
MOSTLY, EDGE, SEEN = 0.8, 3, 0.0008
LOOKS = (
    ("red", "circle"),
    ("blue", "star"),
    ("green", "square"),
    ("yellow", "triangle"),
    ("purple", "heart"),
)


@dataclass
class Found:
    """What was measured.

    Attributes:
        instances: true ones; kept: those found with one id from first to last; made: objects that came out.
    """

    clips: int = 0
    instances: int = 0
    kept: int = 0
    made: int = 0
    seconds: float = 0.0
    frames: int = 0
    accumulators: list[motmetrics.MOTAccumulator] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Return IDF1, identity precision and recall, and the number of switches, as py-motmetrics counts them."""
        host = motmetrics.metrics.create()
        names = ["idf1", "idp", "idr", "num_switches"]
        every = host.compute_many(self.accumulators, metrics=names, generate_overall=True)
        return {name: float(every.loc["OVERALL", name]) for name in names}


def like_things(seed: int, width: int, height: int, frames: int) -> tuple[Scene, str]:
    """Make a clip with 2 to 4 things of one colour and shape, and the sentence that means them all."""
    color, shape = LOOKS[seed % len(LOOKS)]
    config = SceneConfig(
        width=width,
        height=height,
        frames=frames,
        min_objects=2,
        max_objects=4,
        colors=(color,),
        shapes=(shape,),
        sizes=("small", "medium"),
    )
    return make_scene(seed, config), f"all {color} {shape}s"


def kept_ids(truth: NDArray[np.bool_], tracks: list[Track], found: Found) -> int:
    """Count the true instances, bool [N, T, H, W], that one id has from first to last; feed py-motmetrics, too."""
    seen = truth.mean((2, 3)) >= SEEN
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    matches: list[dict[int, int]] = [{} for _ in truth]
    for frame in range(truth.shape[1]):
        real = [n for n in range(len(truth)) if seen[n, frame]]
        made = [k for k, track in enumerate(tracks) if frame in track.masks]
        masks = [to_coco(truth[n, frame]) for n in real]
        others = [tracks[k].masks[frame] for k in made]
        a, b = shares(masks, others), shares(others, masks).T
        ious = np.divide(1, 1 / np.maximum(a, 1e-9) + 1 / np.maximum(b, 1e-9) - 1)
        distances = np.where(ious >= 0.5, 1 - ious, np.nan)
        accumulator.update(real, made, distances)
        events = accumulator.mot_events.loc[frame] if real or made else None
        if events is not None:
            for event in events.itertuples():
                if event.Type in ("MATCH", "SWITCH"):
                    matches[int(event.OId)][frame] = int(event.HId)
    found.accumulators.append(accumulator)
    return sum(_is_kept(np.flatnonzero(seen[n]), matched) for n, matched in enumerate(matches))


def _is_kept(seen: NDArray[np.int64], matched: dict[int, int]) -> bool:
    """Whether one id holds on a thing's frames; see the module."""
    if not len(seen):
        return False
    ids, counts = np.unique(list(matched.values()), return_counts=True)
    if not len(ids) or counts.max() < MOSTLY * len(seen):
        return False
    frames = [f for f, one in matched.items() if one == ids[counts.argmax()]]
    return bool(min(frames) - seen[0] <= EDGE and seen[-1] - max(frames) <= EDGE)


def run(model: str, *, clips: int, width: int, height: int, frames: int, verbose: bool = False) -> Found:
    """Measure on so many clips."""
    loaded, found = Svac.from_pretrained(model), Found()
    console = Console(stderr=True)
    for seed in shown_progress(
        range(FIRST_SEED, FIRST_SEED + clips), "telling apart", console=console, transient=True
    ):
        scene, sentence = like_things(seed, width, height, frames)
        begun = time.perf_counter()
        prompt = ObjectPrompt("obj1", "thing", f"each: {sentence}")
        tracks = prelabel(loaded, ArrayVideo(scene.frames), [prompt], specks=0.01)
        found.seconds += time.perf_counter() - begun
        tracks = [track for track in tracks if track.masks]
        kept = kept_ids(scene.masks, tracks, found)
        found.clips += 1
        found.frames += frames
        found.instances += len(scene.masks)
        found.kept += kept
        found.made += len(tracks)
        if verbose:
            console.print(f"{seed} {sentence}: {kept} of {len(scene.masks)} kept, {len(tracks)} made")
    return found


def table(found: Found, title: str) -> Table:
    """Return the result as a table."""
    shown = Table(title=title)
    figures = found.figures()
    cells = {
        "clips": str(found.clips),
        "true instances": str(found.instances),
        "objects made": str(found.made),
        "one id from first to last": f"{found.kept} ({100 * found.kept / max(1, found.instances):.0f} %)",
        "IDF1": f"{100 * figures['idf1']:.1f}",
        "IDP / IDR": f"{100 * figures['idp']:.1f} / {100 * figures['idr']:.1f}",
        "switches": f"{figures['num_switches']:.0f}",
        "frames/s": f"{found.frames / max(found.seconds, 1e-9):.1f}",
    }
    for name in cells:
        shown.add_column(name, justify="right")
    shown.add_row(*cells.values())
    return shown
