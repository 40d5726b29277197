"""Tracks: an object's masks over time, the one currency between model, jobs, learning and Label Studio.

A track's score of a frame is existence times predicted quality, or what a model's `Quality` says. With a mask it says
how sure the mask is. Without a mask it says how close the model came to finding one. `masks.flags` says where a person
should look first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray


class CocoRle(TypedDict):
    """A mask in COCO's compressed run-length encoding (pycocotools): `size` is [height, width]."""

    size: list[int]
    counts: str


@dataclass(frozen=True)
class ObjectPrompt:
    """What to segment, and under which name the result is shown.

    Attributes:
        object_id: stable id within a task, e.g. `obj1`; no spaces, no `-f`.
        label: the labelling config's label that its regions carry.
        expression: the referring expression, e.g. `the dog that jumps over the fence`.
    """

    object_id: str
    label: str
    expression: str

    @property
    def each(self) -> str | None:
        """The sentence whose things become objects of their own, where the expression asks for that."""
        return each_of(self.expression)


# `each: the dogs` makes an object of each dog; else a sentence is one object, however many things it means.
EACH = "each: "
_EACH = re.compile(r"each\s*:(?!\d)\s*(.*)", re.IGNORECASE | re.DOTALL)
_INSTANCE = re.compile(r"(\S+)\.[0-9]{1,4}")


def each_of(text: str) -> str | None:
    """Return the sentence of `each: the dogs`; None where the text does not begin like that."""
    match = _EACH.fullmatch(text.strip())
    return match[1].strip() if match else None


def prompt_of(object_id: str) -> str | None:
    """Return the id of the prompt that an instance comes from, `obj1` of `obj1.2`; None for any other object."""
    match = _INSTANCE.fullmatch(object_id)
    return match[1] if match else None


@dataclass(frozen=True)
class FrameMasks:
    """The masks of one frame, one per expression.

    Attributes:
        index: 0-based frame index.
        masks: bool [N, H, W].
        scores: f32 [N], 0..1, existence times predicted quality, or what the model's `Quality` makes of them.
    """

    index: int
    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]


@dataclass
class Track:
    """One object over time. Frames without the object are absent from `masks` but keep their score.

    Attributes:
        object_id, label, expression: as in `ObjectPrompt`.
        masks: 0-based frame index -> COCO RLE at the video's display size.
        scores: 0-based frame index -> score 0..1, of every frame that was looked at.
    """

    object_id: str
    label: str
    expression: str
    masks: dict[int, CocoRle] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Mean score of the frames that have a mask; 0.0 when there is none."""
        values = [self.scores[i] for i in self.masks if i in self.scores]
        return float(np.mean(values)) if values else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; frame indices become strings, as JSON demands."""
        return {
            "object_id": self.object_id,
            "label": self.label,
            "expression": self.expression,
            "masks": {str(i): dict(rle) for i, rle in sorted(self.masks.items())},
            "scores": {str(i): round(float(s), 6) for i, s in sorted(self.scores.items())},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Track:
        """Read what `to_json` wrote."""
        return cls(
            object_id=data["object_id"],
            label=data["label"],
            expression=data["expression"],
            masks={
                int(i): CocoRle(size=list(r["size"]), counts=r["counts"]) for i, r in data["masks"].items()
            },
            scores={int(i): float(s) for i, s in data["scores"].items()},
        )


def frames_with_masks(tracks: Iterable[Track]) -> set[int]:
    """Return the 0-based indices of the frames on which at least one track has a mask."""
    return {index for track in tracks for index in track.masks}
