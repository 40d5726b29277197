"""Instances: which thing is which in the masks of a sentence that means several, such as `each: the dogs`.

The union of all things is cut into its connected parts. As long as parts stay apart, each is followed from frame to
frame by its overlap: a stretch. A stretch is one thing, whatever happens before and after it. Where things touch or
hide each other, SAM-2's memory carries masks across, and the stretches behind are given to the things whose masks cover
them. A stretch that no thing covers is a new thing. This module does all of that but the carrying; it holds masks as
run lengths only, so that memory grows with the outlines of a video and not with its pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import networkx
import numpy as np
from numpy.typing import NDArray

from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import area, bounding_box, from_coco, iou, overlap, shares, to_coco
from svac_backend.masks.tracks import CocoRle, Track

# A part below this share of the frame's largest one is noise at its edge, not a thing of the same kind.
SMALLEST_PART = 0.08
# A stretch of fewer frames is a flicker, unless the video is no longer.
SHORTEST = 3
# Parts of neighbouring frames that are one thing overlap, or lie near each other, at least so much (0..1).
SAME_THING = 0.2
# A part is in the way of another one if it shares so much of the smaller of the two.
TOUCHING = 0.1
# A thing covers a stretch, and two tracks are one thing, from this mean IoU on.
COVERED = 0.5
# Most things of one sentence.
MOST_INSTANCES = 32
# A thing that nobody's mask covers after a meeting may be one that was lost in it: so many frames, and so many of its
# own sizes away.
LOST_FRAMES, LOST_SIZES = 25, 3.0
# Frames of a stretch that are shown to memory, about so far apart.
ANCHOR_EVERY = 16


def parts_of(union: NDArray[np.bool_]) -> list[CocoRle]:
    """Return the connected parts of a mask, bool [H, W], from left to right, without those that are too small."""
    _, numbers, figures, centres = cv2.connectedComponentsWithStats(union.view(np.uint8), connectivity=8)
    areas = figures[1:, cv2.CC_STAT_AREA]
    large = [n for n, pixels in enumerate(areas, 1) if pixels >= SMALLEST_PART * areas.max()]
    return [to_coco(numbers == n) for n in sorted(large, key=lambda n: (centres[n][0], centres[n][1]))]


def matched(gains: NDArray[np.float64], least: float) -> list[tuple[int, int]]:
    """Return the assignment of rows to columns with the highest sum, leaving out pairs that gain less than `least`.

    Exact: the maximum weight matching of the bipartite graph, by networkx.

    Args:
        gains: f64 [A, B].
    """
    rows, columns = np.nonzero(gains >= least)
    graph = networkx.Graph()
    graph.add_weighted_edges_from(
        (("row", int(r)), ("column", int(c)), float(gains[r, c])) for r, c in zip(rows, columns, strict=True)
    )
    pairs = (dict(pair) for pair in networkx.max_weight_matching(graph))
    return sorted((pair["row"], pair["column"]) for pair in pairs)


@dataclass
class Stretch:
    """A part that stays apart from all others, over neighbouring frames.

    Attributes:
        masks: frame -> the part.
        owner: number of the thing that it is; None while that is not known.
    """

    masks: dict[int, CocoRle] = field(default_factory=dict)
    owner: int | None = None

    @property
    def first(self) -> int:
        """Its first frame."""
        return min(self.masks)

    @property
    def last(self) -> int:
        """Its last frame."""
        return max(self.masks)

    def anchors(self) -> list[int]:
        """Return the frames to show to memory: about every `ANCHOR_EVERY`, not the ones beside a meeting."""
        frames = sorted(self.masks)
        inner = frames[1:-1] if len(frames) > 2 else frames
        count = 1 + (len(inner) - 1) // ANCHOR_EVERY
        places = np.linspace(0, len(inner) - 1, count + 2)[1:-1] if count > 1 else [(len(inner) - 1) / 2]
        return sorted({inner[round(place)] for place in places})


def stretches_of(parts: Mapping[int, Sequence[CocoRle]]) -> list[Stretch]:
    """Return the stretches of a video, the longest first.

    Args:
        parts: frame -> the union's parts; every frame that was looked at.
    """
    found: list[Stretch] = []
    going: dict[int, Stretch] = {}
    for before, now in pairwise([-1, *sorted(parts)]):
        links = _links(parts.get(before, ()), parts[now])
        then = {}
        for number, mask in enumerate(parts[now]):
            stretch = going.get(links.get(number, -1))
            if stretch is None:
                stretch = Stretch()
                found.append(stretch)
            stretch.masks[now] = mask
            then[number] = stretch
        going = then
    shortest = min(SHORTEST, len(parts))
    return sorted(
        (one for one in found if len(one.masks) >= shortest), key=lambda one: (-len(one.masks), one.first)
    )


def _links(before: Sequence[CocoRle], now: Sequence[CocoRle]) -> dict[int, int]:
    """Return which part of the frame before each part continues; none where parts part or meet."""
    if not before or not now:
        return {}
    gains = np.array([[_nearness(old, new) for old in before] for new in now])
    pairs = matched(gains, SAME_THING)
    shared = np.maximum(shares(now, before), shares(before, now).T)
    return {
        new: old
        for new, old in pairs
        # Another part that shares pixels with one of the two says that things met or parted here.
        if (np.delete(shared[new], old) < TOUCHING).all()
        and (np.delete(shared[:, old], new) < TOUCHING).all()
    }


def _nearness(a: CocoRle, b: CocoRle) -> float:
    """How likely two parts of neighbouring frames are one thing, 0..1: by overlap, or else by distance and size."""
    sizes = area(a), area(b)
    likeness = min(sizes) / max(sizes)
    distance = _distance(a, b) / np.sqrt(max(sizes))
    return max(iou(a, b), float(0.6 * likeness * np.exp(-(distance**2))))


def _distance(a: CocoRle, b: CocoRle) -> float:
    """Pixels between the middles of the boxes around two masks."""
    (left, top, width, height), (other_left, other_top, other_width, other_height) = map(bounding_box, (a, b))
    across = left + width / 2 - other_left - other_width / 2
    down = top + height / 2 - other_top - other_height / 2
    return float(np.hypot(across, down))


@dataclass
class Things:
    """The things of one sentence, as they are told apart.

    Alternate: `unseen` says what to carry over the video as new things, `see` takes what came of it, until there is
    nothing unseen. Then carry `anchors`, and `settle` what came of that.

    Attributes:
        parts: frame -> the union's parts, of every frame of the video.
    """

    parts: Mapping[int, Sequence[CocoRle]]
    stretches: list[Stretch] = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.stretches = stretches_of(self.parts)

    def unseen(self) -> list[dict[int, FrameHint]]:
        """Return what to show of new things: all that are apart on the frame on which most are."""
        free = [one for one in self.stretches if one.owner is None]
        room = MOST_INSTANCES - self.count
        if not free or room <= 0:
            return []
        alive: dict[int, list[Stretch]] = {}
        for one in free:
            for frame in sorted(one.masks):
                alive.setdefault(frame, []).append(one)

        def worth(frame: int) -> tuple[int, int, int]:
            inner = min(min(frame - one.first, one.last - frame) for one in alive[frame])
            return len(alive[frame]), inner, -frame

        frame = max(alive, key=worth)
        chosen = alive[frame][:room]
        for number, one in enumerate(chosen, self.count):
            one.owner = number
        self.count += len(chosen)
        return [{frame: FrameHint(mask=one.masks[frame])} for one in chosen]

    def see(self, tracks: Sequence[Track]) -> None:
        """Give free stretches to the things whose masks cover them.

        Args:
            tracks: of all things so far, in their order, as memory carried them.
        """
        free = [one for one in self.stretches if one.owner is None]
        gains = np.array([[_cover(one, track) for track in tracks] for one in free])
        # The surest first; two stretches at one time are two things.
        for flat in np.argsort(-gains, axis=None, kind="stable"):
            row, owner = divmod(int(flat), len(tracks))
            if gains[row, owner] < COVERED:
                break
            if free[row].owner is None and not self._busy(owner, free[row].first, free[row].last):
                free[row].owner = owner
        self._find_lost()

    def _find_lost(self) -> None:
        """Give a stretch that begins near where a thing was lost to that thing: two of a kind are easily confused."""
        for one in sorted((s for s in self.stretches if s.owner is None), key=lambda s: s.first):
            near = [
                (_gap(before, one), before.owner)
                for before in self.stretches
                if before.owner is not None
                and 0 < one.first - before.last <= LOST_FRAMES
                and not self._busy(before.owner, before.last + 1, one.last)
            ]
            if near and min(near)[0] <= LOST_SIZES:
                one.owner = min(near)[1]

    def _busy(self, owner: int, first: int, last: int) -> bool:
        """Whether a thing has a stretch of its own within some frames."""
        return any(one.owner == owner and one.first <= last and first <= one.last for one in self.stretches)

    def anchors(self) -> list[dict[int, FrameHint]]:
        """Return for each thing what to show of it: some frames of each of its stretches."""
        return [
            {
                frame: FrameHint(mask=one.masks[frame])
                for one in self.stretches
                if one.owner == number
                for frame in one.anchors()
            }
            for number in range(self.count)
        ]

    def settle(self, tracks: Sequence[Track]) -> list[Track]:
        """Return the things as they stay: supported by the union, none twice, no pixel of two; by first frame.

        Args:
            tracks: of all things, carried from their anchors.
        """
        shown = [sorted(hints) for hints in self.anchors()]
        for track in tracks:
            self._keep_supported(track)
        kept = list(range(len(tracks)))
        for a in range(len(tracks)):
            for b in range(a + 1, len(tracks)):
                if {a, b} <= set(kept) and _are_one(tracks[a], tracks[b]):
                    _take_over(tracks[a], tracks[b])
                    kept.remove(b)
        for frame in sorted(self.parts):
            _share_out(
                [(tracks[n], _nearest(shown[n], frame)) for n in kept if frame in tracks[n].masks], frame
            )
        there = [tracks[n] for n in kept if len(tracks[n].masks) >= min(SHORTEST, len(self.parts))]
        return sorted(there, key=lambda track: (min(track.masks), _left(track)))

    def _keep_supported(self, track: Track) -> None:
        """Take masks away where the sentence means nothing: memory alone is no reason to believe in a thing."""
        for frame, mask in list(track.masks.items()):
            pixels = sum(overlap(mask, part) for part in self.parts.get(frame, ()))
            if pixels < COVERED * area(mask):
                del track.masks[frame]


def _cover(stretch: Stretch, track: Track) -> float:
    """Mean IoU of a thing's masks with a stretch."""
    return float(
        np.mean([iou(m, track.masks[f]) if f in track.masks else 0.0 for f, m in stretch.masks.items()])
    )


