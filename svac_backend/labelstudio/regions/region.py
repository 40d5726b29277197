"""What a region is: Label Studio's dict, the id that names its object, and the frames that it lies on."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

from svac_backend.errors import SvacError
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.limits import check_size
from svac_backend.settings import Settings

# One item of an annotation's, draft's or prediction's `result`. Those with a shape carry `id`, `from_name` (the
# control), `to_name` (the frames or the video), `type`, `value` (the shape and its labels), `original_width` and
# `original_height` in pixels, `item_index` (0-based place of the frame in the task), and maybe `origin`, `score`,
# `dynamic`. They come from outside and may hold anything else (`meta`, `parentID`, ...), which must go back unchanged,
# so this is the dict itself.
Region: TypeAlias = dict[str, Any]
# A whole `result`, or the results of one region, that are only read.
Results: TypeAlias = Sequence[Mapping[str, Any]]
# Object id and frame of the video.
Place: TypeAlias = tuple[str, int]

# A mask has fewer polygons than this; in an id, multiples of it count the answers.
PARTS = 1000
_ID = re.compile(r"(?P<object>\S+)-f(?P<frame>[0-9]{5,9})(?:-(?P<part>[0-9]{1,9}))?")


def regions_of(result: Any, *, foreign: bool = False) -> list[Region]:
    """Return the regions of a `result` from outside, checked; none if it is not a list.

    Missing fields are allowed: a relation has neither id nor value. An item that is not a JSON object is left out. With
    `foreign` (for predictions, or to look at ids only, where no person's work can be lost), malformed regions are, too.

    Raises:
        SvacError: an id, a name, a type or a value has the wrong type.
    """
    regions = [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []
    problems = [problem for region in regions if (problem := _no_region(region))]
    if problems and not foreign:
        raise SvacError(f"A region {problems[0]}.", "Send results as Label Studio does.")
    return [region for region in regions if not _no_region(region)] if problems else regions


def _no_region(region: Region) -> str:
    """Say why a JSON object is not a region; empty if it is one."""
    for key in ("id", "from_name", "to_name", "type"):
        if not isinstance(region.get(key, ""), str | None):
            return f"has no text as its '{key}'"
    return "" if isinstance(region.get("value", {}), dict | None) else "has no object as its 'value'"


@dataclass(frozen=True)
class RegionName:
    """The id of a region that this backend made, in parts; ids are written and read only here.

    For example `obj1-f00004`; its second polygon is `obj1-f00004-2`, and in the second answer it is `obj1-f00004-1001`.

    Attributes:
        frame: the video's 0-based frame.
        generation: number of the answer to the editor; 0 for the first, and for predictions.
        part: number of the polygon in the mask, from 1 on.
    """

    object_id: str
    frame: int
    generation: int = 0
    part: int = 1

    def __str__(self) -> str:
        number = self.generation * PARTS + self.part
        return f"{self.object_id}-f{self.frame:05d}" + (f"-{number}" if number > 1 else "")

    @classmethod
    def read(cls, id_: Any) -> RegionName | None:
        """Return the parts of an id, or None for an id that the editor made for a person's drawing."""
        match = _ID.fullmatch(str(id_))
        if match is None:
            return None
        generation, part = divmod(int(match["part"] or 1), PARTS)
        return cls(match["object"], int(match["frame"]), generation, part)

    @staticmethod
    def can_hold(object_id: str) -> bool:
        """Return whether region ids with this object id can be read back."""
        return bool(object_id) and "-f" not in object_id and not re.search(r"[\s:]", object_id)


def region_name(region: Mapping[str, Any]) -> RegionName | None:
    """Return the parts of a region's id, or None for a region that a person drew."""
    return RegionName.read(region.get("id"))


def region_id(region: Mapping[str, Any]) -> str:
    """Return a region's id; if it has none, like some imported pre-annotations, a name derived from its shape."""
    id_ = region.get("id")
    if isinstance(id_, str) and id_:
        return id_
    value = region.get("value")
    shape = (
        {k: v for k, v in value.items() if not k.endswith("labels")} if isinstance(value, Mapping) else value
    )
    text = json.dumps([id_, region.get("item_index"), shape], sort_keys=True, default=str)
    return "r" + hashlib.sha256(text.encode()).hexdigest()[:10]


def labels_of(region: Mapping[str, Any]) -> list[str]:
    """Return the labels of a region, as text: others than Label Studio write numbers and objects there, too."""
    value = region.get("value")
    names = value.get(str(region.get("type"))) if isinstance(value, Mapping) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def by_object(regions: Iterable[Region]) -> dict[str, list[Region]]:
    """Return the regions of each object, without those that people drew."""
    found: dict[str, list[Region]] = defaultdict(list)
    for region in regions:
        if (name := region_name(region)) is not None:
            found[name.object_id].append(region)
    return dict(found)


def by_place(regions: Iterable[Region]) -> dict[Place, list[Region]]:
    """Return the regions of each object on each frame, without those that people drew."""
    found: dict[Place, list[Region]] = defaultdict(list)
    for region in regions:
        if (name := region_name(region)) is not None:
            found[name.object_id, name.frame].append(region)
    return dict(found)


@dataclass(frozen=True)
class Canvas:
    """The frames of a task, on which its regions are drawn.

    Attributes:
        width, height: the video's display size in pixels.
        window: which of the video's frames the task shows; None for all.
    """

    width: int
    height: int
    window: Window | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def frame(self, item: int) -> int:
        """Return the video's 0-based frame that the task shows as `item_index` `item`."""
        return item if self.window is None else self.window.frame(item)

    def item(self, frame: int) -> int | None:
        """Return the `item_index` of a frame of the video, or None if the task does not show it."""
        return frame if self.window is None else self.window.item(frame)


def _is_side(value: Any) -> TypeGuard[float]:
    """Whether a value is a number of pixels; other tools may write 160.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value > 0 and (isinstance(value, int) or value.is_integer())


def frame_size(*sources: Results, on: str | None = None) -> tuple[int, int] | None:
    """Return width and height of the frames in pixels, from the first region that has them.

    Args:
        sources: results.
        on: name, in the labelling config, of the picture whose regions count; others may have another size.

    Raises:
        SvacError: they are larger than the backend accepts.
    """
    for regions in sources:
        for region in regions:
            width, height = region.get("original_width"), region.get("original_height")
            if on is not None and region.get("to_name") != on:
                continue
            if _is_side(width) and _is_side(height):
                check_size(int(height), int(width))
                return int(width), int(height)
    return None


@dataclass(frozen=True)
class RegionOptions:
    """Which masks become regions, and how exact the regions are.

    Attributes:
        tolerance_px, iou_floor: for polygons, see `masks.polygons.mask_to_polygons`.
        min_area_px: masks of fewer pixels are left out, as empty ones always are.
        frames: only these frames of the video get regions; None for all.
    """

    tolerance_px: float = 1.0
    iou_floor: float = 0.98
    min_area_px: int = 16
    frames: Collection[int] | None = None

    @classmethod
    def of(cls, settings: Settings, frames: Collection[int] | None = None) -> RegionOptions:
        """Return the options that the settings ask for."""
        return cls(settings.polygon_tolerance_px, settings.polygon_iou_floor, settings.min_area_px, frames)


DEFAULT_OPTIONS = RegionOptions()
