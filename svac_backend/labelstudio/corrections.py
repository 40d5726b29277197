"""What a person corrected in a task, from what its editor was sent and what it holds now. Torch-free."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.regions.merge import corrected_prompts
from svac_backend.labelstudio.regions.read import drawn_objects, results_to_tracks
from svac_backend.labelstudio.regions.sent import Region, sent_regions
from svac_backend.labelstudio.tasks import Window, task_prompts
from svac_backend.masks.hints import FrameHint, FrameHints
from svac_backend.masks.rle import area, iou
from svac_backend.masks.tracks import CocoRle, ObjectPrompt, Track
from svac_backend.store.objects import SentObject

# A mask that a person made comes back from the editor a little different where it was scaled or smoothed.
SAME_MASK = 0.98

HintsByFrame = dict[int, FrameHint]


@dataclass(frozen=True)
class Corrections:
    """What persons showed in a task.

    Attributes:
        masks: by object and frame of the video, what was drawn, or erased.
        pointed: likewise clicks and boxes that were answered before.
        objects: every object that the annotation has.
        sent: the regions that the annotation started from.
        unfinished: objects whose last answer had not all frames.
    """

    masks: dict[str, HintsByFrame] = field(default_factory=dict)
    pointed: dict[str, HintsByFrame] = field(default_factory=dict)
    objects: list[ObjectPrompt] = field(default_factory=list)
    sent: list[Region] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def prompts(self, object_id: str) -> HintsByFrame:
        """Return all that was shown of an object; on a frame the mask counts."""
        return {**self.pointed.get(object_id, {}), **self.masks.get(object_id, {})}

    def to_propagate(self) -> dict[str, HintsByFrame]:
        """Return the prompts of those objects that were corrected, where at least one prompt shows the object.

        Objects whose last answer had not all frames yet are finished.
        """
        wanted = [*(name for name, masks in self.masks.items() if masks), *self.unfinished]
        found = {object_id: self.prompts(object_id) for object_id in dict.fromkeys(wanted)}
        return {object_id: shown for object_id, shown in found.items() if any(map(_shows, shown.values()))}


def known_objects(
    task_data: Mapping[str, Any], config: LabelConfig, claimed: Sequence[ObjectPrompt]
) -> list[ObjectPrompt]:
    """Return the objects that have names: those of the task's prompt, and those asked for in the editor."""
    try:
        own = task_prompts(task_data, config, max_chars=sys.maxsize)
    except SvacError:
        own = []  # a prompt that asks for nothing names nothing
    return list({one.object_id: one for one in (*own, *claimed)}.values())


def find_corrections(
    now: Sequence[Region],
    predictions: Sequence[Sequence[Region]],
    answered: Mapping[str, SentObject],
    config: LabelConfig,
    size: tuple[int, int],
    *,
    window: Window | None = None,
    known: Sequence[ObjectPrompt] = (),
    parent: Sequence[Region] | None = None,
) -> Corrections:
    """Compare an annotation with what the editor was sent.

    Args:
        now: the annotation's regions, or those of its draft.
        predictions: the results of the task's predictions, the oldest first.
        answered: what interactive calls of the task were answered.
        config: the project's labelling config.
        size: width and height of the frames in pixels.
        window: which frames the task shows.
        known: objects with their labels and expressions.
        parent: of `predictions`, the one that the annotation was made from, where that is known.

    Raises:
        SvacError: a region is malformed.
    """
    width, height = size
    regions = [region for one in answered.values() for region in one.regions]
    sent = _relabelled(sent_regions(now, regions, predictions, parent=parent), now)
    tracks = [Track(**vars(one)) for one in known]
    held = _held(answered, now, config, size, window)
    masks = corrected_prompts(
        sent, now, config, width=width, height=height, window=window, tracks=tracks, earlier=held
    )
    objects = drawn_objects(
        now, config, width=width, height=height, window=window, tracks=tracks, certain=masks
    )
    names = {one.object_id: one for one in known}
    pointed = {
        object_id: {frame: prompt for frame, prompt in one.prompts.items() if prompt.mask is None}
        for object_id, one in answered.items()
    }
    # The editor gives accepted regions the label that is chosen at that moment: what is known goes before it.
    objects = [names.get(one.object_id, one) for one in objects]
    return Corrections(
        masks=masks,
        pointed={name: shown for name, shown in pointed.items() if shown},
        objects=objects,
        sent=sent,
        unfinished=[name for name, one in answered.items() if one.prompts and not one.complete],
    )


def _held(
    answered: Mapping[str, SentObject],
    now: Sequence[Region],
    config: LabelConfig,
    size: tuple[int, int],
    window: Window | None,
) -> FrameHints:
    """Earlier masks that the annotation still has as they were: another annotator's corrections are not there."""
    earlier = {
        object_id: {frame: prompt.mask for frame, prompt in one.prompts.items() if prompt.mask is not None}
        for object_id, one in answered.items()
    }
    frames = {frame for masks in earlier.values() for frame in masks}
    if not frames:
        return {}
    there = [region for region in now if _frame(region, window) in frames]
    tracks = results_to_tracks(
        there,
        config,
        width=size[0],
        height=size[1],
        window=window,
        certain={
            object_id: {frame: FrameHint(mask=mask) for frame, mask in masks.items()}
            for object_id, masks in earlier.items()
        },
    )
    masks_now = {track.object_id: track.masks for track in tracks}
    return {
        object_id: {
            frame: FrameHint(mask=mask)
            for frame, mask in masks.items()
            if _same(mask, masks_now.get(object_id, {}).get(frame))
        }
        for object_id, masks in earlier.items()
    }


def _frame(region: Mapping[str, Any], window: Window | None) -> int | None:
    item = region.get("item_index")
    if not isinstance(item, int):
        return None
    return item if window is None else window.frame(item)


def _same(mask: CocoRle, found: CocoRle | None) -> bool:
    if found is None or not area(mask):
        return found is None and not area(mask)
    return found["size"] == mask["size"] and iou(mask, found) >= SAME_MASK


def _relabelled(sent: Sequence[Region], now: Sequence[Region]) -> list[Region]:
    """Give what was sent the labels that its regions have now: a label alone is nothing to propagate."""
    values = {(region.get("id"), region.get("from_name")): region.get("value") for region in now}
    relabelled = []
    for region in sent:
        value = values.get((region.get("id"), region.get("from_name")))
        kind = str(region.get("type"))
        key = kind if kind.endswith("labels") else ""
        if isinstance(value, Mapping) and key in value and key in region["value"]:
            region = {**region, "value": {**region["value"], key: value[key]}}
        relabelled.append(region)
    return relabelled


def _shows(prompt: FrameHint) -> bool:
    return prompt.mask is None or area(prompt.mask) > 0
