"""Label Studio's regions as tracks: what was drawn on which frame, and which object it belongs to.

The id of a region that this backend made names its object: `obj1-f00004`. A region that a person drew has a random id,
and joins an object with its label, see `assign_objects`. Masks are decoded only when needed.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.regions.outlines import outline_tracks
from svac_backend.labelstudio.regions.rectangles import box_tracks
from svac_backend.labelstudio.regions.region import Canvas, Place, RegionName, Results, region_id
from svac_backend.labelstudio.regions.shapes import kind_of, shape_to_mask
from svac_backend.masks.hints import FrameHints
from svac_backend.masks.limits import MaskRoom, check_edges, check_frame
from svac_backend.masks.rle import area, bounding_box, iou, overlap, to_coco, union
from svac_backend.masks.tracks import CocoRle, ObjectPrompt, Track


@dataclass
class Drawing:
    """A region on a frame.

    Attributes:
        id: the region's id.
        frame: the video's 0-based frame.
        label: the label that it carries, or None.
        results: its results: one, or the two of a pair such as `<Brush/>` + `<Labels/>`; the first has the shape.
        size: width and height of the video in pixels.
        object_id: its object; None until `assign_objects` finds it.
        room: the memory budget that all masks of its annotation share.
    """

    id: str
    frame: int
    label: str | None
    results: list[Mapping[str, Any]]
    size: tuple[int, int]
    object_id: str | None = None
    room: MaskRoom = field(default_factory=MaskRoom)

    @cached_property
    def mask(self) -> CocoRle:
        """The mask at the video's display size. Raises `SvacError` if it is malformed or exceeds the memory budget."""
        pixels = shape_to_mask(self.results[0], *self.size)
        check_edges(pixels)
        mask = to_coco(pixels)
        self.room.take(len(mask["counts"]))
        return mask


def read_drawings(results: Iterable[Any], config: LabelConfig, canvas: Canvas) -> list[Drawing]:
    """Return every region on the frames that is a mask, in the order of the results.

    Raises:
        SvacError: a region lies on a frame that the task does not have.
    """
    frames = config.frames
    names = config.drawing_names
    found: dict[tuple[str, int], Drawing] = {}
    room = MaskRoom()
    for region in results:
        if not isinstance(region, Mapping):
            raise SvacError(
                "A result of the annotation is not an object.", "Send results as Label Studio does."
            )
        value = region.get("value")
        if region.get("dynamic"):
            continue  # it steers the model, or deletes another region
        if frames is None or region.get("to_name") != frames.name or region.get("from_name") not in names:
            continue
        kind = kind_of(value) if isinstance(value, Mapping) else None
        if kind is None or not isinstance(value, Mapping):
            continue
        frame, id_ = _frame(region, canvas), region_id(region)
        drawing = found.get((id_, frame))
        label = _label(value, kind)
        if drawing is None:
            name = RegionName.read(id_)
            object_id = None if name is None else name.object_id
            found[id_, frame] = Drawing(id_, frame, label, [region], canvas.size, object_id, room)
        else:
            drawing.results.append(region)
            drawing.label = drawing.label or label
    return list(found.values())


def is_drawn_on(regions: Iterable[Any], config: LabelConfig) -> bool:
    """Return whether any of an annotation's regions is a mask on the frames."""
    return config.frames is not None and any(
        isinstance(region, Mapping)
        and not region.get("dynamic")
        and region.get("to_name") == config.frames.name
        and region.get("from_name") in config.drawing_names
        and isinstance(region.get("value"), Mapping)
        and kind_of(region["value"]) is not None
        for region in regions
    )


def _frame(region: Mapping[str, Any], canvas: Canvas) -> int:
    """Return the video's frame of a region; a single picture has no `item_index`."""
    item = region.get("item_index")
    item = check_frame(0 if item is None else item, f"The region '{region.get('id')}'")
    if canvas.window is not None and item >= canvas.window.count:
        raise SvacError(
            f"The region '{region.get('id')}' lies on frame {item}, but the task has {canvas.window.count}.",
            "Read it with the window of its own task.",
        )
    return canvas.frame(item)


def _label(value: Mapping[str, Any], kind: str) -> str | None:
    labels = value.get(f"{kind}labels") or value.get("labels")
    return str(labels[0]) if isinstance(labels, list) and labels else None


