"""Every frame is predicted from the correction nearest to it, and no frame is walked in vain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from svac_backend.svac.sam.tracking import Leg, plan_legs

FRAMES = st.integers(0, 40)


def test_between_two_corrections_both_walk_to_the_middle() -> None:
    assert plan_legs([3, 8], range(12)) == [
        Leg(3, range(4, 6)),
        Leg(3, range(2, -1, -1)),
        Leg(8, range(9, 12)),
        Leg(8, range(7, 5, -1)),
    ]


def test_a_range_shortens_the_walks() -> None:
    assert plan_legs([10], range(4, 7)) == [Leg(10, range(9, 3, -1))]
    assert plan_legs([10], range(12, 14)) == [Leg(10, range(11, 14))]
    assert plan_legs([10, 20], range(10, 11)) == []


@given(st.sets(FRAMES, min_size=1, max_size=8), FRAMES, FRAMES)
def test_against_the_definition(corrected: set[int], first: int, last: int) -> None:
    wanted = range(min(first, last), max(first, last) + 1)
    legs = plan_legs(sorted(corrected), wanted)
    reached = {}
    for leg in legs:
        assert leg.source in corrected
        assert abs(leg.frames[0] - leg.source) == 1
        assert leg.frames[-1] in wanted  # nothing is walked beyond the last frame that is needed
        for frame in leg.frames:
            assert frame not in corrected
            assert frame not in reached
            reached[frame] = leg.source
    assert set(wanted) - corrected <= reached.keys()
    for frame, source in reached.items():
        assert source == min(corrected, key=lambda c: (abs(c - frame), c))
