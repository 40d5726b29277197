"""What the editor was sent, and how to replace it.

Two habits of Label Studio 1.23.2 decide the form of an answer to an interactive call (both observed, neither is
documented):

- A suggestion with the id of a region that was loaded with the task replaces it on the screen, but until someone looks
  at its frame, drafts and submissions still carry the old mask. So a new region gets a new id.
- A suggestion with `"dynamic": true` is deleted when suggestions are accepted, and with it the region with its id. So
  each region that has to go is sent once more with this mark.

From the second answer on, ids carry the answer's number, see `RegionName.generation`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from svac_backend.labelstudio.regions.region import (
    Place,
    Region,
    by_object,
    by_place,
    frame_size,
    region_name,
)
from svac_backend.masks.rle import encode_brush

# How many answers are kept: an annotator who does not accept an answer keeps the regions of the previous one.
GENERATIONS = 3

_KEPT = ("id", "from_name", "to_name", "type", "original_width", "original_height", "image_rotation")


def next_generation(regions: Iterable[Region]) -> int:
    """Return the generation of new regions for objects that have these regions; 0 if there are none."""
    names = [region_name(region) for region in regions]
    return max((name.generation + 1 for name in names if name is not None), default=0)


def of_generation(regions: Iterable[Region], generation: int) -> list[Region]:
    """Return copies of regions, with the ids of a generation."""
    renamed = []
    for region in regions:
        if (name := region_name(region)) is not None:
            region = {**region, "id": str(replace(name, generation=generation))}
        renamed.append(region)
    return renamed


def outdated(regions: Iterable[Region], generation: int) -> set[str]:
    """Return the ids of regions that no editor shows any more once an answer of that generation goes out."""
    names = ((str(region["id"]), region_name(region)) for region in regions)
    return {id_ for id_, name in names if name is not None and name.generation <= generation - GENERATIONS}


def removals(regions: Iterable[Region]) -> list[Region]:
    """Return the suggestions that make the editor delete regions: one for each region, one for its label."""
    found: dict[tuple[str, str], Region] = {}
    for region in regions:
        removal = {key: region[key] for key in _KEPT if key in region}
        if region.get("item_index") is not None:
            removal["item_index"] = region["item_index"]
        removal |= {"dynamic": True, "origin": "prediction", "value": _next_to_nothing(region)}
        found[str(region.get("id")), str(region.get("from_name"))] = removal
    return list(found.values())


def sent_regions(
    now: Sequence[Region],
    answered: Sequence[Region],
    predictions: Sequence[Sequence[Region]],
    *,
    parent: Sequence[Region] | None = None,
) -> list[Region]:
    """Return the regions that an annotation started from, to tell what a person changed since.

    An object's regions on a frame come from one answer or one prediction: one of which the annotation still has a
    region, and of several, the one that agrees most. If nothing is left on a frame, a person deleted it, provided that
    the annotation has most of what was sent together with it. Otherwise it was never in the editor, like a prediction
    that came after the annotation was begun, or a suggestion that was not accepted. Once an answer concerned an object,
    only answers count for it.

    Args:
        now: the regions of the annotation, or of its draft.
        answered: the regions of all answers to interactive calls, see `store.objects`.
        predictions: the results of the task's predictions, the oldest first.
        parent: the prediction that the annotation was made from, if known.
    """
    place = {
        where: {_key(region): geometry(region) for region in group} for where, group in by_place(now).items()
    }
    answers: dict[int, list[Region]] = defaultdict(list)
    for region in answered:
        if (name := region_name(region)) is not None:
            answers[name.generation].append(region)
    later = set(by_object(answered))
    sources = [
        *(_Source(regions, certain=regions is parent, later=later) for regions in predictions),
        *(_Source(answers[generation]) for generation in sorted(answers)),
    ]
    chosen: list[Region] = []
    for where in dict.fromkeys(where for source in sources for where in source.groups):
        here = place.get(where, {})
        groups = [source.groups[where] for source in sources if where in source.groups]
        scored = [(_agreement(group, here), position) for position, group in enumerate(groups)]
        (kept, _), best = max(scored)
        if kept:
            chosen += groups[best]
            continue
        deleted = [
            source for source in sources if where in source.groups and source.was_taken(where[0], place)
        ]
        if deleted:
            chosen += deleted[-1].groups[where]
    return chosen


class _Source:
    """A prediction, or the answers of one generation: its regions by object and frame.

    Args:
        regions: its regions.
        certain: whether the annotation is known to be made from it.
        later: objects that answers concerned.
    """

    def __init__(
        self, regions: Iterable[Region], *, certain: bool = False, later: Collection[str] = ()
    ) -> None:
        self.certain, self.later = certain, later
        self.groups = by_place(regions)

    def was_taken(self, object_id: str, place: Mapping[Place, Mapping[tuple[str, str], str]]) -> bool:
        """Whether the annotation has, or had, this source's regions of an object."""
        frames = [where for where in self.groups if where[0] == object_id]
        left = sum(1 for where in frames if _agreement(self.groups[where], place.get(where, {}))[0])
        if self.certain:
            return left > 0
        return object_id not in self.later and left > 0 and 2 * left >= len(frames)


def _agreement(group: Sequence[Region], here: Mapping[tuple[str, str], str]) -> tuple[int, int]:
    """Return how many regions of a group are still there: by id, and unchanged."""
    kept = [region for region in group if _key(region) in here]
    return len(kept), sum(1 for region in kept if here[_key(region)] == geometry(region))


def _key(region: Mapping[str, Any]) -> tuple[str, str]:
    return str(region.get("id")), str(region.get("from_name"))


def geometry(region: Mapping[str, Any]) -> str:
    """Return a region's geometry as comparable text: the editor may change the last bit of untouched floats."""
    value = region.get("value")
    if isinstance(value, Mapping) and isinstance(value.get("points"), list):
        return str([[round(float(c), 3) for c in point] for point in value["points"]])
    return json.dumps(value, sort_keys=True)


def _next_to_nothing(region: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest value that the editor takes, with the region's label."""
    value, kind = region.get("value") or {}, str(region.get("type"))
    labels = {key: value[key] for key in (kind, "labels") if isinstance(value, Mapping) and key in value}
    if "points" in value:
        # A key point: to delete a polygon, the editor searches all points of all polygons, twice.
        return {"x": 0, "y": 0, "width": 0.1, **labels}
    width, height = frame_size([region]) or (1, 1)
    return {"format": "rle", "rle": encode_brush(np.zeros((height, width), np.bool_)), **labels}