# Parts of a mask lie wholly within it, except for the rounding of a polygon's points.
_WITHIN = 0.999
# The share of a region that must lie in an object's mask for the region to be part of the object.
_MOSTLY = 0.5


def assign_objects(
    drawings: Sequence[Drawing], tracks: Sequence[Track], certain: FrameHints, default: str
) -> dict[str, str]:
    """Find the object of every drawing that has none yet, frame by frame, the largest drawing first.

    Regions that together are exactly an object's known mask of that frame belong to it. Any other region goes to an
    object with its label, by the first of these rules that applies:

    1. It lies mostly on an object's region of that frame: a part of that object.
    2. Exactly one object has no region on that frame: that object.
    3. Several have none: the one whose masks on the neighbouring frames overlap it most, or else are nearest.
    4. All have one: the one whose masks on the neighbouring frames mostly cover it, unless the person has just
       erased that place from the object's mask.
    5. Else it is a new object with the next free id.

    An empty region without an object stays without one.

    Args:
        drawings: all drawings of an annotation; their `object_id` is set.
        tracks: the known objects, with the masks that were shown last.
        certain: masks that people made before.
        default: label of regions that have none.

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
    """Return the next free id: `obj4` if `obj1` and `obj3` are taken."""
    numbers = [int(found[1]) for name in taken if (found := re.fullmatch(r"obj(\d+)", name))]
    return f"obj{max(numbers, default=0) + 1}"


def _object_labels(drawings: Iterable[Drawing], tracks: Sequence[Track], default: str) -> dict[str, str]:
    """Return object id -> label: the one that most of its regions carry, or else its track's."""
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
    """Where objects are: in the annotation as far as it has been read, and as known before."""

    def __init__(self, drawings: Iterable[Drawing], tracks: Sequence[Track], certain: FrameHints) -> None:
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
        """Return an object's mask on a frame, None if it has none."""
        drawn = self._drawn[object_id].get(frame) if object_id in self._drawn else None
        mask = union([drawing.mask for drawing in drawn]) if drawn else None
        return mask if mask is not None and area(mask) else None

    def _masks_before(self, frame: int) -> list[tuple[str, CocoRle]]:
        """Return the masks of a frame that were known before, those made by people first."""
        made = [
            (object_id, frames[frame].mask) for object_id, frames in self._certain.items() if frame in frames
        ]
        seen = [(object_id, masks[frame]) for object_id, masks in self._known.items() if frame in masks]
        return [(object_id, mask) for object_id, mask in [*made, *seen] if mask is not None and area(mask)]

    def _neighbours(self, object_id: str, frame: int) -> list[CocoRle]:
        """Return an object's masks on the nearest frames before and after, as drawn, or else as known before."""
        drawn = sorted(self._drawn[object_id]) if object_id in self._drawn else []
        near = [mask for other in _around(drawn, frame) if (mask := self._here(object_id, other)) is not None]
        if near:
            return near
        known = self._known.get(object_id, {})
        return [known[other] for other in _around(sorted(known), frame)]

    def _likeness(self, object_id: str, frame: int, mask: CocoRle) -> tuple[float, float]:
        """Return how well a mask matches an object's on the frame and its neighbours: IoU, then nearness."""
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
    """Return the nearest of some ascending frames before and after a frame."""
    at = bisect_left(frames, frame)
    after = at + (at < len(frames) and frames[at] == frame)
    return [*frames[max(at - 1, 0) : at], *frames[after : after + 1]]


def _share(part: CocoRle, whole: CocoRle) -> float:
    """Return the share of a mask that lies in another one."""
    return overlap(part, whole) / area(part)


def _centre(mask: CocoRle) -> tuple[float, float]:
    left, top, width, height = bounding_box(mask)
    return left + width / 2, top + height / 2


# The score of a region without one: a person drew it.
DRAWN_SCORE = 1.0


