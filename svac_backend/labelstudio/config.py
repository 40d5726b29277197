"""What a project's labelling config can show: the frames, the video, the masks, the prompt; a class for each tag.

The XML comes from outside, so defusedxml parses it, which refuses entity expansion and external entities.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree  # type: ignore[import-untyped]
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]

from svac_backend.errors import SvacError

# Names of labels that only tell objects apart, like those of the shipped configs.
_NO_WORDS = re.compile(r"object(\s*\d+)?", re.IGNORECASE)
# The kinds of masks that this backend writes, the better one first: a brush mask keeps holes, a polygon is one ring.
SHOWN_KINDS = ("brush", "polygon")


def task_key(expression: str | None) -> str | None:
    """`$frames` -> `frames`; anything else is a literal."""
    text = (expression or "").strip()
    return text[1:] if len(text) > 1 and text.startswith("$") else None


def says_something(name: str) -> bool:
    """Return whether a label's name, or a typed text, describes what to look for; `object 2` does not."""
    return bool(name.strip()) and _NO_WORDS.fullmatch(name.strip()) is None


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
        """The task key that holds the frame rate; None if `framerate` is a number or absent."""
        return task_key(self.framerate)


@dataclass(frozen=True)
class MaskControl:
    """A control that draws masks.

    Attributes:
        kind: `brush`, `polygon`, `vector`, `bitmask`, or `rectangle` (a box, filled).
        name: the control's name, `from_name` of its results.
        to_name: the object that it draws on.
        labels: label -> its `prompt` attribute or None, in the config's order. A label with an alias goes by the alias,
            as in Label Studio's results.
        labels_name: the name of the `<Labels>` control in a pair such as `<Brush/>` + `<Labels/>`.
    """

    kind: str
    name: str
    to_name: str
    labels: dict[str, str | None] = field(default_factory=dict)
    labels_name: str | None = None

    @property
    def colours(self) -> tuple[str, ...]:
        """Labels that only tell objects apart, `object`, `object 2`, ...; none if the first label says something."""
        first = next(iter(self.labels), "")
        if not first or says_something(first) or self.labels[first]:
            return ()
        return tuple(name for name, prompt in self.labels.items() if not prompt and not says_something(name))

    def colour(self, used: Collection[str], number: int) -> str:
        """Return a label for an object that nobody labelled: the first unused one of `colours`, else each in turn.

        Args:
            used: the labels of the other objects.
            number: how many objects there are. Without `colours`, the label is always the first one.
        """
        free = next((label for label in self.colours if label not in used), None)
        return free or (self.colours[number % len(self.colours)] if self.colours else next(iter(self.labels)))

    def find_label(self, name: str) -> str | None:
        """Return the control's label with that name, ignoring case if there is no exact match; or None."""
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
class BoxTracks:
    """`<VideoRectangle>` with a `<Labels>` tag beside it: boxes that follow an object through the video; or outlines.

    Attributes:
        name: the control's name, `from_name` of its results.
        to_name: the video that it draws on.
        labels: the labels of the `<Labels>` tag.
        labels_name: the name of that tag, or None.
        overview: it has `svac="boxes"` (for outlines `svac="masks"`), which Label Studio ignores: this backend fills it
            with the boxes or outlines of the masks, one track for each object.
        outlines: it is `<VideoVectorLabels>`, or `<VideoVector>` with a `<Labels>` tag, of Label Studio Enterprise.
    """

    name: str
    to_name: str
    labels: tuple[str, ...] = ()
    labels_name: str | None = None
    overview: bool = False
    outlines: bool = False


# Tags that draw masks on an image, with a <Labels> tag beside them; those with labels of their own end in "labels".
MASK_TAGS = ("brush", "polygon", "vector", "bitmask", "rectangle")

# Tags of regions that follow an object through the video.
_FOLLOWING = ("videorectangle", "videovector", "videovectorlabels")

SHIPPED_HINT = "Start from labelstudio_config/brush_frames.xml or polygon_frames.xml."


