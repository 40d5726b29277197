"""An annotator's request in the editor: the call, its body, and which object a click or a box refers to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.corrections import person_of
from svac_backend.labelstudio.regions.region import (
    Region,
    frame_size,
    labels_of,
    region_name,
    regions_of,
)
from svac_backend.labelstudio.tasks import context_texts
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.limits import check_frame
from svac_backend.masks.rle import area, bounding_box, from_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.store.objects import NOBODY

# A key point's label, or text typed into the prompt field instead of an expression.
COMMANDS = frozenset({"propagate", ">>"})
# A key point's label, or text typed before a sentence, that removes an object from all frames.
REMOVE = "remove"
# Texts that this backend writes into the editor begin with this mark; an annotator's do not.
MARK = "\N{WARNING SIGN} "
# Percent: points and boxes may lie outside their frame, but not so far that numbers lose precision.
_FARTHEST_PERCENT = 1e6
POINTS, BOXES = ("keypointlabels", "keypoint"), ("rectanglelabels", "rectangle")


@dataclass(frozen=True)
class Request:
    """What one interactive call asks for: one of `propagate`, `remove`, `texts` or `pointed`; or nothing at all.

    Attributes:
        propagate: carry corrections to the other frames.
        remove: remove the object pointed at, or the one with the sentence in `texts`, from all frames.
        texts: expressions; only the last one if the field keeps what was typed before.
        left: what the prompt field should show after a command was typed into it.
        pointed: clicks and a box by `item_index`, in pixels of `size`.
        label: the label of the points or boxes, as chosen in the editor.
        size: width and height in pixels of the frames that were pointed at.
        typed: all that the prompt field holds, if the request was typed.
        ids: ids of the regions that make the request; they are in the annotation, and so in its draft.
    """

    propagate: bool = False
    remove: bool = False
    texts: tuple[Any, ...] = ()
    left: tuple[str, ...] | None = None
    pointed: Mapping[int, FrameHint] = field(default_factory=dict)
    label: str | None = None
    size: tuple[int, int] = (0, 0)
    typed: list[Any] | None = None
    ids: frozenset[str] = frozenset()


def is_notice(text: Any) -> bool:
    """Return whether a text in the prompt field is one of our notices, see `editor.notice`."""
    return isinstance(text, str) and text.startswith(MARK)


def read_request(context: Mapping[str, Any], config: LabelConfig, before: Sequence[Region] = ()) -> Request:
    """Return what `params.context` asks for; `before` is what the editor showed, to tell what is new.

    Raises:
        SvacError: it is malformed, or holds a type of region that is not a prompt.
    """
    texts = context_texts(context, config)
    regions = regions_of(context.get("result"))
    ids = frozenset(str(region["id"]) for region in regions if region.get("id"))
    if texts is not None:
        if texts and _is_command(texts[-1]):
            left = tuple(text for text in texts if isinstance(text, str) and not _is_command(text))
            return Request(propagate=True, left=left, typed=texts, ids=ids)
        if not texts or is_notice(texts[-1]) or _is_deletion(texts, before, config):
            return Request()
        word, _, sentence = str(texts[-1]).strip().partition(" ")
        if word.casefold() == REMOVE and sentence.strip():
            kept = tuple(text for text in texts[:-1] if isinstance(text, str))
            return Request(remove=True, texts=(sentence.strip(),), left=kept, typed=texts, ids=ids)
        return Request(texts=tuple(texts[-1:]), typed=texts, ids=ids)
    # Other entries may share a region's id and have no place: its labels, and whatever else it was given.
    placed = [region for region in regions if "x" in (region.get("value") or ())]
    pointing = [region for region in placed if region.get("type") in (*POINTS, *BOXES)]
    if not pointing:
        if not regions:
            return Request()
        raise SvacError(
            f"A region of type '{str(regions[0].get('type'))[:40]}' is not a prompt.",
            "Type a sentence, click with the key points, or draw a box with the rectangle.",
        )
    labels = [name for region in pointing for name in labels_of(region)]
    if any(_is_command(label) for label in labels):
        return Request(propagate=True, ids=ids)
    size = _size(pointing)
    remove = any(label.strip().casefold() == REMOVE for label in labels)
    pointed = _pointed(pointing, size)
    return Request(remove=remove, pointed=pointed, label=next(iter(labels), None), size=size, ids=ids)


def shown_regions(task: Mapping[str, Any], model_version: str) -> list[Region]:
    """Return the regions that the editor shows, as far as the body of an interactive call tells.

    These are the asker's latest draft, since Label Studio sends no other person's; without a draft, the annotation
    changed last, see `tells_whose`; without any, the prediction that the editor starts from.
    """
    for key in ("drafts", "annotations"):
        if saved := _items(task, key):
            latest = max(saved, key=lambda item: str(item.get("updated_at") or item.get("created_at") or ""))
            return regions_of(latest.get("result"))
    predictions = _items(task, "predictions")
    own = [item for item in predictions if item.get("model_version") == model_version]
    newest = max(own or predictions, key=_number_of, default=None)
    return [] if newest is None else regions_of(newest.get("result"), foreign=True)


def tells_whose(task: Mapping[str, Any]) -> bool:
    """Return whether `shown_regions` are the asker's: the body holds everybody's annotations and does not say whose."""
    return bool(_items(task, "drafts")) or not _items(task, "annotations")


def asker(task: Mapping[str, Any]) -> str:
    """Return who makes an interactive call, see `person_of`; `NOBODY` before their first draft is saved."""
    return next((person_of(draft) for draft in _items(task, "drafts")), NOBODY)


def draft_with(
    drafts: Sequence[Mapping[str, Any]], request: Request, seen: Any = ()
) -> tuple[Mapping[str, Any], list[Region]] | None:
    """Return the draft that holds a request, and its regions; or None.

    Args:
        drafts: the task's drafts as they are now.
        request: the annotator's request.
        seen: the drafts when they asked; a draft that has not changed since does not count.
    """
    before = {
        (item.get("id"), str(item.get("updated_at"))) for item in seen or () if isinstance(item, Mapping)
    }
    for draft in sorted(drafts, key=lambda item: str(item.get("updated_at") or ""), reverse=True):
        if (draft.get("id"), str(draft.get("updated_at"))) in before:
            continue
        regions = regions_of(draft.get("result"))
        for region in regions:
            if region.get("id") not in request.ids:
                continue
            value = region.get("value")
            # A text keeps its id when it changes, so its content must match, too.
            if request.typed is None or (isinstance(value, Mapping) and value.get("text") == request.typed):
                return draft, regions
    return None


def predicted_regions(task: Mapping[str, Any]) -> list[list[Region]]:
    """Return the results of the task's predictions, the oldest first."""
    found = sorted(_items(task, "predictions"), key=_number_of)
    return [regions_of(item.get("result"), foreign=True) for item in found]


