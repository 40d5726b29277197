"""J and F of a model on examples, through the way that users take: `Svac.segment` over the whole video.

Replay: what a model must not forget, as it answers now.

Of generated scenes the truth is known, and the embedded model is wrong about many of their sentences. Told the truth
about what it can't tell, it learns to answer nothing, everywhere. So it is told the truth where it knows it, and its
own answer elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.learning.examples import Example
from svac_backend.masks.metrics import iou, j_and_f
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.svac.astc import plan
from svac_backend.svac.model import Svac

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class ExampleScore:
    """How one example was met.

    Attributes:
        j, f: means over the frames whose truth is known, 0..100.
        frame: one frame for a picture: of those that show the object, the middle one.
        mask: what was predicted there.
    """

    j: float
    f: float
    frame: int
    mask: CocoRle

    @property
    def j_and_f(self) -> float:
        """Their mean."""
        return (self.j + self.f) / 2


def evaluate(
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
    """Return the mean J&F, 0..100; None of nothing."""
    return float(np.mean([score.j_and_f for score in scores])) if scores else None


def fit(examples: Sequence[Example], scores: Sequence[ExampleScore]) -> tuple[float | None, float | None]:
    """Return how well masks fit the truth of their own videos, and that of other videos: mean IoUs, 0..100.

    Where both are alike, the model says nothing about the video that it was shown. One frame of each example counts,
    scaled to one size; None without two videos that show something.
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
                f"A correction is of frame {max(wanted)}, and {examples[0].video.key} has {len(video)} frames.",
                "Look whether the video was replaced after it was corrected; if so, delete the correction.",
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
    """Return the true mask bool [H, W] of a frame whose truth is known; size is (height, width)."""
    if frame in example.masks:
        return from_coco(example.masks[frame])
    return np.zeros(size, np.bool_)


Masks = dict[str, CocoRle]
Answered = tuple[list[Masks | None], list[NDArray[np.float32]]]

# Mean IoU from which a model is taken to know what a sentence means.
_KNOWN = 0.5


def as_answered(
    model: Svac, examples: Sequence[Example], kept: Path, mark: str, *, progress: Progress | None = None
) -> list[Example]:
    """Return the examples with the truth where the model knows it, and with its own answer elsewhere.

    Of what is there, the [SEG] embeddings are to be kept too.

    Args:
        model: as it answers now.
        examples: whose truth is known on every frame of `Example.frames`.
        kept: folder of the answers; those of an earlier attempt with the same mark are used again.
        mark: names model and examples.
        progress: called with a fraction 0..1 and a message.
    """
    found = _read(kept, mark)
    if found is None:
        found = _answers(model, examples, progress)
        _write(kept, mark, *found)
    answers, anchors = found
    return [
        replace(
            example,
            masks=example.masks if answer is None else {int(i): rle for i, rle in answer.items()},
            anchor=anchor if anchor.size else None,
        )
        for example, answer, anchor in zip(examples, answers, anchors, strict=True)
    ]


def _answers(model: Svac, examples: Sequence[Example], progress: Progress | None) -> Answered:
    """Return the model's answer for each example, None where the truth is to be told, and its embeddings."""
    by_video: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        if example.masks:  # of what is not there, the truth is told
            by_video.setdefault(example.video.key, []).append(number)
    found: list[Masks | None] = [None] * len(examples)
    anchors: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(examples)
    for done, numbers in enumerate(by_video.values()):
        if progress:
            progress(done / len(by_video), f"scene {done + 1} of {len(by_video)}")
        chosen = [examples[n] for n in numbers]
        texts = [example.expression for example in chosen]
        masks: list[Masks] = [{} for _ in numbers]
        fits: list[list[float]] = [[] for _ in numbers]
        with chosen[0].video.open() as video:
            embeddings = model.seg_embeddings(video, plan(len(video), model.config.method), texts)
            for frame in model.segment(video, texts):
                for k, (mask, example) in enumerate(zip(frame.masks, chosen, strict=True)):
                    if frame.index not in example.frames:
                        continue
                    fits[k].append(iou(mask, truth_of(example, frame.index, (mask.shape[0], mask.shape[1]))))
                    if mask.any():
                        masks[k][str(frame.index)] = to_coco(mask)
        for k, number in enumerate(numbers):
            anchors[number] = embeddings[k].float().cpu().numpy()
            if sum(fits[k]) < _KNOWN * len(fits[k]):
                found[number] = masks[k]
    return found, anchors


def _write(folder: Path, mark: str, answers: list[Masks | None], anchors: list[NDArray[np.float32]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "anchors.npz").open("wb") as file:
        np.savez(file, *anchors)
    # Last: without this file the rest does not count.
    part = folder / "answers.json.part"
    part.write_text(json.dumps({"mark": mark, "answers": answers}))
    part.replace(folder / "answers.json")


def _read(folder: Path, mark: str) -> Answered | None:
    """Read the answers of an earlier attempt; None without such."""
    try:
        kept = json.loads((folder / "answers.json").read_text())
        if kept["mark"] != mark:
            return None
        with np.load(folder / "anchors.npz", allow_pickle=False) as file:
            return kept["answers"], [file[f"arr_{k}"] for k in range(len(kept["answers"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
