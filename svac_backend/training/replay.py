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

from svac_backend.masks.metrics import iou
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.svac.model import Svac
from svac_backend.training.evaluation import truth_of
from svac_backend.training.examples import Example

Progress = Callable[[float, str], None]

# Mean IoU from which a model is taken to know what a sentence means.
_KNOWN = 0.5


def as_answered(
    model: Svac, examples: Sequence[Example], kept: Path, mark: str, *, progress: Progress | None = None
) -> list[Example]:
    """Return the examples with the truth where the model knows it, and with its own answer elsewhere.

    Args:
        model: as it answers now.
        examples: whose truth is known on every frame of `Example.frames`.
        kept: file of the answers; those of an earlier attempt with the same mark are used again.
        mark: names model and examples.
        progress: called with a fraction 0..1 and a message.
    """
    answers = _read(kept, mark)
    if answers is None:
        answers = _answers(model, examples, progress)
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_text(json.dumps({"mark": mark, "answers": answers}))
        part.replace(kept)
    return [
        example if answer is None else replace(example, masks={int(i): rle for i, rle in answer.items()})
        for example, answer in zip(examples, answers, strict=True)
    ]


def _answers(
    model: Svac, examples: Sequence[Example], progress: Progress | None
) -> list[dict[str, CocoRle] | None]:
    """Return the model's answer for each example; None where the truth is to be told."""
    by_video: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        if example.masks:  # of what is not there, the truth is told
            by_video.setdefault(example.video.key, []).append(number)
    found: list[dict[str, CocoRle] | None] = [None] * len(examples)
    for done, numbers in enumerate(by_video.values()):
        if progress:
            progress(done / len(by_video), f"scene {done + 1} of {len(by_video)}")
        texts = [examples[n].expression for n in numbers]
        masks: list[dict[str, CocoRle]] = [{} for _ in numbers]
        fits: list[list[float]] = [[] for _ in numbers]
        with examples[numbers[0]].video.open() as video:
            for frame in model.segment(video, texts):
                for k, mask in enumerate(frame.masks):
                    example = examples[numbers[k]]
                    if frame.index in example.frames:
                        fits[k].append(iou(mask, truth_of(example, frame.index, mask.shape)))
                        if mask.any():
                            masks[k][str(frame.index)] = to_coco(mask)
        for k, number in enumerate(numbers):
            if sum(fits[k]) < _KNOWN * len(fits[k]):
                found[number] = masks[k]
    return found


def _read(path: Path, mark: str) -> list[dict[str, CocoRle] | None] | None:
    """Read the answers of an earlier attempt; None without such."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text())
        return kept["answers"] if kept["mark"] == mark else None
    except (ValueError, KeyError, TypeError):
        return None
