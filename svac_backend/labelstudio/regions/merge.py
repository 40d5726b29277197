"""What a person changed in the editor, and new results that keep all of it.

Label Studio does not tell: `origin` stays `prediction` even after a person drags a polygon. So the shapes that were
sent are compared with those that the annotation holds now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from svac_backend.labelstudio.config import LabelConfig, MaskControl
from svac_backend.labelstudio.regions.read import Drawing, Drawn, read_drawn
from svac_backend.labelstudio.regions.rectangles import is_overview, same_boxes
from svac_backend.labelstudio.regions.region import (
    DEFAULT_OPTIONS,
    Canvas,
    Region,
    RegionOptions,
    Results,
    region_name,
)
from svac_backend.labelstudio.regions.shapes import same_shape
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.masks.hints import FrameHint, FrameHints
from svac_backend.masks.rle import to_coco, union
from svac_backend.masks.tracks import Track


def corrected_hints(
    sent: Results,
    now: Results,
    config: LabelConfig,
    canvas: Canvas,
    *,
    tracks: Sequence[Track] = (),
    earlier: FrameHints | None = None,
) -> dict[str, dict[int, FrameHint]]:
    """Return what a person changed on the frames, as hints for propagation.

    An object's regions on a frame are untouched if each has a match among those that were sent: the same mask, or
    the same points within 0.01 % of the frame, and the same label. Anything else is a change: regions edited, added,
    deleted or relabelled.

    Args:
        sent: the results that the editor was given; empty if the annotation was not made from them.
        now: the annotation's or draft's results.
        tracks: the known objects, with the masks that were sent.
        earlier: hints from before the last results were sent. Their masks come back from the editor as they were sent,
            so only the caller knows that a person made them; those that still hold are in the result.

    Returns:
        Object id -> the video's 0-based frame -> hint with a mask of display size; empty where the person deleted or
        erased the object. Objects that the person began have new ids, see `read.assign_objects`.

    Raises:
        SvacError: a region is malformed, or lies on a frame that the task does not have.
    """
    before = _read(sent, config, canvas, tracks, earlier)
    after = _read(now, config, canvas, tracks, earlier, before)
    found = {object_id: dict(frames) for object_id, frames in (earlier or {}).items()}
    old, new = before.by_place(), after.by_place()
    for object_id, frame in sorted(old.keys() | new.keys()):
        was, is_ = old.get((object_id, frame), []), new.get((object_id, frame), [])
        if not _untouched(was, is_, canvas):
            masks = [drawing.mask for drawing in is_]
            mask = union(masks) if masks else to_coco(np.zeros((canvas.height, canvas.width), dtype=np.bool_))
            found.setdefault(object_id, {})[frame] = FrameHint(mask=mask)
    return found


def merge_results(
    now: Results,
    tracks: Sequence[Track],
    corrected: FrameHints,
    config: LabelConfig,
    canvas: Canvas,
    *,
    control: MaskControl | None = None,
    sent: Results = (),
    boxes: Results = (),
    options: RegionOptions = DEFAULT_OPTIONS,
) -> list[Region]:
    """Return an annotation's results with everything predicted again, except what a person made.

    These stay verbatim: the regions of an object on every frame whose hint is a mask, those of objects without a track,
    and the results of all other tags, except labels without a region and relations that have lost an end. Every other
    region is rendered from `tracks`, with the ids of `RegionName`; it keeps what the editor added to the region with
    the same id (a note, a parent).

    Args:
        now: the annotation's results.
        tracks: the new prediction; with the mask of `corrected` where that has one.
        corrected: hints, see `corrected_hints`. Only masks protect regions, clicks and boxes do not.
        control: draws the masks; the config's first choice if None.
        sent: the results that the editor was sent: they tell whose a region is, and which boxes a person moved.
        boxes: the overview of the new tracks, see `rectangles.tracks_to_boxes`. Boxes that a person moved stay as they
            are, those that they deleted stay deleted.
        options: which masks of the tracks get regions.

    Raises:
        SvacError: a region is malformed, or the config cannot show a track.
    """
    before = _read(sent, config, canvas, tracks, corrected)
    drawn = _read(now, config, canvas, tracks, corrected, before)
    order = {track.object_id: place for place, track in enumerate(tracks)}
    kept: list[Drawing] = []
    gone: list[Drawing] = []
    for drawing in drawn.drawings:
        hint = corrected.get(str(drawing.object_id), {}).get(drawing.frame)
        verbatim = drawing.object_id not in order or (hint is not None and hint.mask is not None)
        (kept if verbatim else gone).append(drawing)
    settled = {(drawing.object_id, drawing.frame) for drawing in kept}
    anew = [
        replace(
            track, masks={f: mask for f, mask in track.masks.items() if (track.object_id, f) not in settled}
        )
        for track in tracks
    ]
    rendered = tracks_to_results(anew, control or config.mask_control(), canvas, options)
    mine = {id(region) for drawing in (*kept, *gone) for region in drawing.results}
    others = [
        dict(region)
        for region in now
        if id(region) not in mine and not is_overview(region) and not _is_stray(region, config)
    ]
    rendered = _with_extras(_unique(rendered, {drawing.id for drawing in kept}), gone)
    regions = [{**region, "id": drawing.id} for drawing in kept for region in drawing.results] + rendered
    owner = {drawing.id: str(drawing.object_id) for drawing in kept}

    def place(region: Region) -> tuple[int, int]:
        name = region_name(region)
        object_id = owner.get(region["id"]) or (name.object_id if name else "")
        return region.get("item_index") or 0, order.get(object_id, len(order))

    regions.sort(key=place)
    regions += _overview(now, sent, boxes)
    ids = {region.get("id") for region in (*regions, *others)}
    return regions + [region for region in others if _holds(region, ids)]


def _read(
    results: Results,
    config: LabelConfig,
    canvas: Canvas,
    tracks: Sequence[Track],
    certain: FrameHints | None,
    before: Drawn | None = None,
) -> Drawn:
    """Read results; objects and owners of an earlier state stay, so that no region changes its object."""
    known = list(tracks)
    owners: dict[str, str] = {}
    if before is not None:
        ids = {track.object_id for track in tracks}
        known += [Track(**vars(prompt)) for name, prompt in before.objects.items() if name not in ids]
        owners = {drawing.id: str(drawing.object_id) for drawing in before.drawings}
    return read_drawn(results, config, canvas, tracks=known, certain=certain, owners=owners)


def _untouched(was: Sequence[Drawing], is_: Sequence[Drawing], canvas: Canvas) -> bool:
    """Return whether every drawing has a match, preferably under its own id."""
    if len(was) != len(is_):
        return False
    left = list(was)
    for drawing in is_:
        left.sort(key=lambda other: other.id != drawing.id)
        like = next(
            (
                other
                for other in left
                if other.label == drawing.label
                and same_shape(other.results[0], drawing.results[0], *canvas.size)
            ),
            None,
        )
        if like is None:
            return False
        left.remove(like)
    return True


def _unique(rendered: list[Region], taken: set[str]) -> list[Region]:
    """Give a region another part number if a kept region has its id."""
    ids = {region["id"] for region in rendered} | taken
    new: dict[str, str] = {}
    for region in rendered:
        if region["id"] in taken and region["id"] not in new:
            stem = region["id"]
            part = next(part for part in range(2, len(ids) + 3) if f"{stem}-{part}" not in ids)
            new[stem] = f"{stem}-{part}"
            ids.add(new[stem])
    return [{**region, "id": new.get(region["id"], region["id"])} for region in rendered]


def _with_extras(rendered: list[Region], gone: Sequence[Drawing]) -> list[Region]:
    """Add what the editor keeps with a region but this backend does not write: notes, parents, locks."""
    extras = {
        (region.get("id"), region.get("from_name")): region for drawing in gone for region in drawing.results
    }
    return [
        # A note may come from a person.
        {**region, **{key: value for key, value in old.items() if key not in region or key == "meta"}}
        for region in rendered
        for old in [extras.get((region["id"], region["from_name"]), {})]
    ]


def _overview(now: Results, sent: Results, boxes: Results) -> list[Region]:
    """Return the overview as made now, except where a person moved or deleted something."""
    was = {region["id"]: region for region in sent if is_overview(region)}
    is_ = {region["id"]: region for region in now if is_overview(region)}
    moved = {id_ for id_ in is_ if id_ in was and not same_boxes(was[id_], is_[id_])}
    stay = [dict(is_[id_]) for id_ in moved]
    return stay + [
        dict(region)
        for region in boxes
        if region["id"] not in moved and (region["id"] in is_ or region["id"] not in was)
    ]


def _holds(region: Mapping[str, Any], ids: set[Any]) -> bool:
    """Whether a region can stay: a relation needs both its ends; everything else stands for itself."""
    return region.get("type") != "relation" or {region.get("from_id"), region.get("to_id")} <= ids


def _is_stray(region: Mapping[str, Any], config: LabelConfig) -> bool:
    """Whether it is a label without a region: the editor leaves one beside a text typed while a label was chosen."""
    value = region.get("value")
    return (
        region.get("from_name") in config.drawing_names
        and isinstance(value, Mapping)
        and bool(value)
        and all(key.endswith("labels") for key in value)
    )
