"""What a person showed on a frame: a corrected mask, clicks or a box. The input of propagation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.masks.tracks import CocoRle


@dataclass(frozen=True)
class Click:
    """A point in pixels of the displayed frame; `positive` means: this belongs to the object."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True)
class FrameHint:
    """What a person said about one object on one frame: either a mask, or clicks and a box.

    Attributes:
        mask: COCO RLE at the video's display size. An empty mask says that the object is not on this frame.
        clicks: points on and off the object.
        box: left, top, right, bottom in pixels of the displayed frame.

    Raises:
        SvacError: nothing is said, a mask comes together with clicks or a box, or the box has no area.
    """

    mask: CocoRle | None = None
    clicks: tuple[Click, ...] = ()
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if (self.mask is None) == (not self.clicks and self.box is None):
            raise SvacError(
                "A frame hint is empty, or mixes a mask with clicks.", "Give a mask, or clicks and a box."
            )
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise SvacError(
                f"The box {list(self.box)} has no area.", "Draw it from one corner to the opposite one."
            )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "mask": None if self.mask is None else dict(self.mask),
            "clicks": [[click.x, click.y, click.positive] for click in self.clicks],
            "box": None if self.box is None else list(self.box),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FrameHint:
        """Read what `to_json` wrote."""
        mask, box = data["mask"], data["box"]
        return cls(
            mask=None if mask is None else CocoRle(size=list(mask["size"]), counts=mask["counts"]),
            clicks=tuple(Click(float(x), float(y), bool(positive)) for x, y, positive in data["clicks"]),
            box=None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        )


# Object id -> 0-based frame -> what a person said there.
FrameHints = Mapping[str, Mapping[int, FrameHint]]
