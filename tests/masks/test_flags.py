"""Where to look first: scores, and jumps of area, place and mask, what comes and goes, and swaps."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.masks.flags import FADING, STRETCH_FRAMES, doubts, frame_certainty, worst_stretch
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle, Track

COUNT = 20


def box(left: int, top: int = 20, width: int = 10, height: int = 10) -> CocoRle:
    mask = np.zeros((60, 120), bool)
    mask[top : top + height, left : left + width] = True
    return to_coco(mask)


def track(masks: dict[int, CocoRle], score: float = 0.9, name: str = "obj1") -> Track:
    return Track(name, "dog", "the dog", masks, dict.fromkeys(range(COUNT), score))


def doubt(one: Track) -> dict[int, float]:
    return doubts([one], range(COUNT))[one.object_id]


def walk(step: int = 3) -> dict[int, CocoRle]:
    return {i: box(10 + step * i) for i in range(COUNT)}


def test_a_steady_walk_is_as_sure_as_its_scores() -> None:
    for step in (0, 1, 3, 5):
        found = doubt(track(walk(step)))
        assert list(found) == list(range(COUNT))
        assert (
            0.1 - 1e-9 <= min(found.values()) <= max(found.values()) < 0.35
        )  # one who sets out jumps a little
    assert max(doubt(track(walk(0))).values()) == pytest.approx(0.1)


def test_absence_is_as_sure_as_its_score_is_low() -> None:
    found = doubt(
        Track(
            "obj1",
            "dog",
            "",
            {i: box(0) for i in range(10)},
            {i: 0.9 if i < 10 else 0.2 for i in range(COUNT)},
        )
    )
    assert found[COUNT - 1] == pytest.approx(0.2)  # it left at the edge
    assert found[0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        box(40, width=25, height=25),  # area
        box(90),  # place, and no overlap
        box(46, top=27),  # mask: less than half of it
        None,  # gone, in the middle of the picture
    ],
    ids=["area", "place", "mask", "gone"],
)
def test_a_jump_flags_its_stretch(wrong: CocoRle | None) -> None:
    masks = dict.fromkeys(range(COUNT), box(40))
    for i in range(10, 13):
        masks.pop(i)
        if wrong is not None:
            masks[i] = wrong
    # Seen forwards from what a person showed on frame 0, all before the jump is sure.
    one = track(masks, 0.9)
    one.scores[0] = 1.0
    found = doubt(one)
    assert max(found[i] for i in range(10)) == pytest.approx(0.1, abs=0.01)
    assert min(found[i] for i in range(10, 13)) > 0.3
    assert found[0] == 0.0
    assert min(frame_certainty([one], range(COUNT)), key=frame_certainty([one], range(COUNT)).get) in (10, 13)


def test_a_jump_counts_away_from_what_was_shown_and_ends_there() -> None:
    masks = {i: box(40 if i < 8 else 90) for i in range(COUNT)}
    one = track(masks)
    one.scores[19] = 1.0
    behind = doubt(one)
    assert behind[7] > 0.9 > behind[0] > 0.6  # it was predicted backwards, so the early frames are wrong
    assert max(behind[i] for i in range(8, 19)) == pytest.approx(0.1, abs=0.01)
    one.scores[4] = 1.0
    both = doubt(one)
    assert max(both[i] for i in range(4)) == pytest.approx(0.1, abs=0.01)
    assert both[4] == both[19] == 0.0


def test_what_leaves_at_the_edge_is_doubted_less_than_what_vanishes_within() -> None:
    leaving = {i: box(0) for i in range(8)}
    vanishing = {i: box(50) for i in range(8)}
    low = {i: 0.9 if i < 8 else 0.05 for i in range(COUNT)}
    at_edge = doubt(Track("a", "dog", "", leaving, dict(low)))
    within = doubt(Track("b", "dog", "", vanishing, dict(low)))
    assert at_edge[8] == pytest.approx(0.05)
    assert within[8] == pytest.approx(1 - 0.95 * 0.5)
    assert within[12] == pytest.approx(1 - 0.95 * (1 - 0.5 * FADING**4))


def test_two_objects_that_swap_are_flagged() -> None:
    left, right = {i: box(20) for i in range(COUNT)}, {i: box(26) for i in range(COUNT)}
    for i in range(10, COUNT):
        left[i], right[i] = right[i], left[i]
    for one in (left, right):  # shown at the start
        one[0] = one[0]
    tracks = [track(left, name="a"), track(right, name="b")]
    for one in tracks:
        one.scores[0] = 1.0
    found = doubts(tracks, range(COUNT))
    assert found["a"][10] == found["b"][10] == 1.0
    assert doubts(tracks[:1], range(COUNT))["a"][10] < 1.0  # alone it only moved
    assert found["a"][9] < 0.2


def test_drawn_masks_are_sure_and_the_least_sure_object_counts() -> None:
    drawn = Track("obj1", "dog", "", {0: box(10), 1: box(80)}, {0: 1.0})  # frame 1 has no score: drawn, too
    other = Track("obj2", "dog", "", {0: box(40), 1: box(40)}, {0: 0.7, 1: 0.95})
    found = frame_certainty([drawn, other], range(5))
    assert found == pytest.approx({0: 0.7, 1: 0.95})


def test_what_was_asked_for_and_never_found_needs_a_look_everywhere() -> None:
    lost = Track("obj2", "dog", "", {}, {0: 0.02})
    assert frame_certainty([track({0: box(10)}), lost], [0]) == {0: 0.0}


def test_a_bad_stretch_shows_however_long_the_rest_is() -> None:
    for length in (50, 5000):
        values = [0.9] * length
        values[20:30] = [0.2] * 10
        assert worst_stretch(values) == pytest.approx(0.2)
    assert worst_stretch([0.9] * 50) == pytest.approx(0.9)
    # A single bad frame is a tenth of a stretch.
    assert worst_stretch([0.9] * 20 + [0.0] + [0.9] * 20) == pytest.approx(0.81)


def test_short_tasks_are_one_stretch() -> None:
    assert STRETCH_FRAMES == 10
    assert worst_stretch([0.2, 0.4]) == pytest.approx(0.3)
    assert worst_stretch([0.7]) == pytest.approx(0.7)
    assert worst_stretch([]) == 0.0