@dataclass
class Drawn:
    """All regions of an annotation that are masks, each with its object.

    Attributes:
        drawings: in the order of the results.
        objects: every known object, those of `tracks` first, including those without any drawing left.
    """

    drawings: list[Drawing] = field(default_factory=list)
    objects: dict[str, ObjectPrompt] = field(default_factory=dict)

    def by_place(self) -> dict[Place, list[Drawing]]:
        """Return the drawings by object and frame."""
        found: dict[Place, list[Drawing]] = defaultdict(list)
        for drawing in self.drawings:
            found[str(drawing.object_id), drawing.frame].append(drawing)
        return dict(found)


def results_to_tracks(
    results: Results,
    config: LabelConfig,
    canvas: Canvas,
    *,
    tracks: Sequence[Track] = (),
    certain: FrameHints | None = None,
) -> list[Track]:
    """Return the masks of an annotation or a prediction.

    Brush masks, polygons, closed vectors, bitmasks and boxes on the frames count; those of one object on one frame are
    united. `VideoRectangle` tracks count as filled boxes if the config has no masks on frames, or nothing with their
    label is drawn there. All other results are left out.

    Args:
        tracks: the known objects, with expressions; their masks help to find the object of a hand-drawn region.
        certain: masks that people made before, for the same purpose.

    Returns:
        The known objects in their order, even if nothing of them is left, then new ones. Frames are the video's. A
        region without a score scores 1.0; of several regions of an object on a frame, the lowest score counts.

    Raises:
        SvacError: a region is malformed, or lies on a frame that the task does not have.
    """
    drawn = read_drawn(results, config, canvas, tracks=tracks, certain=certain)
    found = {prompt.object_id: Track(**vars(prompt)) for prompt in drawn.objects.values()}
    for (object_id, frame), drawings in drawn.by_place().items():
        mask = union([drawing.mask for drawing in drawings])
        if area(mask):
            found[object_id].masks[frame] = mask
            found[object_id].scores[frame] = min(_score(drawing) for drawing in drawings)
    drawn_labels = {drawing.label for drawing in drawn.drawings}
    for boxes in (*box_tracks(results, config, canvas), *outline_tracks(results, config, canvas)):
        if boxes.object_id is not None and config.drawing_controls():
            continue  # the overview that this backend made of the masks
        if boxes.label in drawn_labels:
            continue
        object_id = boxes.object_id or free_id(found)
        known = found.get(object_id)
        if known is None or known.masks:
            object_id = object_id if known is None else free_id(found)
            label = boxes.label or next(iter(_labels(config)), object_id)
            known = found[object_id] = Track(object_id, label, _expression(label, config))
        known.masks.update(boxes.masks)
        known.scores.update(dict.fromkeys(boxes.masks, DRAWN_SCORE))
    return list(found.values())


def read_drawn(
    results: Results,
    config: LabelConfig,
    canvas: Canvas,
    *,
    tracks: Sequence[Track] = (),
    certain: FrameHints | None = None,
    owners: Mapping[str, str] | None = None,
) -> Drawn:
    """Return the drawings on the frames, each with its object, decoding no more masks than that needs.

    Args:
        tracks, certain: as in `results_to_tracks`.
        owners: region id -> object id, as known from an earlier state of the annotation.

    Raises:
        SvacError: as for `results_to_tracks`.
    """
    drawings = read_drawings(results, config, canvas)
    for drawing in drawings:
        drawing.object_id = drawing.object_id or (owners or {}).get(drawing.id)
    default = next(iter(_labels(config)), "object")
    labels = assign_objects(drawings, tracks, certain or {}, default)
    expressions = {track.object_id: track.expression for track in tracks}
    objects = {
        object_id: ObjectPrompt(object_id, label, expressions.get(object_id) or _expression(label, config))
        for object_id, label in labels.items()
    }
    return Drawn([drawing for drawing in drawings if drawing.object_id], objects)


def _labels(config: LabelConfig) -> Mapping[str, str | None]:
    """Return the labels of the config's first mask control that has some."""
    return next((control.labels for control in config.drawing_controls() if control.labels), {})


def _expression(label: str, config: LabelConfig) -> str:
    """Return the expression of a new object with a label: the label's prompt, or its name."""
    prompts = (control.labels.get(label) for control in config.drawing_controls())
    return next((prompt for prompt in prompts if prompt), label)


def _score(drawing: Drawing) -> float:
    score = drawing.results[0].get("score")
    return float(score) if isinstance(score, int | float) else DRAWN_SCORE
