"""J and F of a model on examples, measured as users run it: `Svac.segment` over the whole video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.learning.examples import Example
from svac_backend.masks.metrics import iou, j_and_f
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.svac.model import Svac

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class ExampleScore:
    """The score of one example.

    Attributes:
        j, f: means over the frames with known ground truth, 0..100.
        frame: the frame for a picture: the middle one of those that show the object.
        mask: the predicted mask there.
    """

    j: float
    f: float
    frame: int
    mask: CocoRle

    @property
    def j_and_f(self) -> float:
        """The mean of J and F."""
        return (self.j + self.f) / 2


def measure(
    model: Svac, examples: Sequence[Example], *, progress: Progress | None = None
) -> list[ExampleScore]:
    """Score every example, in order. A video is segmented once for all its expressions.

    Raises:
        SvacError: a video can't be read.
    """
    by_video: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        by_video.setdefault(example.video.key, []).append(number)
    scores: dict[int, ExampleScore] = {}
    for done, numbers in enumerate(by_video.values()):
        if progress:
            progress(done / len(by_video), f"video {done + 1} of {len(by_video)}")
        scores |= _video(model, [examples[n] for n in numbers], numbers)
    return [scores[number] for number in range(len(examples))]


def mean_j_and_f(scores: Sequence[ExampleScore]) -> float | None:
    """Return the mean J&F, 0..100; None without scores."""
    return float(np.mean([score.j_and_f for score in scores])) if scores else None


def fit(examples: Sequence[Example], scores: Sequence[ExampleScore]) -> tuple[float | None, float | None]:
    """Return how well masks fit the ground truth of their own videos and of other videos: mean IoUs, 0..100.

    If both are alike, the model ignores the video that it was shown. One frame of each example counts, scaled to one
    size; (None, None) without two videos that show something.
    """
    side = (96, 96)
    rows = []
    for example, score in zip(examples, scores, strict=True):
        if score.frame in example.masks:
            truth, mask = from_coco(example.masks[score.frame]), from_coco(score.mask)
            rows.append((example.video.key, _scaled(truth, side), _scaled(mask, side)))
    own = [iou(mask, truth) for _, truth, mask in rows]
    other = [iou(mask, truth) for key, _, mask in rows for another, truth, _ in rows if another != key]
    if not other:
        return None, None
    return 100 * float(np.mean(own)), 100 * float(np.mean(other))


def _scaled(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0


def _video(model: Svac, examples: Sequence[Example], numbers: Sequence[int]) -> dict[int, ExampleScore]:
    texts = list(dict.fromkeys(example.expression for example in examples))
    wanted = {frame for example in examples for frame in example.frames}
    found: dict[tuple[int, int], CocoRle] = {}
    with examples[0].video.open() as video:
        size = (video.info.height, video.info.width)
        if max(wanted, default=0) >= len(video):
            raise SvacError(
                f"A correction is for frame {max(wanted)}, but {examples[0].video.key} has {len(video)} frames.",
                "Check whether the video was replaced after it was corrected; if so, delete the correction.",
            )
        for frame in model.segment(video, texts):
            if frame.index in wanted:
                for text, mask in enumerate(frame.masks):
                    found[text, frame.index] = to_coco(mask)
    result = {}
    for number, example in zip(numbers, examples, strict=True):
        text = texts.index(example.expression)
        score = j_and_f(
            (from_coco(found[text, i]) for i in example.frames),
            (truth_of(example, i, size) for i in example.frames),
        )
        shown = [i for i in example.frames if i in example.masks] or list(example.frames)
        middle = shown[len(shown) // 2]
        result[number] = ExampleScore(100 * score.j, 100 * score.f, middle, found[text, middle])
    return result


def truth_of(example: Example, frame: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the ground-truth mask bool [H, W] of a frame that has one; size is (height, width)."""
    if frame in example.masks:
        return from_coco(example.masks[frame])
    return np.zeros(size, np.bool_)
