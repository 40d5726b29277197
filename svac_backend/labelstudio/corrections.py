"""What a person corrected in a task: what the editor holds now, compared with what it was sent."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, says_something
from svac_backend.labelstudio.regions.merge import corrected_hints
from svac_backend.labelstudio.regions.read import Drawn, is_drawn_on, read_drawn, results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas, Region, by_object, frame_size
from svac_backend.labelstudio.regions.sent import sent_regions
from svac_backend.labelstudio.tasks import task_prompts, window_of
from svac_backend.masks.hints import FrameHint, FrameHints
from svac_backend.masks.rle import area, iou
from svac_backend.masks.tracks import CocoRle, ObjectPrompt, Track, prompt_of
from svac_backend.store.objects import NOBODY, SentObject

# The editor returns a scaled or smoothed mask slightly changed.
SAME_MASK = 0.98


# The end of `created_username` of a draft, "Ada Lovelace ada@example.com, 12".
_USER_ID = re.compile(r"(?:.*[,\s])?(\d+)", re.DOTALL)


def person_of(item: Mapping[str, Any]) -> str:
    """Return the id, in Label Studio, of the person who last changed a draft or an annotation; else `NOBODY`."""
    for key in ("updated_by", "completed_by", "created_username", "user"):
        value = item.get(key)
        value = value.get("id") if isinstance(value, Mapping) else value
        if isinstance(value, int | str) and (found := _USER_ID.fullmatch(str(value))):
            return found[1]
    return NOBODY


@dataclass(frozen=True)
class Corrections:
    """What people corrected in a task.

    Attributes:
        masks: what was drawn or erased, by object and frame of the video.
        pointed: clicks and boxes that were answered before, by object and frame of the video.
        objects: every object in the annotation.
        sent: the regions that the annotation started from.
        unfinished: objects whose last answer lacked frames.
    """

    masks: dict[str, dict[int, FrameHint]] = field(default_factory=dict)
    pointed: dict[str, dict[int, FrameHint]] = field(default_factory=dict)
    objects: list[ObjectPrompt] = field(default_factory=list)
    sent: list[Region] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def hints(self, object_id: str) -> dict[int, FrameHint]:
        """Return all hints of an object; on a frame, a mask overrides clicks."""
        return {**self.pointed.get(object_id, {}), **self.masks.get(object_id, {})}

    def to_propagate(self) -> dict[str, dict[int, FrameHint]]:
        """Return the hints of those corrected objects that at least one hint shows.

        Objects whose last answer lacked frames are included, so that they get the rest.
        """
        wanted = [*(name for name, masks in self.masks.items() if masks), *self.unfinished]
        found = {object_id: self.hints(object_id) for object_id in dict.fromkeys(wanted)}
        return {object_id: shown for object_id, shown in found.items() if any(map(_shows, shown.values()))}


@dataclass(frozen=True)
class ReadAnnotation:
    """An annotation or its draft, and what people corrected in it.

    Attributes:
        canvas: the task's frames; None if no region says how large they are, and then nothing was corrected.
        known: the objects that have names, with their labels and expressions.
    """

    config: LabelConfig
    canvas: Canvas | None
    known: list[ObjectPrompt]
    corrections: Corrections

    def tracks(self, regions: Sequence[Region], canvas: Canvas | None = None) -> list[Track]:
        """Return the masks of some of the annotation's regions, on the frames of `canvas` if given.

        Raises:
            SvacError: a region is malformed.
        """
        return results_to_tracks(regions, self.config, self._canvas(canvas), **self._owners())

    def sentences(self) -> dict[str, str]:
        """Return the sentence that names each object: its own, or its label's `prompt`; "" if nobody said one.

        The bare name of a label does not count for an object that a click, a box or a drawing began: a machine may have
        chosen the label, and other objects may have it, too. Nor does any sentence name a single instance of `each:`.
        """
        prompts = {
            name: prompt for one in self.config.drawing_controls() for name, prompt in one.labels.items()
        }
        objects = {one.object_id: one.label for one in (*self.corrections.objects, *self.known)}
        own = {one.object_id: one.expression for one in self.known if says_something(one.expression)}
        return {
            name: own.get(name) or (prompts.get(label) if prompt_of(name) is None else None) or ""
            for name, label in objects.items()
        }

    def drawn(self, regions: Sequence[Region], canvas: Canvas | None = None) -> Drawn:
        """Return the drawings of some of the annotation's regions, each with its object; otherwise as `tracks`."""
        return read_drawn(regions, self.config, self._canvas(canvas), **self._owners())

    def check_size(self, regions: Sequence[Region]) -> None:
        """Raise `SvacError` if something is drawn on the frames, but their size is unknown."""
        if self.canvas is None and is_drawn_on(regions, self.config):
            raise _no_size()

    def _canvas(self, canvas: Canvas | None) -> Canvas:
        found = canvas or self.canvas
        if found is None:
            raise _no_size()
        return found

    def _owners(self) -> dict[str, Any]:
        """Return the arguments that tell which object a hand-drawn region belongs to."""
        return {"tracks": [Track(**vars(one)) for one in self.known], "certain": self.corrections.masks}


def _no_size() -> SvacError:
    return SvacError(
        "No region says how large the frames are (original_width and original_height).",
        "Send them with each region, as Label Studio's editor does.",
    )


