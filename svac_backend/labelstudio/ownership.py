"""Whose a region is that a person drew: it has a random id, so its object is told from its label and place."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from svac_backend.labelstudio.drawings import Drawing
from svac_backend.masks.prompts import Prompts
from svac_backend.masks.rle import area, bounding_box, iou, overlap, union
from svac_backend.masks.tracks import CocoRle, Track

# Parts of a mask lie wholly within it, but for the rounding of a polygon's points.
_WITHIN = 0.999
# At least so much of a region must lie in an object's mask to be a part of it.
_MOSTLY = 0.5


def assign_objects(
    drawings: Sequence[Drawing], tracks: Sequence[Track], certain: Prompts, default: str
) -> dict[str, str]:
    """Find the object of every drawing that has none yet, the frames in order, on a frame the largest first.

    Regions that together are exactly an object's known mask of that frame are that object's. For any other the
    objects of its label are asked:

    1. It lies mostly on an object's region of that frame: a part of that object.
    2. Exactly one object has no region on that frame: that object.
    3. Several have none: the one whose masks on the neighbouring frames overlap it most, or else are nearest.
    4. All have one: the one whose masks on the neighbouring frames it mostly lies in, unless the person has just taken
       that place away from the object's mask.
    5. Else it is a new object with the next free id.

    An empty region without an object says nothing and keeps none.

    Args:
        drawings: all of an annotation; their `object_id` is set.
        tracks: the objects that are known, with the masks that were shown last.
        certain: masks that persons made before.
        default: label of regions that carry none.

    Returns:
        Object id -> label, those of `tracks` first.

    Raises:
        SvacError: a region is malformed.
    """
    labels = _object_labels(drawings, tracks, default)
    unknown = [drawing for drawing in drawings if drawing.object_id is None]
    if not unknown:
        return labels
    places = _Places(drawings, tracks, certain)
    taken_ids = {*labels, *certain}
    for frame in sorted({drawing.frame for drawing in unknown}):
        here = [drawing for drawing in unknown if drawing.frame == frame and area(drawing.mask)]
        here.sort(key=lambda drawing: area(drawing.mask), reverse=True)
        places.take_exact(frame, here)
        for drawing in here:
            if drawing.object_id is None:
                label = drawing.label or default
                mine = [object_id for object_id, its in labels.items() if its == label]
                drawing.object_id = places.owner(drawing, mine) or free_id(taken_ids)
                labels.setdefault(drawing.object_id, label)
                taken_ids.add(drawing.object_id)
                places.add(drawing)
            labels.setdefault(drawing.object_id, drawing.label or default)
    return labels


def free_id(taken: Iterable[str]) -> str:
    """Return the next free id: `obj4` when `obj1` and `obj3` are taken."""
    numbers = [int(found[1]) for name in taken if (found := re.fullmatch(r"obj(\d+)", name))]
    return f"obj{max(numbers, default=0) + 1}"


def _object_labels(drawings: Iterable[Drawing], tracks: Sequence[Track], default: str) -> dict[str, str]:
    """Object id -> label: the one that most of its regions carry, or else its track's."""
    labels = {track.object_id: track.label for track in tracks}
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for drawing in drawings:
        if drawing.object_id is not None:
            votes[drawing.object_id].update([drawing.label] if drawing.label else [])
    for object_id, count in votes.items():
        known = labels.get(object_id)
        best = max(count, key=lambda label: (count[label], label == known), default=known)
        labels[object_id] = best or default
    return labels


