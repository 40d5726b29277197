"""What goes back to Label Studio: a task's prediction, or the regions that an annotator's request changes.

To delete a polygon, Label Studio 1.23.2 searches the points of all polygons of the task, so replacing those of 300
frames freezes the editor for half a minute. Such an answer comes in portions: first the frames nearest to the
corrections, and the next ones when the annotator asks again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from svac_backend.jobs.rendering import choose_control, control_of, frames_to_send
from svac_backend.labelstudio.config import LabelConfig, MaskControl
from svac_backend.labelstudio.regions.region import (
    Canvas,
    Place,
    Region,
    RegionOptions,
    by_object,
    by_place,
    region_name,
)
from svac_backend.labelstudio.regions.sent import geometry, next_generation, of_generation, outdated, removals
from svac_backend.labelstudio.regions.written import tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import Window, shown_frames
from svac_backend.masks.hints import FrameHints
from svac_backend.masks.tracks import Track, prompt_of
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction

# Polygons deleted times polygons in the task: 300 of 600 froze it for 24 to 37 s, 100 of 200 for 3 to 7 s.
MOST_WORK = 14_000
_SLOW = frozenset({"polygonlabels", "polygon", "vectorlabels", "vector"})


@dataclass(frozen=True)
class Answer:
    """A task's prediction: `results` is Label Studio's `result` as JSON text."""

    results: bytes
    score: float
    model_version: str

    def to_json_text(self) -> bytes:
        """Return the item of the reply. Results may be megabytes, so they are not parsed and serialized again."""
        rest = json.dumps({"score": round(self.score, 4), "model_version": self.model_version}).encode()
        return b'{"result":' + self.results + b"," + rest[1:]


@dataclass(frozen=True)
class Change:
    """What the editor is sent.

    Attributes:
        made: the new regions, by object.
        removed: suggestions that make the editor delete regions, see `regions.sent.removals`.
        outdated: ids of regions that the store may forget.
        left: how many masks the next portions will replace.
    """

    made: dict[str, list[Region]] = field(default_factory=dict)
    removed: list[Region] = field(default_factory=list)
    outdated: frozenset[str] = frozenset()
    left: int = 0

    @property
    def regions(self) -> list[Region]:
        """All of it, as one result."""
        return [*self.removed, *(region for regions in self.made.values() for region in regions)]


def as_answer(regions: Sequence[Mapping[str, object]], score: float, model_version: str) -> Answer:
    """Return regions as the item of the reply."""
    return Answer(json.dumps(list(regions), separators=(",", ":")).encode(), score, model_version)


@dataclass(frozen=True)
class EditorState:
    """What an annotator's editor holds before it is answered.

    Attributes:
        shown: the regions that it shows.
        before: all regions that it was ever sent, so that no id is used twice.
        kept: masks that people made, by object and frame: these stay.
        drawn: further regions to delete once the prediction is complete.
        window: which frames the task shows; None for all.
    """

    shown: Sequence[Region]
    before: Sequence[Region]
    kept: FrameHints
    drawn: Sequence[Region] = ()
    window: Window | None = None


def change(
    prediction: Prediction,
    objects: Sequence[str],
    editor: EditorState,
    config: LabelConfig,
    settings: Settings,
    *,
    frames: range | None = None,
    complete: bool = True,
    rendered: Sequence[Region] | None = None,
) -> Change:
    """Return what makes the editor show some objects as they were predicted.

    Frames with a mask that a person made are left alone, and so are frames that an incomplete prediction lacks so far.

    Args:
        prediction: has the tracks of these objects.
        objects: their ids; what the editor shows of them is deleted.
        editor: what the editor holds.
        config: the project's labelling config.
        settings: how polygons are made, and which frames are sent.
        frames: the video's frames that were predicted; None for all.
        complete: whether the prediction has all frames.
        rendered: the prediction's regions if they exist already: polygons take a while.

    Raises:
        SvacError: the config cannot show it.
    """
    # An object that asked for instances is shown, and replaced, as its instances.
    names = [*(one.object_id for one in prediction.tracks), *by_object(editor.shown)]
    objects = [*objects, *(name for name in dict.fromkeys(names) if prompt_of(name) in objects)]
    window, count = editor.window, prediction.frame_count
    predicted = set(range(count) if frames is None else frames)
    tracks: list[Track] = []
    ready: dict[str, set[int]] = {}
    for track in prediction.tracks:
        if track.object_id in objects:
            hints = editor.kept.get(track.object_id, {})
            done = predicted if complete else predicted & track.scores.keys()
            ready[track.object_id] = done - {frame for frame, hint in hints.items() if hint.mask is not None}
            masks = {frame: mask for frame, mask in track.masks.items() if frame in ready[track.object_id]}
            tracks.append(replace(track, masks=masks))
    old = [
        region for name, regions in by_object(editor.shown).items() if name in objects for region in regions
    ]
    strokes = sum(1 for region in editor.shown if str(region.get("type")).startswith("brush"))
    new = _regions_of(tracks, ready, old, prediction, window, config, settings, rendered, strokes)
    ever = by_object([*editor.shown, *editor.before])
    come = [
        region
        for object_id, regions in by_object(new).items()
        for region in of_generation(regions, next_generation(ever.get(object_id, ())))
    ]
    gone = [
        region
        for region in old
        if (name := region_name(region)) and name.frame in ready.get(name.object_id, ())
    ]
    corrected = {object_id: hints.keys() for object_id, hints in editor.kept.items()}
    now = next_places(gone, come, len(editor.shown) - len(gone), corrected)
    made = regions_at(come, now)
    shown_items = len(shown_frames(count, window))
    validate_results(made, config, frame_count=shown_items, video_frames=count)
    removed = removals([*regions_at(gone, now), *(editor.drawn if complete else ())])
    forgotten = {
        id_
        for regions in (ever.get(object_id, []) for object_id in objects)
        for id_ in outdated(regions, next_generation(regions))
    }
    # What a later portion will replace stays visible until then.
    forgotten -= {str(region.get("id")) for region in editor.shown} - {
        str(region["id"]) for region in removed
    }
    of_object = by_object(made)
    later = {place: regions for place, regions in by_place(gone).items() if place not in now}
    left = len(_differing(later, by_place(come)))
    return Change(
        {object_id: of_object.get(object_id, []) for object_id in objects},
        removed,
        frozenset(forgotten),
        left,
    )


def _regions_of(
    tracks: Sequence[Track],
    ready: Mapping[str, set[int]],
    old: Sequence[Region],
    prediction: Prediction,
    window: Window | None,
    config: LabelConfig,
    settings: Settings,
    rendered: Sequence[Region] | None,
    strokes: int,
) -> list[Region]:
    """Return the regions of some tracks, drawn by the control of the `old` ones; reuse rendered ones that fit.

    A new object becomes polygons if brush masks would be too many together with the `strokes` shown already.
    """
    sent = frames_to_send(prediction.tracks, prediction.frame_count, settings, window)
    if sent is not None:  # also update every frame that the editor shows already
        sent |= {name.frame for region in old if (name := region_name(region))}
    control = control_of(old, config, {track.label for track in tracks}) or choose_control(
        config, tracks, window, sent, others=strokes
    )
    found = None if rendered is None or sent is not None else _fitting(rendered, ready, control)
    if found is not None:
        return found
    canvas = Canvas(prediction.width, prediction.height, window)
    return tracks_to_results(tracks, control, canvas, RegionOptions.of(settings, sent))


def _fitting(
    rendered: Sequence[Region], ready: Mapping[str, set[int]], control: MaskControl
) -> list[Region] | None:
    """Return the rendered regions that are ready; None if they were made for another control."""
    masks = [(region, name) for region in rendered if (name := region_name(region)) is not None]
    if any(region.get("from_name") not in (control.name, control.labels_name) for region, _ in masks):
        return None
    return [region for region, name in masks if name.frame in ready.get(name.object_id, ())]


def next_places(
    gone: Sequence[Region],
    come: Sequence[Region],
    others: int,
    corrected: Mapping[str, Collection[int]],
) -> set[Place]:
    """Return the places where regions are replaced now: all of them if that is quick.

    Args:
        gone: the regions to delete, as the editor shows them.
        come: the regions that take their place.
        others: how many other regions the task shows.
        corrected: the frames of each object that a person corrected; places near these come first.
    """
    old, new = by_place(gone), by_place(come)
    slow = sum(1 for region in gone if region.get("type") in _SLOW)
    if slow * (len(gone) + len(come) + others) <= MOST_WORK:
        return old.keys() | new.keys()

    def distance(place: Place) -> tuple[int, Place]:
        object_id, frame = place
        return min((abs(frame - near) for near in corrected.get(object_id, ())), default=frame), place

    chosen = new.keys() - old.keys()
    deleted, present = 0, len(gone) + others + sum(len(new[place]) for place in chosen)
    for place in sorted(_differing(old, new), key=distance):
        deleted, present = deleted + len(old[place]), present + len(new.get(place, ()))
        # One always goes, or the rest never would.
        if deleted > len(old[place]) and deleted * present > MOST_WORK:
            break
        chosen.add(place)
    return chosen


def next_to_delete(gone: Sequence[Region], shown: int) -> list[Region]:
    """Return the first of some regions, as many as the editor deletes quickly while the task shows `shown` regions."""
    fast = [region for region in gone if region.get("type") not in _SLOW]
    slow = [region for region in gone if region.get("type") in _SLOW]
    return [*fast, *slow[: max(1, MOST_WORK // max(1, shown))]]


def regions_at(regions: Iterable[Region], places: Collection[Place]) -> list[Region]:
    """Return the regions at these places."""
    return [region for place, found in by_place(regions).items() if place in places for region in found]


def _differing(old: Mapping[Place, Sequence[Region]], new: Mapping[Place, Sequence[Region]]) -> list[Place]:
    """Return the places that look different: an earlier portion may have replaced some already."""
    return [
        place for place in old if sorted(map(_look, old[place])) != sorted(map(_look, new.get(place, [])))
    ]


def _look(region: Region) -> tuple[str, str, str]:
    value, kind = region.get("value") or {}, str(region.get("type"))
    return str(region.get("from_name")), str(value.get(kind)), geometry(region)
