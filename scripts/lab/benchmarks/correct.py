"""What corrections are worth: a wrong object is pre-labelled on purpose, the truth is shown on a few frames and carried
to the others, and J and F of the others are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track as shown_progress
from rich.table import Table

from svac_backend.cli.prelabel import masks_of_frame
from svac_backend.errors import SvacError
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.metrics import j_and_f, jaccard
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.pipeline import prelabel, propagate
from svac_backend.svac.files.weights import model_version
from svac_backend.svac.model import Svac
from svac_backend.synthetic.scene import VALIDATION_SEEDS, Scene, SceneConfig, make_scene
from svac_backend.video.reader import ArrayVideo

# Validation seeds that nothing else measures on.
FIRST_SEED = VALIDATION_SEEDS.start + 7000
CORRECTIONS = (0, 1, 2, 4)
# An object that is hardly there can't be shown; one that the truth hides for long is another question.
_SMALLEST_SHARE, _VISIBLE_SHARE = 0.002, 0.9
# A frame counts as wrong below this J.
_WRONG = 0.5

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class WrongClip:
    """A scene, an object that is wanted, and words for another one.

    Attributes:
        scene: the clip with its truth.
        target: number of the wanted object.
        wrong: words that name another object.
    """

    scene: Scene
    target: int
    wrong: str

    @property
    def truth(self) -> Masks:
        """Masks of the wanted object, bool [T, H, W]."""
        return self.scene.masks[self.target]


@dataclass
class CorrectionResult:
    """What was measured with one number of corrections; lists have one entry per clip, 0..100.

    Attributes:
        corrections: corrected frames per clip.
        j, f: of SAM-2's memory, on the frames that were not corrected.
        copied: J&F where each of these frames gets the nearest corrected mask unchanged.
    """

    corrections: int
    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    copied: list[float] = field(default_factory=list)

    @property
    def j_and_f(self) -> NDArray[np.float64]:
        """J&F of each clip."""
        return (np.array(self.j) + np.array(self.f)) / 2


def make_clips(count: int, config: SceneConfig) -> list[WrongClip]:
    """Choose scenes of held-out seeds with a wanted object that shows on nearly all frames, and another with a name."""
    clips: list[WrongClip] = []
    seed = FIRST_SEED
    while len(clips) < count:
        if seed not in VALIDATION_SEEDS:
            raise SvacError(f"There are no {count} such clips.", "Ask for fewer.")
        scene = make_scene(seed, config)
        seed += 1
        shares = (scene.masks.mean((2, 3)) >= _SMALLEST_SHARE).mean(1)
        good = [n for n in range(len(scene.masks)) if shares[n] >= _VISIBLE_SHARE]
        # Which of them is wanted changes from clip to clip: later objects lie above earlier ones.
        for target in good[len(clips) % max(1, len(good)) :]:
            others = [
                e for e in scene.expressions if e.kind == "color" and e.targets[0] in set(good) - {target}
            ]
            if others:
                clips.append(WrongClip(scene, target, others[0].text))
                break
    return clips


def corrected_frames(masks: Masks, truth: Masks, count: int) -> list[int]:
    """Return which frames an annotator corrects: the first wrong one, and from there evenly to the end."""
    wrong = (i for i in range(len(truth)) if jaccard(masks[i], truth[i]) < _WRONG)
    first = next(wrong, 0)
    return sorted({first + k * (len(truth) - first) // count for k in range(count)})


def run(
    model: str, *, clips: int, frames: int, width: int, height: int, counts: Sequence[int] = CORRECTIONS
) -> tuple[list[CorrectionResult], list[float], str]:
    """Measure; returns the results, J&F of the pre-labels' own (wrong) objects, and the model's version."""
    loaded, results = Svac.from_pretrained(model), [CorrectionResult(count) for count in counts]
    found_wrong = []
    made = make_clips(clips, SceneConfig(width=width, height=height, frames=frames))
    for clip in shown_progress(made, "correcting", console=Console(stderr=True), transient=True):
        video, truth = ArrayVideo(clip.scene.frames), clip.truth
        (track,) = prelabel(loaded, video, [ObjectPrompt("obj1", "Object", clip.wrong)])
        before = _masks(track, truth)
        (named,) = (e.targets[0] for e in clip.scene.expressions if e.text == clip.wrong)
        found_wrong.append(100 * j_and_f(before, clip.scene.masks[named]).j_and_f)
        for result in results:
            shown = corrected_frames(before, truth, result.corrections) if result.corrections else []
            prompts = {"obj1": {i: FrameHint(mask=to_coco(truth[i])) for i in shown}}
            (after,) = propagate(loaded, video, [track], prompts)
            rest = [i for i in range(len(truth)) if i not in shown]
            score = j_and_f(_masks(after, truth)[rest], truth[rest])
            result.j.append(100 * score.j)
            result.f.append(100 * score.f)
            copies = truth[_nearest(rest, shown)] if shown else before
            copied = j_and_f(copies, truth[rest])
            # As `j_and_f` of a result is made: the mean of percentages.
            result.copied.append((100 * copied.j + 100 * copied.f) / 2)
    return results, found_wrong, model_version(model)


def _nearest(frames: Sequence[int], shown: Sequence[int]) -> list[int]:
    """Return for each frame the corrected one nearest to it, the earlier of two."""
    distances = np.abs(np.subtract.outer(np.array(frames), np.array(shown)))
    return [shown[k] for k in distances.argmin(1)]


def _masks(track: Track, truth: Masks) -> Masks:
    height, width = truth.shape[1:]
    return np.stack([masks_of_frame([track], i, height, width)[0] for i in range(len(truth))])


COLUMNS = ("corrected frames", "J", "F", "J&F", "sd", "worst clip", "gain", "copied J&F")


def rows(results: Sequence[CorrectionResult]) -> list[list[str]]:
    """Return the table's cells; `gain` is against no correction, `copied` the nearest corrected mask unchanged."""
    found = []
    for result in results:
        both = result.j_and_f
        gain = both.mean() - results[0].j_and_f.mean()
        found.append(
            [
                str(result.corrections),
                *(f"{np.mean(values):.1f}" for values in (result.j, result.f, both)),
                f"{both.std():.1f}",
                f"{both.min():.1f}",
                f"{gain:+.1f}" if result.corrections else "",
                f"{np.mean(result.copied):.1f}" if result.corrections else "",
            ]
        )
    return found


def table(results: Sequence[CorrectionResult], title: str) -> Table:
    """Return the result as a table."""
    found = Table(title=title)
    for column in COLUMNS:
        found.add_column(column, justify="right")
    for row in rows(results):
        found.add_row(*row)
    return found


def describe(
    results: Sequence[CorrectionResult], found_wrong: Sequence[float], size: str, version: str
) -> str:
    """Return what was measured on, in a sentence."""
    return (
        f"{len(results[0].j)} synthetic clips of {size} that nothing was trained on, {version}; "
        f"another object pre-labelled (J&F {np.mean(found_wrong):.1f} against that other object)"
    )


def write_markdown(path: Path, results: Sequence[CorrectionResult], title: str) -> None:
    """Write the result as a table in markdown, with its date."""
    lines = [
        f"{title}; {datetime.now(UTC):%d %B %Y}.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---:|" * len(COLUMNS),
        *("| " + " | ".join(row) + " |" for row in rows(results)),
        "",
    ]
    try:
        path.write_text("\n".join(lines), encoding="utf-8")
    except OSError as error:
        raise SvacError(f"{path} cannot be written: {error.strerror}.", "Give another --markdown.") from error