class _Places:
    """Where objects are: in the annotation as far as it is understood, and in what was known before."""

    def __init__(self, drawings: Iterable[Drawing], tracks: Sequence[Track], certain: Prompts) -> None:
        self._drawn: dict[str, dict[int, list[Drawing]]] = defaultdict(lambda: defaultdict(list))
        self._known = {track.object_id: track.masks for track in tracks}
        self._certain = certain
        for drawing in drawings:
            if drawing.object_id is not None:
                self.add(drawing)

    def add(self, drawing: Drawing) -> None:
        self._drawn[str(drawing.object_id)][drawing.frame].append(drawing)

    def take_exact(self, frame: int, unknown: Sequence[Drawing]) -> None:
        """Set the object of those drawings that together are an object's known mask."""
        for object_id, known in self._masks_before(frame):
            candidates = [drawing for drawing in unknown if drawing.object_id is None]
            own = self._drawn[object_id][frame] if object_id in self._drawn else []
            parts = [drawing for drawing in candidates if _share(drawing.mask, known) >= _WITHIN]
            if parts and iou(union([drawing.mask for drawing in (*own, *parts)]), known) >= _WITHIN:
                for drawing in parts:
                    drawing.object_id = object_id
                    self.add(drawing)

    def owner(self, drawing: Drawing, objects: Sequence[str]) -> str | None:
        """Return the object of a drawing by the rules 1 to 4 of `assign_objects`, or None."""
        frame, mask = drawing.frame, drawing.mask
        here = {object_id: self._here(object_id, frame) for object_id in objects}
        under = {object_id: _share(mask, its) for object_id, its in here.items() if its is not None}
        if under and max(under.values()) >= _MOSTLY:
            return max(under, key=lambda object_id: under[object_id])
        free = [object_id for object_id in objects if here[object_id] is None]
        if free:
            return free[0] if len(free) == 1 else max(free, key=lambda o: self._likeness(o, frame, mask))
        near = {
            object_id: max((_share(mask, other) for other in self._neighbours(object_id, frame)), default=0.0)
            for object_id in objects
            if not self._was_taken_away(object_id, frame, mask)
        }
        best = max(near, key=lambda object_id: near[object_id], default=None)
        return best if best is not None and near[best] >= _MOSTLY else None

    def _here(self, object_id: str, frame: int) -> CocoRle | None:
        """What an object has on a frame, None if it has nothing."""
        drawn = self._drawn[object_id].get(frame) if object_id in self._drawn else None
        mask = union([drawing.mask for drawing in drawn]) if drawn else None
        return mask if mask is not None and area(mask) else None

    def _masks_before(self, frame: int) -> list[tuple[str, CocoRle]]:
        """The masks of a frame that were known before, those that persons made first."""
        made = [
            (object_id, frames[frame].mask) for object_id, frames in self._certain.items() if frame in frames
        ]
        seen = [(object_id, masks[frame]) for object_id, masks in self._known.items() if frame in masks]
        return [(object_id, mask) for object_id, mask in [*made, *seen] if mask is not None and area(mask)]

    def _neighbours(self, object_id: str, frame: int) -> list[CocoRle]:
        """An object's masks on the nearest frames before and after, as drawn, or else as known before."""
        drawn = sorted(self._drawn[object_id]) if object_id in self._drawn else []
        near = [mask for other in _around(drawn, frame) if (mask := self._here(object_id, other)) is not None]
        if near:
            return near
        known = self._known.get(object_id, {})
        return [known[other] for other in _around(sorted(known), frame)]

    def _likeness(self, object_id: str, frame: int, mask: CocoRle) -> tuple[float, float]:
        """How much a mask looks like an object's on the frame and beside it: IoU, then nearness."""
        before = [known for known_id, known in self._masks_before(frame) if known_id == object_id]
        others = [*before, *self._neighbours(object_id, frame)]
        distances = [math.dist(_centre(mask), _centre(other)) for other in others]
        return max((iou(mask, other) for other in others), default=0.0), -min(distances, default=math.inf)

    def _was_taken_away(self, object_id: str, frame: int, mask: CocoRle) -> bool:
        return any(
            _share(mask, known) >= _MOSTLY
            for known_id, known in self._masks_before(frame)
            if known_id == object_id
        )


def _around(frames: Sequence[int], frame: int) -> list[int]:
    """The nearest of some ascending frames before and after one."""
    at = bisect_left(frames, frame)
    after = at + (at < len(frames) and frames[at] == frame)
    return [*frames[max(at - 1, 0) : at], *frames[after : after + 1]]


def _share(part: CocoRle, whole: CocoRle) -> float:
    """How much of a mask lies in another one."""
    return overlap(part, whole) / area(part)


def _centre(mask: CocoRle) -> tuple[float, float]:
    left, top, width, height = bounding_box(mask)
    return left + width / 2, top + height / 2
