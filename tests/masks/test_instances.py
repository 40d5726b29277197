"""Instances by their masks alone: stretches, meetings, who is who behind them, and what is given up."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from svac_backend.masks.instances import Things, matched, named, parts_of, stretches_of
from svac_backend.masks.rle import area, from_coco, overlap, to_coco
from svac_backend.masks.tracks import CocoRle, Track

HEIGHT, WIDTH, COUNT = 60, 160, 30


def picture(*lefts: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for left in lefts:
        mask[20 : 20 + side, max(0, left) : max(0, left + side)] = True
    return mask


def box(left: int) -> CocoRle:
    return to_coco(picture(left))


def union(places: dict[int, list[int]]) -> dict[int, list[CocoRle]]:
    """The parts of each frame, of squares whose left edges are given."""
    return {frame: parts_of(picture(*lefts)) if lefts else [] for frame, lefts in places.items()}


def carried(places: dict[int, int], name: str = "0") -> Track:
    """What memory makes of one thing: its square on each frame."""
    return Track(name, "", "", {f: box(left) for f, left in places.items()}, dict.fromkeys(range(COUNT), 0.9))


def test_parts_are_the_large_pieces_from_left_to_right() -> None:
    mask = picture(100, 5, 50)
    mask[0, 0] = True
    assert [int(np.flatnonzero(from_coco(p).any(0))[0]) for p in parts_of(mask)] == [5, 50, 100]


@pytest.mark.parametrize("seed", range(5))
def test_the_matching_is_exact(seed: int) -> None:
    gains = np.random.default_rng(seed).random((4, 5))
    best = max(sum(gains[r, c] for r, c in enumerate(order)) for order in permutations(range(5), 4))
    found = matched(gains, 0.0)
    assert sum(gains[r, c] for r, c in found) == pytest.approx(best)
    assert all(gains[r, c] >= 0.7 for r, c in matched(gains, 0.7))


def test_a_stretch_ends_where_things_meet_and_a_fast_one_goes_on() -> None:
    # Two come together on frames 10 to 14 and part again; a third one, far away, moves by more than half of its size.
    left = {f: 10 + 2 * f if f < 10 else 30 for f in range(20)}
    right = {f: 70 - 2 * f if f < 10 else 48 if f < 15 else 48 + 4 * (f - 14) for f in range(20)}
    found = stretches_of(union({f: [left[f], right[f], 100 + 3 * f] for f in range(12)}))
    assert len(found[0].masks) == 12
    found = stretches_of(union({f: [left[f], right[f]] for f in range(20)}))
    assert sorted((one.first, one.last) for one in found) == [(0, 9), (0, 9), (10, 14), (15, 19), (15, 19)]


def test_all_that_are_apart_are_seen_at_once_and_a_newcomer_later() -> None:
    places = {f: [10, 60] + ([120] if f >= 12 else []) for f in range(COUNT)}
    things = Things(union(places))
    first = things.unseen()
    assert [list(one) for one in first] == [list(first[0])] * 3  # on a frame that has them all
    things.see(
        [carried(dict.fromkeys(range(COUNT), left)) for left in (10, 60)]
        + [carried(dict.fromkeys(range(12, COUNT), 120))]
    )
    assert things.unseen() == []
    assert things.count == 3


def test_a_thing_that_no_mask_covers_is_a_new_one() -> None:
    places = {f: ([10] if f < 12 else []) + ([120] if f > 18 else []) for f in range(COUNT)}
    things = Things(union(places))
    (one,) = things.unseen()
    left = min(one) < 12
    things.see([carried(dict.fromkeys(range(12), 10) if left else dict.fromkeys(range(19, COUNT), 120))])
    assert len(things.unseen()) == 1  # too far away to be the one that was lost
    assert things.count == 2


def test_after_a_meeting_memory_says_who_is_who_and_else_who_was_lost_near_by() -> None:
    left = {f: 20 + f for f in range(COUNT)}
    right = {f: 80 - 2 * f for f in range(COUNT)}  # they pass each other around frame 20
    parts = union({f: [left[f], right[f]] for f in range(COUNT)})
    things = Things(parts)
    shown = things.unseen()
    tracks = [
        carried(left if overlap(next(iter(s.values())).mask, box(left[min(s)])) > 200 else right)
        for s in shown
    ]
    things.see(tracks)
    assert things.unseen() == []
    owners = {}
    for one in things.stretches:
        middle = sorted(one.masks)[len(one.masks) // 2]
        owners.setdefault(one.owner, set()).add(overlap(one.masks[middle], box(left[middle])) > 200)
    assert all(len(sides) == 1 for number, sides in owners.items() if number is not None)

    confused = Things(parts)
    confused.unseen()
    # Memory took both for the same one: the other, found again near by, is still the one that was lost.
    confused.see([carried(right), carried(right)])
    assert confused.unseen() == []
    assert confused.count == 2


def test_masks_without_support_go_and_twins_become_one() -> None:
    places = {f: [10] if f < 20 else [] for f in range(COUNT)}
    things = Things(union(places))
    things.unseen()
    twin = carried(dict.fromkeys(range(10, COUNT), 12), "1")
    (one,) = things.settle([carried(dict.fromkeys(range(COUNT), 10)), twin][:1])
    assert sorted(one.masks) == list(range(20))
    things.count = 2
    (one,) = things.settle([carried(dict.fromkeys(range(12), 10)), twin])
    assert sorted(one.masks) == list(range(20))  # what it lacked, its twin had


def test_no_pixel_belongs_to_two() -> None:
    parts = union({f: [10, 60] for f in range(COUNT)})
    things = Things(parts)
    things.unseen()
    both = carried({f: 60 if f == 25 else 10 for f in range(COUNT)})  # takes the other for itself once
    both.masks[5] = to_coco(picture(10, 25))
    a, b = things.settle([both, carried(dict.fromkeys(range(COUNT), 60), "1")])
    assert all(overlap(a.masks[f], b.masks[f]) == 0 for f in a.masks if f in b.masks)
    assert 25 not in a.masks or 25 not in b.masks
    assert area(a.masks[5]) > 0


def test_names() -> None:
    made = [carried({0: 10}), carried({0: 60})]
    found = list(named(made, "obj3", "dog", {"dog", "dog 2"}))
    assert [(t.object_id, t.label, t.expression) for t in found] == [
        ("obj3.1", "dog", "dog 1"),
        ("obj3.2", "dog 2", "dog 2"),
    ]
    assert found[0].masks == made[0].masks
