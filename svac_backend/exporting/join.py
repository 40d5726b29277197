"""Join: what was annotated in the windows of a video becomes one set of tracks.

The rules:

* An object is known by its id and its label: the same pair in several windows is one object. The same id with another
  label is another object, and gets a free id.
* A frame that one window shows is what that window says, a mask or none.
* A frame that several windows show, object by object: where a person changed some of them and left others as they were
  predicted, those that were left have no say. Of the rest the one decides in which the frame is further from the
  window's first or last frame, since there the person saw more of what comes before and after; then the one that was
  saved later; then the earlier window. A deletion is a change like any other.
* A window in which an object never occurs says that it is absent. What no window shows stays out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from svac_backend.errors import SvacError
from svac_backend.labelstudio.windows import Window
from svac_backend.masks.tracks import Track

# An object: id and label.
_Key = tuple[str, str]


@dataclass(frozen=True)
class Part:
    """What one task says of a video.

    Attributes:
        window: the frames that it shows.
        tracks: its objects, by the video's frames.
        changed: object id -> frames on which a person changed, added or deleted its mask.
        saved: when it was saved, in seconds of any clock that all parts share.
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
        for item in range(part.window.count):
            shown.setdefault(part.window.frame(item), []).append(number)
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
    """Return which of the parts that show a frame has the say over an object there."""
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
    """Return an id for each object: its own, or a free one where an object before it has that."""
    own, ids = {object_id for object_id, _ in keys}, list[str]()
    for object_id, _ in keys:
        free, number = object_id, 2
        while free in ids or (free != object_id and free in own):
            free, number = f"{object_id}-{number}", number + 1
        ids.append(free)
    return ids