@dataclass(frozen=True)
class LabelConfig:
    """The parts of a labelling config that this backend uses.

    Attributes:
        frames: the image list on which masks are drawn, or None.
        video: the first video, or None; `videos` has all.
        controls: every control that draws masks, on any object, in the config's order.
        text: the prompt's TextArea, or None.
        notes: `<TextArea svac="notes">`, in which this backend tells the annotator what went wrong, or None.
        box_tracks: every `<VideoRectangle>`, `<VideoVector>` and `<VideoVectorLabels>`.
        names: name of every named tag -> its tag in lower case.
    """

    frames: FramesTag | None = None
    videos: tuple[VideoTag, ...] = ()
    controls: tuple[MaskControl, ...] = ()
    text: TextControl | None = None
    notes: TextControl | None = None
    box_tracks: tuple[BoxTracks, ...] = ()
    names: dict[str, str] = field(default_factory=dict)

    @property
    def video(self) -> VideoTag | None:
        """The first video of the config, or None."""
        return self.videos[0] if self.videos else None

    def category(self, label: str) -> str:
        """Return the category of a label in a data set: `object 2` only tells objects apart, so it is an `object`."""
        alike = (control.colours for control in self.drawing_controls() if label in control.colours)
        return next(alike, (label,))[0]

    @property
    def drawing_names(self) -> set[str]:
        """The possible `from_name`s of a mask on the frames: each drawing control, and the `<Labels>` beside it."""
        names = (name for control in self.drawing_controls() for name in (control.name, control.labels_name))
        return {name for name in names if name}

    @property
    def overview(self) -> BoxTracks | None:
        """The `<VideoRectangle svac="boxes">` that can show boxes of the masks, or None."""
        return self._first_overview(outlines=False)

    @property
    def outlines(self) -> BoxTracks | None:
        """The `<VideoVectorLabels svac="masks">` that can show the masks' outlines on the video itself, or None."""
        return self._first_overview(outlines=True)

    def _first_overview(self, *, outlines: bool) -> BoxTracks | None:
        shown = (one for one in self.box_tracks if one.overview and one.labels and one.outlines == outlines)
        return next(shown, None)

    def drawing_controls(self) -> tuple[MaskControl, ...]:
        """Return every control whose regions on the frames are masks; none without frames."""
        if self.frames is None:
            return ()
        return tuple(control for control in self.controls if control.to_name == self.frames.name)

    def mask_control(self, kind: str | None = None) -> MaskControl:
        """Return the control whose masks the editor can show on the frames, a brush rather than a polygon.

        Args:
            kind: `brush` or `polygon` to insist on one.

        Raises:
            SvacError: there is no such control; the message says what is missing.
        """
        if kind is not None and kind not in SHOWN_KINDS:
            raise SvacError(
                f"This backend does not write masks of kind '{kind}'.",
                f"Choose one of {', '.join(SHOWN_KINDS)}.",
            )
        if self.frames is None:
            raise self._no_frames()
        kinds = SHOWN_KINDS if kind is None else (kind,)
        on_frames = self.drawing_controls()
        usable = [control for control in on_frames if control.kind in kinds]
        for wanted in kinds:
            for control in usable:
                if control.kind == wanted and control.labels:
                    return control
        if usable:
            raise SvacError(
                f"The control '{usable[0].name}' has no <Label> with a fixed value.",
                'Put at least one <Label value="object"/> into it; labels from the task are not supported.',
            )
        raise self._no_control(self.frames, kinds, on_frames)

    def _no_frames(self) -> SvacError:
        plain_image = next((name for name, tag in self.names.items() if tag == "image"), None)
        if plain_image is not None:
            return SvacError(
                f"The <Image> tag '{plain_image}' has no valueList, so it shows one picture, not frames.",
                f'Write <Image name="{plain_image}" valueList="$frames"/>. {SHIPPED_HINT}',
            )
        if self.videos:
            return SvacError(
                "The config has a <Video> tag but no <Image valueList> for the frames; "
                "Label Studio's editor cannot draw masks on <Video>.",
                f'Add <Image name="frames" valueList="$frames"/> with <BrushLabels>. {SHIPPED_HINT}',
            )
        return SvacError("The config has no <Image valueList> for a video's frames.", SHIPPED_HINT)

    def _no_control(
        self, frames: FramesTag, kinds: tuple[str, ...], on_frames: tuple[MaskControl, ...]
    ) -> SvacError:
        wanted = " or ".join(f"<{kind.capitalize()}Labels>" for kind in kinds)
        message = f'The config has no {wanted} with toName="{frames.name}".'
        if on_frames:
            message = f"{message[:-1]}, only {_listed(on_frames)}."
        elif self.controls:
            message = f"{message[:-1]}; {_listed(self.controls)} draws on '{self.controls[0].to_name}'."
        return SvacError(message, f"Add one with a <Label>. {SHIPPED_HINT}")


def parse_config(xml: str) -> LabelConfig:
    """Read a project's `label_config`.

    Raises:
        SvacError: it is empty, malformed, or declares entities.
    """
    if not xml or not xml.strip():
        raise SvacError("The project has no labelling config.", SHIPPED_HINT)
    try:
        root: Element = ElementTree.fromstring(xml.strip(), forbid_dtd=True)
    except ParseError as error:
        raise SvacError(
            f"The labelling config is not well-formed XML ({error}).",
            "Open the project's Settings > Labeling Interface > Code and correct it.",
        ) from error
    except (DefusedXmlException, ValueError) as error:
        raise SvacError(
            f"The labelling config is refused: {type(error).__name__}.",
            "Remove its DOCTYPE, entities and encoding declaration.",
        ) from error
    tags = [tag for tag in root.iter() if isinstance(tag.tag, str)]
    controls = _mask_controls(tags)
    frames = _frames(tags, controls)
    return LabelConfig(
        frames=frames,
        videos=_videos(tags),
        controls=controls,
        text=_text(tags, frames),
        notes=_notes(tags),
        box_tracks=_box_tracks(tags),
        names={tag.attrib["name"]: _kind(tag) for tag in tags if tag.attrib.get("name")},
    )


