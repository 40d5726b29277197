"""What goes back to Label Studio: a task's prediction, or the regions that an annotator's request changes.

How much of an answer the editor takes over at a time.

To delete a polygon, Label Studio 1.23.2 looks through the points of all polygons of the task, so replacing all of 300
frames stands still for half a minute. Such an answer is given in portions: the frames nearest to the corrections first,
and the next ones when it is asked for again.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from svac_backend.jobs.rendering import choose_control, frames_to_send
from svac_backend.labelstudio.config import SHOWN_KINDS, LabelConfig, MaskControl
from svac_backend.labelstudio.regions.sent import (
    Region,
    by_object,
    geometry,
    next_generation,
    of_generation,
    outdated,
    region_name,
    removals,
)
from svac_backend.labelstudio.regions.written import tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.hints import FrameHints
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction

# Object id and frame.
Place = tuple[str, int]

# Polygons deleted times polygons in the task: 300 and 600 blocked 24 to 37 s on busy cores, 100 and 200 took 3 to 7 s.
MOST_WORK = 32_000
_SLOW = frozenset({"polygonlabels", "polygon", "vectorlabels", "vector"})


def next_places(
    gone: Sequence[Region],
    come: Sequence[Region],
    others: int,
    corrected: Mapping[str, Collection[int]],
) -> set[Place]:
    """Return the places of regions that are to be replaced now: all of them when that is quick.

    Args:
        gone: the regions that go, as the editor shows them.
        come: the regions that take their place.
        others: how many regions the task shows beside these.
        corrected: the frames of each object that a person corrected; those near them are the first.
    """
    old, new = _by_place(gone), _by_place(come)
    slow = sum(1 for region in gone if region.get("type") in _SLOW)
    if slow * (len(gone) + len(come) + others) <= MOST_WORK:
        return old.keys() | new.keys()

    def distance(place: Place) -> tuple[int, Place]:
        object_id, frame = place
        return min((abs(frame - near) for near in corrected.get(object_id, ())), default=frame), place

    # What an earlier portion brought is there already.
    differ = [
        place for place in old if sorted(map(_look, old[place])) != sorted(map(_look, new.get(place, [])))
    ]
    chosen = new.keys() - old.keys()
    deleted, present = 0, len(gone) + others + sum(len(new[place]) for place in chosen)
    for place in sorted(differ, key=distance):
        deleted, present = deleted + len(old[place]), present + len(new.get(place, ()))
        if deleted * present > MOST_WORK:
            break
        chosen.add(place)
    return chosen


def at(regions: Iterable[Region], places: Collection[Place]) -> list[Region]:
    """Return the regions at these places."""
    return [region for place, found in _by_place(regions).items() if place in places for region in found]


def _by_place(regions: Iterable[Region]) -> dict[Place, list[Region]]:
    found: dict[Place, list[Region]] = defaultdict(list)
    for region in regions:
        name = region_name(region)
        if name is not None:
            found[name.object_id, name.frame].append(region)
    return dict(found)


def _look(region: Region) -> tuple[str, str, str]:
    value, kind = region.get("value") or {}, str(region.get("type"))
    return str(region.get("from_name")), str(value.get(kind)), geometry(region)


@dataclass(frozen=True)
class Answer:
    """A task's prediction: `results` is Label Studio's `result` as JSON text."""

    results: bytes
    score: float
    model_version: str

    def to_json_text(self) -> bytes:
        """Return the item of the reply. Results may be megabytes: they are not parsed to be written again."""
        rest = json.dumps({"score": round(self.score, 4), "model_version": self.model_version}).encode()
        return b'{"result":' + self.results + b"," + rest[1:]


@dataclass(frozen=True)
class Change:
    """What the editor is sent: `removed` makes it delete regions, `made` has the new ones, by object.

    Attributes:
        outdated: ids of regions that need not be remembered any more.
    """

    made: dict[str, list[Region]] = field(default_factory=dict)
    removed: list[Region] = field(default_factory=list)
    outdated: frozenset[str] = frozenset()

    @property
    def regions(self) -> list[Region]:
        """All of it, as one result."""
        return [*self.removed, *(region for regions in self.made.values() for region in regions)]


def change(
    prediction: Prediction,
    config: LabelConfig,
    settings: Settings,
    *,
    objects: Sequence[str],
    shown: Sequence[Region],
    before: Sequence[Region],
    kept: FrameHints,
    drawn: Sequence[Region] = (),
    window: Window | None = None,
    frames: range | None = None,
    complete: bool = True,
    rendered: Sequence[Region] | None = None,
) -> Change:
    """Return what has to be sent so that the editor shows some objects as they were predicted.

    Frames with a mask that a person made are left alone, and so are, while the prediction is still being made, frames
    that are not ready.

    Args:
        prediction: with the tracks of these objects.
        config: the project's labelling config.
        settings: how polygons are made, and which frames are sent.
        objects: ids.
        shown: the regions that the editor has; those of these objects go.
        before: all that it was ever sent, so that no id comes twice.
        kept: what persons made, by object and frame.
        drawn: further regions that go, when the prediction is complete.
        window: which frames the task shows; None for all.
        frames: the video's frames that were predicted; None for all.
        complete: whether the prediction has all frames.
        rendered: its regions, where they were made already: polygons take a while.

    Raises:
        SvacError: the config can't show it.
    """
    mine = {object_id: regions for object_id, regions in by_object(shown).items() if object_id in objects}
    ever = by_object([*shown, *before])
    tracks: list[Track] = []
    made: dict[str, list[Region]] = {}
    forgotten: set[str] = set()
    ready: dict[str, set[int]] = {}
    for track in prediction.tracks:
        if track.object_id not in objects:
            continue
        protected = {
            frame for frame, prompt in kept.get(track.object_id, {}).items() if prompt.mask is not None
        }
        done = set(range(prediction.frame_count) if frames is None else frames)
        if not complete:
            done &= track.scores.keys()
        ready[track.object_id] = done - protected
        masks = {frame: mask for frame, mask in track.masks.items() if frame in ready[track.object_id]}
        tracks.append(replace(track, masks=masks))
    sent = frames_to_send(prediction.tracks, prediction.frame_count, settings, window)
    if sent is not None:  # where the editor shows an object, it is shown as it is now
        sent |= {
            name.frame for regions in mine.values() for region in regions if (name := region_name(region))
        }
    old = [region for regions in mine.values() for region in regions]
    control = _control_of(old, config, {t.label for t in tracks}) or choose_control(
        config, tracks, window, sent
    )
    results = None if rendered is None or sent is not None else _of(rendered, ready, control)
    if results is None:
        results = tracks_to_results(
            tracks,
            control,
            width=prediction.width,
            height=prediction.height,
            tolerance_px=settings.polygon_tolerance_px,
            iou_floor=settings.polygon_iou_floor,
            min_area_px=settings.min_area_px,
            window=window,
            frames=sent,
        )
    for object_id, regions in by_object(results).items():
        made[object_id] = of_generation(regions, next_generation(ever.get(object_id, ())))
    gone = [
        region
        for object_id, regions in mine.items()
        for region in regions
        if (name := region_name(region)) and name.frame in ready.get(object_id, ())
    ]
    come = [region for regions in made.values() for region in regions]
    now = next_places(
        gone, come, len(shown) - len(gone), {name: frames.keys() for name, frames in kept.items()}
    )
    made = by_object(at(come, now))
    removed = removals([*at(gone, now), *(drawn if complete else ())])
    for object_id in objects:
        regions = ever.get(object_id, [])
        forgotten |= outdated(regions, next_generation(regions))
    # What comes with a later portion is still to be seen until then.
    forgotten -= {str(region["id"]) for region in shown} - {str(region["id"]) for region in removed}
    count = prediction.frame_count if window is None else window.count
    every = [region for regions in made.values() for region in regions]
    validate_results(every, config, frame_count=count, video_frames=prediction.frame_count)
    return Change(
        {object_id: made.get(object_id, []) for object_id in objects}, removed, frozenset(forgotten)
    )


def _of(
    rendered: Sequence[Region], frames: Mapping[str, set[int]], control: MaskControl
) -> list[Region] | None:
    """Return the regions of some objects on some frames; None when they were made for another control."""
    masks = [(region, name) for region in rendered if (name := region_name(region)) is not None]
    if any(region.get("from_name") not in (control.name, control.labels_name) for region, _ in masks):
        return None
    return [region for region, name in masks if name.frame in frames.get(name.object_id, ())]


def as_answer(regions: Sequence[Mapping[str, object]], score: float, model_version: str) -> Answer:
    """Return regions as the reply's item."""
    return Answer(json.dumps(list(regions), separators=(",", ":")).encode(), score, model_version)


def _control_of(
    regions: Sequence[Region], config: LabelConfig, labels: Collection[str]
) -> MaskControl | None:
    """The control that most of an object's regions were drawn with: a mask does not change its kind under the pen."""
    controls = {
        control.name: control
        for control in config.drawing_controls()
        if control.kind in SHOWN_KINDS and control.labels.keys() >= set(labels)
    }
    used = Counter(name for region in regions if (name := region.get("from_name")) in controls)
    return controls[used.most_common(1)[0][0]] if used else None
