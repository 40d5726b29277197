"""Windows: a long video is split into overlapping tasks, and their annotations are joined again.

First, objects that people drew by hand are linked across windows. An object of a prompt has one id in all windows of a
video. Hand-drawn objects are numbered separately in each window, so that equal ids may mean two objects, and one object
may have two ids. If two windows share frames, the masks there tell.

Then the windows are joined, by these rules:

* An object is known by its id and its label: the same pair in several windows is one object. The same id with another
  label is another object, and gets a free id.
* A frame that one window shows is what that window says, a mask or none.
* A frame that several windows show is decided object by object. If a person changed it in some windows and left it as
  predicted in others, the latter do not count. Of the rest, the window counts in which the frame is farther from the
  first or last frame, since there the person saw more of what comes before and after; then the one saved later; then
  the earlier window. A deletion is a change like any other.
* A window in which an object never occurs says that it is absent. What no window shows stays out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from svac_backend.errors import SvacError
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.rle import iou
from svac_backend.masks.tracks import Track

# Submitting a brush mask takes the editor 0.11 s, so a task of so many frames takes about 14 s.
DEFAULT_WINDOW = 100
# Polygons in one task: its page opens within 4 s and submits within 2 s.
MOST_MASKS = 300
# Enough to see on both sides of a cut that it is the same object, and how it moves. A person who corrects near a cut
# sees the next frames, at the price of 4 % more frames.
DEFAULT_OVERLAP = 4


@dataclass(frozen=True)
class Windowing:
    """How a video is split into windows.

    Attributes:
        size: largest number of frames that a window shows; 0: one window for the whole video.
        overlap: number of shown frames that two neighbours share; None: `DEFAULT_OVERLAP`, or half of a small window.
        stride: show one frame of every `stride`.
    """

    size: int = DEFAULT_WINDOW
    overlap: int | None = None
    stride: int = 1

    def for_objects(self, count: int) -> Windowing:
        """Return a windowing with at most `MOST_MASKS` masks per window for `count` objects; a given size stays."""
        fits = MOST_MASKS // max(1, count)
        return replace(self, size=max(1, fits)) if self.size == DEFAULT_WINDOW > fits else self

    def check(self) -> None:
        """Raise `SvacError` if the numbers are impossible for any video."""
        self.of(1)

    def of(self, frame_count: int) -> list[Window]:
        """Return the windows of a video: as few as possible, of equal length within one frame, in order.

        Equal, since 101 frames make better tasks of 53 and 53 than of 100 and 5.

        Raises:
            SvacError: a number is out of range, or the overlap leaves no room to advance.
        """
        size, stride = self.size, self.stride
        if frame_count < 1:
            raise SvacError("The video has no frames.", "Give a video with at least one frame.")
        if size < 0 or stride < 1:
            raise SvacError(
                f"Windows of {size} frames in steps of {stride} are not possible.",
                "Give --window 1 or more (0 for one task of the whole video) and --stride 1 or more.",
            )
        overlap = min(DEFAULT_OVERLAP, size // 2) if self.overlap is None else self.overlap
        if overlap < 0 or (size and overlap >= size):
            raise SvacError(
                f"Windows of {size} frames cannot share {overlap} with their neighbours.",
                "Give --overlap less than --window, 0 or more.",
            )
        shown = -(-frame_count // stride)
        if not size or shown <= size:
            return [Window(0, shown, stride)]
        number = -(-(shown - overlap) // (size - overlap))
        # Cuts at equal distances; each window includes the overlap with the next one.
        starts = [i * (shown - overlap) // number for i in range(number + 1)]
        return [Window(start * stride, end - start + overlap, stride) for start, end in pairwise(starts)]


# An object: id and label.
_Key = tuple[str, str]


@dataclass(frozen=True)
class Part:
    """What one task says about a video.

    Attributes:
        window: the frames that it shows.
        tracks: its objects, by the video's frames.
        changed: object id -> frames on which a person changed, added or deleted its mask.
        saved: when it was saved, in seconds of a clock that all parts share.
    """

    window: Window
    tracks: Sequence[Track]
    changed: Mapping[str, AbstractSet[int]] = field(default_factory=dict)
    saved: float = 0.0


def join(parts: Sequence[Part]) -> list[Track]:
    """Return the tracks of a whole video, in the order in which the parts name their objects.

    Args:
        parts: the video's windows, in any order; a window may occur twice (two annotators).

    Raises:
        SvacError: a part has a mask on a frame that its window does not show, or an object twice.
    """
    parts = sorted(parts, key=lambda part: (part.window.start, part.window.count))
    said = [_by_key(part) for part in parts]
    shown: dict[int, list[int]] = {}
    for number, part in enumerate(parts):
        for frame in part.window.frames:
            shown.setdefault(frame, []).append(number)
    keys = list(dict.fromkeys(key for tracks in said for key in tracks))
    joined: list[Track] = []
    for key, object_id in zip(keys, _ids(keys), strict=True):
        expression = next((t[key].expression for t in said if key in t and t[key].expression), "")
        track = Track(object_id, key[1], expression)
        for frame in sorted(shown):
            winner = said[_decides(shown[frame], parts, key[0], frame)].get(key)
            if winner is None:
                continue
            if frame in winner.masks:
                track.masks[frame] = winner.masks[frame]
            if frame in winner.scores:
                track.scores[frame] = winner.scores[frame]
        joined.append(track)
    return joined


def _decides(candidates: Sequence[int], parts: Sequence[Part], object_id: str, frame: int) -> int:
    """Return which of the parts that show a frame decides about an object there."""
    changed = [number for number in candidates if frame in parts[number].changed.get(object_id, ())]

    def weight(number: int) -> tuple[int, float, int]:
        window = parts[number].window
        item = (frame - window.start) // window.stride
        return (min(item, window.count - 1 - item), parts[number].saved, -number)

    return max(changed or candidates, key=weight)


def _by_key(part: Part) -> dict[_Key, Track]:
    found: dict[_Key, Track] = {}
    for track in part.tracks:
        outside = next((frame for frame in track.masks if part.window.item(frame) is None), None)
        if outside is not None:
            raise SvacError(
                f"{track.object_id} has a mask on frame {outside}, which its window from frame "
                f"{part.window.start} does not show.",
                "The task's frames and its svac_window do not belong together: import the video again.",
            )
        key = (track.object_id, track.label)
        if key in found:
            raise SvacError(
                f"{track.object_id} with the label '{track.label}' occurs twice in one window.",
                "Give every object an id of its own.",
            )
        found[key] = track
    return found


def _ids(keys: Sequence[_Key]) -> list[str]:
    """Return an id for each object: its own, or a free one if an earlier object has that."""
    own, ids = {object_id for object_id, _ in keys}, list[str]()
    for object_id, _ in keys:
        ids.append(numbered(object_id, {*own, *ids}) if object_id in ids else object_id)
    return ids


# The least mean IoU of drawings of the same object by two people; drawings of different objects agree less.
SAME = 0.5


def link(parts: Sequence[Part], known: Collection[str]) -> list[Part]:
    """Return the parts, ordered by the start of their windows, with one id per object.

    An object takes the id of the object in earlier windows that it matches best on the frames where both have masks:
    with the same label and a mean IoU of 0.5 or more. If they have masks on the same frames and match less, they are
    two objects, whatever their ids. Without such frames, the ids decide.

    Args:
        parts: the parts of one video.
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
                ids[own] = numbered(own, taken) if elsewhere else own
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
    """Return the mean IoU on the frames where both have masks; -1.0 if there are none or the labels differ."""
    values = [
        iou(track.masks[frame], other.masks[frame])
        for other in others
        if other.label == track.label
        for frame in track.masks.keys() & other.masks.keys()
    ]
    return float(np.mean(values)) if values else -1.0


def numbered(wanted: str, taken: Collection[str]) -> str:
    """Return a name with the first free number from 2 on."""
    number = 2
    while f"{wanted}-{number}" in taken:
        number += 1
    return f"{wanted}-{number}"