def _kind(tag: Element) -> str:
    # Like the editor, ignore the case of tags.
    return str(tag.tag).lower()


def _targets(tag: Element) -> list[str]:
    return [name.strip() for name in tag.attrib.get("toName", "").split(",") if name.strip()]


def _labels(tag: Element) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for label in tag.iter():
        name = label.attrib.get("alias") or label.attrib.get("value") or ""
        if isinstance(label.tag, str) and _kind(label) == "label" and name and not name.startswith("$"):
            found[name] = " ".join(label.attrib.get("prompt", "").split()) or None
    return found


def _mask_controls(tags: list[Element]) -> tuple[MaskControl, ...]:
    found = []
    for tag in tags:
        name = tag.attrib.get("name", "")
        for target in _targets(tag) if name else []:
            kind = _kind(tag).removesuffix("labels")
            if kind not in MASK_TAGS or _true(tag, "smartOnly"):
                continue  # with smartOnly it only guides the model and leaves no region
            labels = (_labels(tag), None) if kind != _kind(tag) else _pair(tags, target)
            found.append(MaskControl(kind, name, target, *labels))
    return tuple(found)


def _pair(tags: list[Element], target: str) -> tuple[dict[str, str | None], str | None]:
    """Return labels and name of the `<Labels>` tag that labels drawings on `target`."""
    labels = next((tag for tag in tags if _kind(tag) == "labels" and target in _targets(tag)), None)
    return ({}, None) if labels is None else (_labels(labels), labels.attrib.get("name"))


def _box_tracks(tags: list[Element]) -> tuple[BoxTracks, ...]:
    found = []
    for tag in tags:
        name = tag.attrib.get("name", "")
        kind = _kind(tag)
        for target in _targets(tag) if name and kind in _FOLLOWING else []:
            own = kind == "videovectorlabels"
            labels, labels_name = (_labels(tag), None) if own else _pair(tags, target)
            outlines = kind != "videorectangle"
            wanted = "masks" if outlines else "boxes"
            # The editor gives results of <VideoVector> the name of the <Labels> beside it.
            overview = tag.attrib.get("svac", "").strip().lower() == wanted and kind != "videovector"
            found.append(BoxTracks(name, target, tuple(labels), labels_name, overview, outlines))
    return tuple(found)


def _frames(tags: list[Element], controls: tuple[MaskControl, ...]) -> FramesTag | None:
    found = []
    for tag in tags:
        key = task_key(tag.attrib.get("valueList"))
        if _kind(tag) == "image" and key and tag.attrib.get("name"):
            found.append(FramesTag(tag.attrib["name"], key))
    drawn_on = {control.to_name for control in controls if control.kind in SHOWN_KINDS}
    return next((tag for tag in found if tag.name in drawn_on), found[0] if found else None)


def _videos(tags: list[Element]) -> tuple[VideoTag, ...]:
    found = []
    for tag in tags:
        key = task_key(tag.attrib.get("value"))
        if _kind(tag) == "video" and key and tag.attrib.get("name"):
            found.append(
                VideoTag(tag.attrib["name"], key, tag.attrib.get("framerate") or tag.attrib.get("frameRate"))
            )
    return tuple(found)


def _text(tags: list[Element], frames: FramesTag | None) -> TextControl | None:
    """Return the prompt's TextArea: a smart one first, since no other asks the model; on the frames; named `prompt`."""
    ranked = []
    for tag in tags:
        name, targets = tag.attrib.get("name"), _targets(tag)
        if _kind(tag) != "textarea" or not name or not targets or _true(tag, "perRegion") or _is_notes(tag):
            continue
        on_frames = frames is not None and frames.name in targets
        rank = (_true(tag, "smart"), on_frames, name.lower() == "prompt")
        ranked.append((rank, TextControl(name, frames.name if frames and on_frames else targets[0])))
    return max(ranked, key=lambda item: item[0])[1] if ranked else None


def _is_notes(tag: Element) -> bool:
    return _kind(tag) == "textarea" and tag.attrib.get("svac", "").strip().lower() == "notes"


def _notes(tags: list[Element]) -> TextControl | None:
    found = [tag for tag in tags if _is_notes(tag) and tag.attrib.get("name") and _targets(tag)]
    return TextControl(found[0].attrib["name"], _targets(found[0])[0]) if found else None


def _true(tag: Element, attribute: str) -> bool:
    return tag.attrib.get(attribute, "").strip().lower() == "true"


def _listed(controls: tuple[MaskControl, ...]) -> str:
    return ", ".join(f"{control.kind} '{control.name}'" for control in controls)


@lru_cache(maxsize=64)
def cached_config(label_config: str) -> LabelConfig:
    """Return `parse_config` of a config, cached, since every /predict carries the config."""
    return parse_config(label_config)
