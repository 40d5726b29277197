"""Replay: what a model must not forget, as it answers now.

Of generated scenes the truth is known, and the embedded model is wrong about many of their sentences. Told the truth
about what it can't tell, it learns to answer nothing, everywhere. So it is told the truth where it knows it, and its
own answer elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svac_backend.masks.metrics import iou
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.svac.clips import plan
from svac_backend.svac.model import Svac
from svac_backend.training.evaluation import truth_of
from svac_backend.training.examples import Example

Progress = Callable[[float, str], None]
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
