"""Which correction each frame is predicted from, and in which direction. Pure integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Leg:
    """A walk away from one correction.

    Attributes:
        source: the frame of the correction.
        frames: the frames to predict, in order: from the one beside the source to the last one that is needed.
    """

    source: int
    frames: range

    @property
    def reverse(self) -> bool:
        """Whether it goes back in time."""
        return self.frames.step < 0


def plan_legs(corrected: Sequence[int], wanted: range) -> list[Leg]:
    """Return the walks that reach every wanted frame from the correction nearest to it.

    Halfway between two corrections the earlier one counts. A leg ends at its last wanted frame; it covers frames
    that are not wanted only where they lie between the correction and a wanted frame.

    Args:
        corrected: frames with a correction, ascending, at least one.
        wanted: frames to predict; step 1.
    """
    legs = []
    starts = [(corrected[-1], wanted.stop - 1)]
    ends = [(corrected[0], wanted.start)]
    for before, after in pairwise(corrected):
        middle = (before + after) // 2
        starts.append((before, middle))
        ends.append((after, middle + 1))
    for source, last in starts:
        # Not beyond the last wanted frame, and not at all where the wanted frames begin later.
        last = min(last, wanted.stop - 1)
        if last > source and last >= wanted.start:
            legs.append(Leg(source, range(source + 1, last + 1)))
    for source, first in ends:
        first = max(first, wanted.start)
        if first < source and first < wanted.stop:
            legs.append(Leg(source, range(source - 1, first - 1, -1)))
    return sorted(legs, key=lambda leg: leg.source)
