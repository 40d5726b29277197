"""The tags of a labelling config that this backend knows, one class each."""

from __future__ import annotations

from dataclasses import dataclass, field

# The kinds that results.py writes, the better one first: brush keeps holes, a polygon is one ring.
SHOWN_KINDS = ("brush", "polygon")


def task_key(expression: str | None) -> str | None:
    """`$frames` -> `frames`; anything else is a literal."""
    text = (expression or "").strip()
    return text[1:] if len(text) > 1 and text.startswith("$") else None


@dataclass(frozen=True)
class FramesTag:
    """`<Image valueList="$frames">`: its name, and the key of the task's list of frame addresses."""

    name: str
    key: str


@dataclass(frozen=True)
class VideoTag:
    """`<Video value="$video" framerate="$fps">`: name, key of the address, `framerate` as written."""

    name: str
    key: str
    framerate: str | None = None

    @property
    def fps_key(self) -> str | None:
        """The task key that holds the frame rate, or None when `framerate` is a number or absent."""
        return task_key(self.framerate)


@dataclass(frozen=True)
class MaskControl:
    """A control that draws masks.

    Attributes:
        kind: `brush`, `polygon`, `vector`, `bitmask`, or `rectangle` (a box, filled).
        name: the control's name, `from_name` of its results.
        to_name: the object that it draws on.
        labels: label -> its `prompt` attribute, or None; in the config's order. A label with an alias is
            known by the alias, since that is what Label Studio stores.
        labels_name: of a pair such as `<Brush/>` + `<Labels/>`: the name of the `<Labels>` control.
    """

    kind: str
    name: str
    to_name: str
    labels: dict[str, str | None] = field(default_factory=dict)
    labels_name: str | None = None

    def find_label(self, name: str) -> str | None:
        """Return the control's label of that name, exact first, then in any case; or None."""
        wanted = name.strip()
        if wanted in self.labels:
            return wanted
        return next((label for label in self.labels if label.casefold() == wanted.casefold()), None)


@dataclass(frozen=True)
class TextControl:
    """The `<TextArea>` into which the annotator types what to segment."""

    name: str
    to_name: str


@dataclass(frozen=True)
class SmartControl:
    """Key points or rectangles that steer the model; `kind` is `keypoint` or `rectangle`."""

    kind: str
    name: str
    to_name: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoxTracks:
    """`<VideoRectangle>` with a `<Labels>` tag beside it: boxes that follow an object through the video.

    Attributes:
        name: the control's name, `from_name` of its results.
        to_name: the video that it draws on.
        labels: the labels of the `<Labels>` tag.
        labels_name: the name of that tag, or None.
        overview: `svac="boxes"`: this backend fills it with the boxes of the masks.
    """

    name: str
    to_name: str
    labels: tuple[str, ...] = ()
    labels_name: str | None = None
    overview: bool = False