def read_annotation(
    now: Sequence[Region],
    predictions: Sequence[Sequence[Region]],
    answered: Mapping[str, SentObject],
    claimed: Sequence[ObjectPrompt],
    task_data: Mapping[str, Any],
    config: LabelConfig,
    *,
    parent: Sequence[Region] | None = None,
) -> ReadAnnotation:
    """Read an annotation, and compare it with what its editor was sent.

    Args:
        now: the annotation's regions, or those of its draft.
        predictions: the results of the task's predictions, the oldest first.
        answered: the answers to the calls of the annotation's person, see `store.objects`.
        claimed: objects that were asked for in the editor.
        task_data: the task's `data`.
        config: the project's labelling config.
        parent: the one of `predictions` that the annotation was made from, if known.

    Raises:
        SvacError: a region, or the task's window, is malformed.
    """
    # What others or unknown people asked for is not this person's, unless their annotation has it.
    there = set(by_object(now))
    there |= {prompt for name in there if (prompt := prompt_of(name))}
    foreign = {name for name, one in answered.items() if not one.own} - there
    # Their ids are taken, but without a label they get no drawings.
    claimed = [ObjectPrompt(one.object_id, "", "") if one.object_id in foreign else one for one in claimed]
    # A prompt for instances is not an object itself: the instances have ids of their own.
    known = [one for one in known_objects(task_data, config, claimed) if one.each is None]
    on = config.frames.name if config.frames else None
    size = frame_size(now, *(one.regions for one in answered.values()), *predictions, on=on)
    canvas = None if size is None else Canvas(*size, window_of(task_data))
    corrections = Corrections()
    if canvas is not None:
        corrections = find_corrections(now, predictions, answered, config, canvas, known=known, parent=parent)
    return ReadAnnotation(config, canvas, known, corrections)


def known_objects(
    task_data: Mapping[str, Any], config: LabelConfig, claimed: Sequence[ObjectPrompt]
) -> list[ObjectPrompt]:
    """Return the objects that have names: those of the task's prompt, and those asked for in the editor."""
    try:
        own = task_prompts(task_data, config, max_chars=sys.maxsize)
    except SvacError:
        own = []  # an empty prompt names no objects
    return list({one.object_id: one for one in (*own, *claimed)}.values())


def find_corrections(
    now: Sequence[Region],
    predictions: Sequence[Sequence[Region]],
    answered: Mapping[str, SentObject],
    config: LabelConfig,
    canvas: Canvas,
    *,
    known: Sequence[ObjectPrompt] = (),
    parent: Sequence[Region] | None = None,
) -> Corrections:
    """Compare an annotation with what its editor was sent; arguments and errors as in `read_annotation`."""
    regions = [region for one in answered.values() for region in one.regions]
    sent = _relabelled(sent_regions(now, regions, predictions, parent=parent), now)
    tracks = [Track(**vars(one)) for one in known]
    held = _held(answered, now, config, canvas)
    masks = corrected_hints(sent, now, config, canvas, tracks=tracks, earlier=held)
    objects = read_drawn(now, config, canvas, tracks=tracks, certain=masks).objects.values()
    names = {one.object_id: one for one in known}
    pointed = {
        object_id: {frame: hint for frame, hint in one.hints.items() if hint.mask is None}
        for object_id, one in answered.items()
    }
    return Corrections(
        masks=masks,
        pointed={name: shown for name, shown in pointed.items() if shown},
        # The editor gives accepted regions the label selected at that moment, so the known label is the right one.
        objects=[names.get(one.object_id, one) for one in objects],
        sent=sent,
        unfinished=[name for name, one in answered.items() if one.hints and not one.complete],
    )


def _held(
    answered: Mapping[str, SentObject], now: Sequence[Region], config: LabelConfig, canvas: Canvas
) -> FrameHints:
    """Return earlier masks that the annotation still has unchanged, which leaves out another annotator's."""
    earlier = {
        object_id: {frame: hint for frame, hint in one.hints.items() if hint.mask is not None}
        for object_id, one in answered.items()
    }
    frames = {frame for hints in earlier.values() for frame in hints}
    if not frames:
        return {}
    there = [
        region
        for region in now
        if isinstance(item := region.get("item_index"), int) and canvas.frame(item) in frames
    ]
    tracks = results_to_tracks(there, config, canvas, certain=earlier)
    masks_now = {track.object_id: track.masks for track in tracks}
    return {
        object_id: {
            frame: hint
            for frame, hint in hints.items()
            if hint.mask is not None and _same(hint.mask, masks_now.get(object_id, {}).get(frame))
        }
        for object_id, hints in earlier.items()
    }


def _same(mask: CocoRle, found: CocoRle | None) -> bool:
    if found is None or not area(mask):
        return found is None and not area(mask)
    return found["size"] == mask["size"] and iou(mask, found) >= SAME_MASK


def _relabelled(sent: Sequence[Region], now: Sequence[Region]) -> list[Region]:
    """Give the sent regions the labels that they have now: a new label alone is nothing to propagate."""
    values = {(region.get("id"), region.get("from_name")): region.get("value") for region in now}
    relabelled = []
    for region in sent:
        value = values.get((region.get("id"), region.get("from_name")))
        kind = str(region.get("type"))
        key = kind if kind.endswith("labels") else ""
        before = region.get("value") or {}
        if value and key in value and key in before:
            region = {**region, "value": {**before, key: value[key]}}
        relabelled.append(region)
    return relabelled


def _shows(hint: FrameHint) -> bool:
    return hint.mask is None or area(hint.mask) > 0
