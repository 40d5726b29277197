"""Objects that people drew anew: which of one window is which of the next.

An object of a prompt has one id in all windows of a video. What a person draws without one is numbered in each window
for itself, so that equal ids may mean two objects, and one object may have two ids. Where two windows share frames, the
masks there tell.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from svac_backend.exporting.join import Part
from svac_backend.masks.rle import iou
from svac_backend.masks.tracks import Track

# Two people's drawings of one object agree better than this, those of two objects less.
SAME = 0.5


def link(parts: Sequence[Part], known: Collection[str]) -> list[Part]:
    """Return the parts, by the start of their windows, with one id for one object.

    A new object takes the id of the one in the windows before that it covers best on the frames which both have masks
    on: of the same label, with a mean IoU of 0.5 or more. Where they have masks on the same frames and cover each other
    less, they are two objects, whatever their ids. Without such frames the ids decide.

    Args:
        parts: of one video.
        known: ids of objects that are the same in all windows.
    """
    linked: list[Part] = []
    seen: dict[str, list[Track]] = {}
    taken = {*known, *(track.object_id for part in parts for track in part.tracks)}
    for part in sorted(parts, key=lambda part: (part.window.start, part.window.count)):
        ids: dict[str, str] = {}
        new = [track for track in part.tracks if track.object_id not in known]
        for _, track, other in sorted(
            (
                (value, track, other)
                for track in new
                for other in seen
                if (value := _like(track, seen[other])) >= SAME
            ),
            key=lambda match: -match[0],
        ):
            if track.object_id not in ids and other not in ids.values():
                ids[track.object_id] = other
        for track in new:
            own = track.object_id
            if own not in ids:
                elsewhere = own in ids.values() or (own in seen and 0 <= _like(track, seen[own]) < SAME)
                ids[own] = _free(own, taken) if elsewhere else own
                taken.add(ids[own])
        tracks = [
            replace(track, object_id=ids.get(track.object_id, track.object_id)) for track in part.tracks
        ]
        changed = {ids.get(object_id, object_id): frames for object_id, frames in part.changed.items()}
        linked.append(replace(part, tracks=tracks, changed=changed))
        for track in tracks:
            if track.object_id not in known:
                seen.setdefault(track.object_id, []).append(track)
    return linked


def _like(track: Track, others: Sequence[Track]) -> float:
    """Return the mean IoU on the frames on which both have masks; -1.0 without any, or under another label."""
    values = [
        iou(track.masks[frame], other.masks[frame])
        for other in others
        if other.label == track.label
        for frame in track.masks.keys() & other.masks.keys()
    ]
    return float(np.mean(values)) if values else -1.0


def _free(wanted: str, taken: Collection[str]) -> str:
    number = 2
    while f"{wanted}-{number}" in taken:
        number += 1
    return f"{wanted}-{number}"