def _gap(before: Stretch, after: Stretch) -> float:
    """Distance from the end of one stretch to the beginning of another, in sizes of the thing."""
    a, b = before.masks[before.last], after.masks[after.first]
    return _distance(a, b) / float(np.sqrt(max(area(a), area(b))))


def _are_one(a: Track, b: Track) -> bool:
    """Whether two tracks are one thing: they lie on each other wherever both are."""
    both = a.masks.keys() & b.masks.keys()
    found = [overlap(a.masks[f], b.masks[f]) / min(area(a.masks[f]), area(b.masks[f])) for f in both]
    return bool(found) and float(np.mean(found)) >= COVERED


def _take_over(kept: Track, other: Track) -> None:
    """Fill the frames on which a thing has no mask from its twin."""
    for frame, mask in other.masks.items():
        if frame not in kept.masks:
            kept.masks[frame], kept.scores[frame] = mask, other.scores.get(frame, 0.0)


def _nearest(shown: Sequence[int], frame: int) -> int:
    return min((abs(frame - one) for one in shown), default=1 << 30)


def _share_out(here: Sequence[tuple[Track, int]], frame: int) -> None:
    """Give pixels that several things claim to the one that was shown nearest to this frame, then to the surest.

    A thing that loses most of its mask is not there: it had taken another one for itself.
    """
    ranked = sorted(here, key=lambda one: (one[1], -one[0].scores.get(frame, 0.0)))
    for place, (track, _) in enumerate(ranked):
        mask = track.masks[frame]
        above = [other.masks[frame] for other, _ in ranked[:place] if frame in other.masks]
        if not any(overlap(mask, other) for other in above):
            continue
        left = from_coco(mask)
        for other in above:
            left &= ~from_coco(other)
        del track.masks[frame]
        if np.count_nonzero(left) >= COVERED * area(mask):
            track.masks[frame] = to_coco(left)


def _left(track: Track) -> int:
    return bounding_box(track.masks[min(track.masks)])[0]


def named(tracks: Sequence[Track], object_id: str, label: str, labels: Collection[str]) -> Iterator[Track]:
    """Yield the things with ids, `obj1.1`, and names, `dog 1`; the name is the label, too, if there is such a label."""
    for number, track in enumerate(tracks, 1):
        name = f"{label} {number}"
        yield Track(
            f"{object_id}.{number}", name if name in labels else label, name, track.masks, track.scores
        )
