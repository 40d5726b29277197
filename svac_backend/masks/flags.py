"""Flags: where a person should look first, by the scores of masks and by how masks change from frame to frame.

Each object has a doubt on each frame, 0 (nothing speaks against it) to 1. It is made of

- **score**: 1 - score where there is a mask. A track's score is existence times predicted quality; without a mask it
  says how close the model came to finding one, so there it is the doubt itself.
- **jumps** between a frame and the one before, each 0 to 1: `area` (the share by which the larger mask exceeds the
  smaller), `place` (1 - exp(-d^2) when the middle moves d of the object's sizes off its course), `mask` (by which share
  the overlap of the two masks, IoU, falls below what is usual for this object), 0.5 where a mask comes or goes within
  the picture, and 1 where two objects swap: each lies on the other's last mask.

A jump says that one of its two sides is wrong, and mostly all that follows: so its doubt goes on, fading by `FADING` a
frame, away from the frames that a person showed (on both sides where nobody showed any), and ends at the next shown
one. The doubt of a frame is 1 minus the product of what each of these leaves; 0 where a person drew. How well it finds
true errors is measured by `scripts/benchmark.py flags`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from svac_backend.masks.rle import area, bounding_box, iou
from svac_backend.masks.tracks import CocoRle, Track

# What is left of a jump's doubt a frame further.
FADING = 0.95
# The jump of a mask that comes or goes within the picture; at its edge things come and go as they like.
COMES_OR_GOES = 0.5
# A shorter stretch is over before an annotator sees it; in a longer one bad frames would drown.
STRETCH_FRAMES = 10
# Two objects swap when each overlaps the other's last mask so much more than its own.
SWAPPED = 0.2


def doubts(tracks: Sequence[Track], frames: Iterable[int]) -> dict[str, dict[int, float]]:
    """Return the doubt of each object on each frame that was looked at.

    A track without any mask was asked for and not found: 1.0 everywhere.

    Args:
        tracks: all objects of a video.
        frames: 0-based frames of the video, ascending.

    Returns:
        Object id -> frame -> 0..1; frames that were not looked at are left out.
    """
    chosen = list(frames)
    seen = {t.object_id: [f for f in chosen if f in t.scores or f in t.masks] for t in tracks}
    jumps = {t.object_id: _jumps(t, seen[t.object_id]) for t in tracks}
    for object_id, frame in _swaps(tracks, seen):
        jumps[object_id][frame] = 1.0
    return {t.object_id: _doubts(t, seen[t.object_id], jumps[t.object_id]) for t in tracks}


def frame_certainty(tracks: Sequence[Track], frames: Iterable[int]) -> dict[int, float]:
    """Return how sure the tracks are on each frame, 0..1: one minus the largest doubt.

    Args:
        tracks: all objects of a video.
        frames: 0-based frames of the video, ascending; those that no track looked at are left out.
    """
    found: dict[int, float] = {}
    for of_object in doubts(tracks, frames).values():
        for frame, doubt in of_object.items():
            found[frame] = min(found.get(frame, 1.0), 1.0 - doubt)
    return dict(sorted(found.items()))


def worst_stretch(values: Sequence[float]) -> float:
    """Return the lowest mean of `STRETCH_FRAMES` neighbouring values, of all if there are fewer; 0.0 of none."""
    if not values:
        return 0.0
    length = min(STRETCH_FRAMES, len(values))
    return float(
        np.convolve(np.asarray(values, dtype=np.float64), np.full(length, 1 / length), "valid").min()
    )


def _doubts(track: Track, seen: Sequence[int], jumps: Mapping[int, float]) -> dict[int, float]:
    if not track.masks:
        return dict.fromkeys(seen, 1.0)
    shown = {f for f in seen if _is_shown(track, f)}
    ahead = _carried(seen, jumps, shown)
    # A jump between two frames counts for the later one; looked at backwards, for the earlier one.
    back = _carried(seen[::-1], {a: jumps.get(b, 0.0) for a, b in pairwise(seen)}, shown)
    places = np.array(sorted(shown))
    found = {}
    for frame in seen:
        if frame in shown:
            found[frame] = 0.0
            continue
        if len(places):  # it was predicted from the nearest shown frame, and its faults come from there
            nearest = places[np.abs(places - frame).argmin()]
            jump = ahead[frame] if nearest < frame else back[frame]
        else:
            jump = max(ahead[frame], back[frame])
        score = track.scores.get(frame, 1.0)
        certain = score if frame in track.masks else 1.0 - score
        found[frame] = float(np.clip(1.0 - certain * (1.0 - jump), 0.0, 1.0))
    return found


def _is_shown(track: Track, frame: int) -> bool:
    """Whether a person drew the mask, or said that there is none."""
    return track.scores.get(frame, 1.0) >= 1.0


def _carried(order: Sequence[int], jumps: Mapping[int, float], shown: set[int]) -> dict[int, float]:
    """Let each jump go on over the frames behind it, in the order given, up to the next shown one."""
    found, going, before = {}, 0.0, None
    for frame in order:
        passed = 0 if before is None else abs(frame - before)
        going = 0.0 if frame in shown else max(jumps.get(frame, 0.0), going * FADING**passed)
        found[frame], before = going, frame
    return found


def _jumps(track: Track, seen: Sequence[int]) -> dict[int, float]:
    """Return by how much each frame's mask jumps from that of the frame before, 0..1."""
    boxes = {f: _Box(track.masks[f]) for f in seen if f in track.masks and area(track.masks[f])}
    pairs = [(a, b) for a, b in pairwise(seen) if a in boxes and b in boxes]
    overlaps = {b: iou(track.masks[a], track.masks[b]) for a, b in pairs}
    usual = float(np.median(list(overlaps.values()))) if overlaps else 1.0
    found: dict[int, float] = {}
    speed = np.zeros(2)
    for a, b in pairwise(seen):
        if a not in boxes and b not in boxes:
            continue
        if a not in boxes or b not in boxes:
            found[b] = 0.0 if (boxes[a] if a in boxes else boxes[b]).at_edge else COMES_OR_GOES
            speed = np.zeros(2)
            continue
        before, now = boxes[a], boxes[b]
        moved = (now.middle - before.middle) / (b - a)
        size = np.sqrt(max(before.area, now.area))
        grown = 1.0 - min(before.area, now.area) / max(before.area, now.area)
        # Who stops does not jump, nor does one who comes to rest after a jump.
        swerve = min(float(np.hypot(*(moved - speed))), float(np.hypot(*moved))) / size
        swerved = 1.0 - np.exp(-(swerve**2))
        fallen = max(0.0, usual - overlaps[b]) / max(usual, 0.1)
        found[b] = float(1.0 - (1.0 - grown) * (1.0 - swerved) * (1.0 - fallen))
        speed = moved
    return found


class _Box:
    """Where a mask is: its area, the middle of the box around it (x, y), whether it touches the picture's edge."""

    def __init__(self, mask: CocoRle) -> None:
        left, top, width, height = bounding_box(mask)
        self.area = area(mask)
        self.middle = np.array([left + width / 2, top + height / 2])
        rows, columns = mask["size"]
        self.at_edge = left == 0 or top == 0 or left + width == columns or top + height == rows


def _swaps(tracks: Sequence[Track], seen: Mapping[str, Sequence[int]]) -> Iterable[tuple[str, int]]:
    """Yield the objects and frames at which two objects change places."""
    for number, one in enumerate(tracks):
        for other in tracks[number + 1 :]:
            both = one.masks.keys() & other.masks.keys()
            for a, b in pairwise(seen[one.object_id]):
                if not {a, b} <= both:
                    continue
                crossed = iou(one.masks[a], other.masks[b]), iou(other.masks[a], one.masks[b])
                if min(crossed) < SWAPPED:
                    continue
                own = iou(one.masks[a], one.masks[b]), iou(other.masks[a], other.masks[b])
                if min(crossed) >= max(own) + SWAPPED:
                    yield one.object_id, b
                    yield other.object_id, b