def used_ids(task: Mapping[str, Any]) -> set[str]:
    """Return the ids of the objects in a task's annotations, drafts and predictions."""
    items = [item for key in ("drafts", "annotations", "predictions") for item in _items(task, key)]
    names = (region_name(region) for item in items for region in regions_of(item.get("result"), foreign=True))
    return {name.object_id for name in names if name is not None}


def _is_deletion(texts: Sequence[Any], before: Sequence[Region], config: LabelConfig) -> bool:
    """Whether a text was only deleted from the field: the editor sends a request then, too, without a new text."""
    name = config.text.name if config.text else None
    values = [region.get("value") for region in before if region.get("from_name") == name]
    had = [value.get("text") for value in values if isinstance(value, Mapping)]
    return any(
        isinstance(old, list) and len(texts) < len(old) and all(text in old for text in texts) for old in had
    )


def _is_command(text: Any) -> bool:
    return isinstance(text, str) and text.strip().casefold() in COMMANDS


def _items(task: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = task.get(key)
    # A draft may be a bare id if Label Studio does not expand it.
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _number_of(item: Mapping[str, Any]) -> int:
    number = item.get("id")
    return number if isinstance(number, int) else 0


def _size(regions: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    size = frame_size(regions)
    if size is None:
        raise SvacError(
            "The points do not say how large their frame is.", "Send them as Label Studio's editor does."
        )
    return size


def _pointed(regions: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> dict[int, FrameHint]:
    clicks: dict[int, list[Click]] = {}
    boxes: dict[int, tuple[float, float, float, float]] = {}
    for region in regions:
        item = check_frame(region.get("item_index", 0), "A point or box")
        if region["type"] in POINTS:
            x, y = _numbers(region, "x", "y")
            clicks.setdefault(item, []).append(
                Click(_pixels(x, size[0]), _pixels(y, size[1]), _is_positive(region))
            )
        else:
            boxes[item] = _box(region, size)  # of several on a frame, the last one counts
    return {
        item: FrameHint(clicks=tuple(clicks.get(item, ())), box=boxes.get(item))
        for item in sorted({*clicks, *boxes})
    }


def _is_positive(region: Mapping[str, Any]) -> bool:
    """Whether a click is positive: Alt+click and a label of that name make it negative."""
    named_negative = any(name.casefold().startswith("neg") for name in labels_of(region))
    return region.get("is_positive", True) is not False and not named_negative


def _box(region: Mapping[str, Any], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the upright box in pixels around a rectangle in percent, which may be rotated about its first corner."""
    x, y, width, height = _numbers(region, "x", "y", "width", "height")
    angle = math.radians(_number(region["value"].get("rotation") or 0.0))
    corners = list(_corners(x, y, width, height, size, angle))
    xs, ys = (
        [min(max(cx, 0.0), size[0]) for cx, _ in corners],
        [min(max(cy, 0.0), size[1]) for _, cy in corners],
    )
    if min(xs) >= max(xs) or min(ys) >= max(ys):
        raise SvacError("The box has no area on the frame.", "Draw it from one corner to the opposite one.")
    return min(xs), min(ys), max(xs), max(ys)


def _corners(
    x: float, y: float, width: float, height: float, size: tuple[int, int], angle: float
) -> Iterator[tuple[float, float]]:
    left, top = x * size[0] / 100, y * size[1] / 100
    for u in (0.0, width * size[0] / 100):
        for v in (0.0, height * size[1] / 100):
            yield (
                left + u * math.cos(angle) - v * math.sin(angle),
                top + u * math.sin(angle) + v * math.cos(angle),
            )


def _pixels(percent: float, side: int) -> float:
    return min(max(percent * side / 100, 0.0), float(side))


def _numbers(region: Mapping[str, Any], *names: str) -> list[float]:
    value = region.get("value")
    return [_number(value.get(name) if isinstance(value, Mapping) else None) for name in names]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _FARTHEST_PERCENT:
        raise SvacError("A point or box has no coordinates.", "Send it as Label Studio's editor does.")
    return float(value)


@dataclass(frozen=True)
class Call:
    """What all tasks of one /predict call share, and the id of one of them.

    Attributes:
        context: `params.context` of an annotator's request, or None.
        begun, deadline: seconds of the monotonic clock.
    """

    project_id: str
    task_id: str
    hostname: str
    version: str
    context: Mapping[str, Any] | None
    begun: float
    deadline: float


Masks = Mapping[str, CocoRle]
# Rows of a mask that are processed together.
_BAND = 256

# The least IoU of a drawn box with the box around a known object's mask, for the drawn box to refer to that object.
SAME_BOX = 0.5


def pointed_object(pointed: FrameHint, masks: Masks) -> str | None:
    """Return the object that clicks or a box refer to, or None for a new one.

    - A positive click on an object's mask refers to that object; on several, to the one with the smallest mask.
    - Negative clicks alone refer to the object nearest to them.
    - A box refers to the object that it encloses closely, if there is one.
    - Anything else is a new object.

    Args:
        pointed: clicks and a box on one frame.
        masks: the mask of each object on this frame. One is decoded at a time, since there may be hundreds.

    Raises:
        SvacError: there are only negative clicks, and no object on the frame.
    """
    present = {object_id: mask for object_id, mask in masks.items() if area(mask)}
    positive = [click for click in pointed.clicks if click.positive]
    hit = [object_id for object_id, mask in present.items() if positive and _is_hit(mask, positive)]
    if hit:
        return min(hit, key=lambda object_id: area(present[object_id]))
    if not positive and pointed.clicks and pointed.box is None:
        if not present:
            raise SvacError(
                "The click excludes a part of an object, but there is no object on this frame.",
                "Click on an object first, or type what to segment.",
            )
        return min(present, key=lambda object_id: _distance(from_coco(present[object_id]), pointed.clicks))
    if pointed.box is not None and not positive and present:
        overlaps = {object_id: _box_iou(_bounds(mask), pointed.box) for object_id, mask in present.items()}
        best = max(overlaps, key=lambda object_id: overlaps[object_id])
        return best if overlaps[best] >= SAME_BOX else None
    return None


def refined(pointed: FrameHint, mask: CocoRle | None, earlier: FrameHint | None) -> FrameHint:
    """Return the hint that the model gets for an object on a frame: the new one, combined with the earlier one there.

    Clicks add up; a new box replaces an old one. If neither says where the object is, its current mask does: by the box
    around it and its innermost point.

    Args:
        pointed: the new clicks and box.
        mask: the object's current mask, or None.
        earlier: the earlier hint; a mask that was drawn by hand counts through `mask`.
    """
    clicks, box = list(pointed.clicks), pointed.box
    if earlier is not None and earlier.mask is None:
        clicks = [*(click for click in earlier.clicks if click not in clicks), *clicks]
        box = box or earlier.box
    if box is None and not any(click.positive for click in clicks) and mask is not None and area(mask):
        clicks, box = [_innermost(from_coco(mask)), *clicks], _bounds(mask)
    return FrameHint(clicks=tuple(clicks), box=box)


def _is_hit(rle: CocoRle, clicks: Sequence[Click]) -> bool:
    mask = from_coco(rle)
    height, width = mask.shape
    return any(mask[min(int(click.y), height - 1), min(int(click.x), width - 1)] for click in clicks)


def _distance(mask: NDArray[np.bool_], clicks: Sequence[Click]) -> float:
    """Return the distance in pixels from the nearest click to the nearest pixel of a non-empty mask."""
    nearest = math.inf
    for top in range(0, len(mask), _BAND):
        rows, columns = np.nonzero(mask[top : top + _BAND])
        if rows.size:
            found = (float(np.hypot(columns - one.x, rows + top - one.y).min()) for one in clicks)
            nearest = min(nearest, *found)
    return nearest


def _bounds(mask: CocoRle) -> tuple[float, float, float, float]:
    left, top, width, height = bounding_box(mask)
    return float(left), float(top), float(left + width), float(top + height)


def _box_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def _innermost(mask: NDArray[np.bool_]) -> Click:
    """Return the centre of the mask's pixel that is farthest from its edge."""
    # The frame's border counts as an edge, too.
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside.argmax()), mask.shape)
    return Click(float(column) + 0.5, float(row) + 0.5)
