"""What an annotator asks for from inside the editor, and what he has before him: the body of an interactive call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.sending import Region, region_name
from svac_backend.labelstudio.tasks import context_texts
from svac_backend.masks.prompts import Click, FramePrompt

# A key point's label, or what is typed into the prompt's field instead of an expression.
COMMANDS = frozenset({"propagate", ">>"})
POINTS, BOXES = ("keypointlabels", "keypoint"), ("rectanglelabels", "rectangle")


@dataclass(frozen=True)
class Request:
    """What one interactive call asks for: one of `propagate`, `texts` or `pointed`; or nothing at all.

    Attributes:
        propagate: carry corrections to the other frames.
        texts: expressions; of a field that keeps what was typed before only the last one.
        left: what the prompt's field is to show from now on, when a command was typed into it.
        pointed: clicks and a box by `item_index`, in pixels of `size`.
        label: the label of the points or boxes, as chosen in the editor.
        size: width and height in pixels of the frames that were pointed at.
        typed: all that the prompt's field holds, where the request was typed.
        ids: of the regions that make the request; they are in the annotation, and so in its draft.
    """

    propagate: bool = False
    texts: tuple[Any, ...] = ()
    left: tuple[str, ...] | None = None
    pointed: Mapping[int, FramePrompt] = field(default_factory=dict)
    label: str | None = None
    size: tuple[int, int] = (0, 0)
    typed: list[Any] | None = None
    ids: frozenset[str] = frozenset()


def read_request(context: Mapping[str, Any], config: LabelConfig) -> Request:
    """Return what `params.context` asks for.

    Raises:
        SvacError: it is malformed, or of a kind that is no prompt.
    """
    texts = context_texts(context, config)
    regions: Sequence[Mapping[str, Any]] = context.get("result") or []
    ids = frozenset(str(region["id"]) for region in regions if region.get("id"))
    if texts is not None:
        if texts and _is_command(texts[-1]):
            left = tuple(text for text in texts if isinstance(text, str) and not _is_command(text))
            return Request(propagate=True, left=left, typed=texts, ids=ids)
        return Request(texts=tuple(texts[-1:]), typed=texts, ids=ids) if texts else Request()
    # Beside a region there may be others of its id without a place: its labels, and what else it was given.
    placed = [region for region in regions if "x" in (region.get("value") or ())]
    pointing = [region for region in placed if region.get("type") in (*POINTS, *BOXES)]
    if not pointing:
        if not regions:
            return Request()
        raise SvacError(
            f"A region of type '{str(regions[0].get('type'))[:40]}' is no prompt.",
            "Type a sentence, click with the key points, or draw a box with the rectangle.",
        )
    labels = [name for region in pointing for name in _labels(region)]
    if any(_is_command(label) for label in labels):
        return Request(propagate=True, ids=ids)
    size = _size(pointing)
    return Request(pointed=_pointed(pointing, size), label=next(iter(labels), None), size=size, ids=ids)


def shown_regions(task: Mapping[str, Any], model_version: str) -> list[Region]:
    """Return the regions that the editor shows, as far as the body of an interactive call tells.

    The draft or annotation that was changed last; without any, the prediction that the editor starts from.
    """
    saved = [item for key in ("drafts", "annotations") for item in _items(task, key)]
    if saved:
        return _result(
            max(saved, key=lambda item: str(item.get("updated_at") or item.get("created_at") or ""))
        )
    predictions = _items(task, "predictions")
    own = [item for item in predictions if item.get("model_version") == model_version]
    latest = max(own or predictions, key=lambda item: int(item.get("id") or 0), default=None)
    return [] if latest is None else _result(latest)


def draft_with(drafts: Sequence[Mapping[str, Any]], request: Request, seen: Any = ()) -> list[Region] | None:
    """Return the regions of the draft that holds a request, or None.

    Args:
        drafts: of the task, as they are now.
        request: an annotator's.
        seen: drafts as they were when he asked; a draft that is unchanged since does not count.
    """
    before = {
        (item.get("id"), str(item.get("updated_at"))) for item in seen or () if isinstance(item, Mapping)
    }
    for draft in sorted(drafts, key=lambda item: str(item.get("updated_at") or ""), reverse=True):
        if (draft.get("id"), str(draft.get("updated_at"))) in before:
            continue
        regions = _result(draft)
        for region in regions:
            if region.get("id") not in request.ids:
                continue
            value = region.get("value")
            # A text keeps its id when it changes.
            if request.typed is None or (isinstance(value, Mapping) and value.get("text") == request.typed):
                return regions
    return None


def predicted_regions(task: Mapping[str, Any]) -> list[list[Region]]:
    """Return the results of the task's predictions, the oldest first."""
    found = sorted(_items(task, "predictions"), key=lambda item: int(item.get("id") or 0))
    return [_result(item) for item in found]


def used_ids(task: Mapping[str, Any]) -> set[str]:
    """Return the ids of the objects in a task's annotations, drafts and predictions."""
    items = [item for key in ("drafts", "annotations", "predictions") for item in _items(task, key)]
    names = (region_name(region) for item in items for region in _result(item))
    return {name.object_id for name in names if name is not None}


def frame_size(*sources: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Return width and height of the frames in pixels, as the first region that has them says."""
    for regions in sources:
        for region in regions:
            width, height = region.get("original_width"), region.get("original_height")
            if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
                return width, height
    return None


def _is_command(text: Any) -> bool:
    return isinstance(text, str) and text.strip().casefold() in COMMANDS


def _items(task: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = task.get(key)
    # A draft may be a number where Label Studio does not expand it.
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _result(item: Mapping[str, Any]) -> list[Region]:
    result = item.get("result")
    return [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []


def _size(regions: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    size = frame_size(regions)
    if size is None:
        raise SvacError(
            "The points do not say how large their frame is.", "Send them as Label Studio's editor does."
        )
    return size


def _labels(region: Mapping[str, Any]) -> list[str]:
    value = region.get("value")
    names = value.get(str(region.get("type"))) if isinstance(value, Mapping) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _pointed(regions: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> dict[int, FramePrompt]:
    clicks: dict[int, list[Click]] = {}
    boxes: dict[int, tuple[float, float, float, float]] = {}
    for region in regions:
        item = region.get("item_index", 0)
        if not isinstance(item, int) or isinstance(item, bool) or item < 0:
            raise SvacError(
                "A point does not say which frame it is on.", "Send it as Label Studio's editor does."
            )
        if region["type"] in POINTS:
            x, y = _numbers(region, "x", "y")
            clicks.setdefault(item, []).append(
                Click(_pixels(x, size[0]), _pixels(y, size[1]), _is_positive(region))
            )
        else:
            boxes[item] = _box(region, size)  # of several on a frame the last one counts
    return {
        item: FramePrompt(clicks=tuple(clicks.get(item, ())), box=boxes.get(item))
        for item in sorted({*clicks, *boxes})
    }


def _is_positive(region: Mapping[str, Any]) -> bool:
    """Alt+click says no, and so does a label of that name."""
    named_negative = any(name.casefold().startswith("neg") for name in _labels(region))
    return region.get("is_positive", True) is not False and not named_negative


def _box(region: Mapping[str, Any], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A rectangle in percent, turned around its first corner, as the upright box around it in pixels."""
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
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SvacError("A point or box has no place on its frame.", "Send it as Label Studio's editor does.")
    return float(value)
