"""What is drawn on the frames: Label Studio's results, a region each, with their masks decoded when they are needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.shapes import kind_of, shape_to_mask
from svac_backend.labelstudio.windows import Window
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle

_ID = re.compile(r"(?P<object>\S+)-f\d{5,}(-\d+)?")


@dataclass
class Drawing:
    """A region on a frame.

    Attributes:
        id: the region's id.
        frame: the video's 0-based frame.
        label: the label that it carries, or None.
        results: its results: one, or the two of a pair such as `<Brush/>` + `<Labels/>`; the first has the shape.
        size: width and height of the video in pixels.
        object_id: whose it is; None until that is found out.
    """

    id: str
    frame: int
    label: str | None
    results: list[Mapping[str, Any]]
    size: tuple[int, int]
    object_id: str | None = None

    @cached_property
    def mask(self) -> CocoRle:
        """The mask at the video's display size; decoded when it is asked for. `SvacError` if it is malformed."""
        return to_coco(shape_to_mask(self.results[0], *self.size))


def read_drawings(
    results: Iterable[Any], config: LabelConfig, size: tuple[int, int], window: Window | None
) -> list[Drawing]:
    """Return every region on the frames that is a mask, in the order of the results.

    Args:
        results: the annotation's `result`.
        config: the project's labelling config.
        size: width and height of the video in pixels.
        window: which frames the task shows; None for all.

    Raises:
        SvacError: a region has no id, or lies on a frame that the task does not have.
    """
    frames = config.frames
    names = {name for control in config.drawing_controls() for name in (control.name, control.labels_name)}
    found: dict[tuple[str, int], Drawing] = {}
    for region in results:
        if not isinstance(region, Mapping):
            raise SvacError(
                "A result of the annotation is not an object.", "Send results as Label Studio does."
            )
        value = region.get("value")
        if region.get("dynamic"):
            continue  # it steers the model, or deletes another one
        if frames is None or region.get("to_name") != frames.name or region.get("from_name") not in names:
            continue
        kind = kind_of(value) if isinstance(value, Mapping) else None
        if kind is None or not isinstance(value, Mapping):
            continue
        frame, id_ = _frame(region, window), region.get("id")
        if not isinstance(id_, str) or not id_:
            raise SvacError(f"A region on frame {frame} has no id.", "Send results as Label Studio does.")
        drawing = found.get((id_, frame))
        label = _label(value, kind)
        if drawing is None:
            named = _ID.fullmatch(id_)
            found[id_, frame] = Drawing(id_, frame, label, [region], size, named["object"] if named else None)
        else:
            drawing.results.append(region)
            drawing.label = drawing.label or label
    return list(found.values())


def _frame(region: Mapping[str, Any], window: Window | None) -> int:
    """Return the video's frame of a region; pictures that are no list have no `item_index`."""
    item = region.get("item_index")
    item = 0 if item is None else item
    if not isinstance(item, int) or isinstance(item, bool) or item < 0:
        raise SvacError(
            f"The item_index of the region '{region.get('id')}' is no frame number.",
            "Send results as Label Studio does.",
        )
    if window is None:
        return item
    if item >= window.count:
        raise SvacError(
            f"The region '{region.get('id')}' lies on frame {item}, the task has {window.count}.",
            "Read it with the window of its own task.",
        )
    return window.frame(item)


def _label(value: Mapping[str, Any], kind: str) -> str | None:
    labels = value.get(f"{kind}labels") or value.get("labels")
    return str(labels[0]) if isinstance(labels, list) and labels else None
