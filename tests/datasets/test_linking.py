"""Which of the objects that people drew anew are the same in the next window."""

from __future__ import annotations

import pytest

from svac_backend.datasets.windows import Part, join, link
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.tracks import Track
from tests.datasets.made import rectangle

FIRST, SECOND, THIRD = Window(0, 10), Window(6, 10), Window(12, 10)
BIRD, CAT = {"top": 2, "left": 2}, {"top": 25, "left": 30}


def drawn(
    object_id: str, where: dict[str, int], frames: range, label: str = "object", shift: int = 0
) -> Track:
    masks = {i: rectangle(where["top"] + shift, where["left"], 12, 12) for i in frames}
    return Track(object_id, label, label, masks)


def ids(parts: list[Part]) -> list[list[str]]:
    return [[track.object_id for track in part.tracks] for part in link(parts, {"obj1"})]


def test_numbers_that_were_given_in_another_order() -> None:
    bird, cat = drawn("obj2", BIRD, range(10)), drawn("obj3", CAT, range(10))
    other_cat, other_bird = (
        drawn("obj2", CAT, range(6, 16), shift=1),
        drawn("obj3", BIRD, range(6, 16), shift=1),
    )
    parts = [Part(SECOND, [other_cat, other_bird], {"obj2": frozenset({7})}), Part(FIRST, [bird, cat])]
    assert ids(parts) == [["obj2", "obj3"], ["obj3", "obj2"]]
    assert link(parts, {"obj1"})[1].changed == {"obj3": frozenset({7})}
    joined = join(link(parts, {"obj1"}))
    assert [(t.object_id, sorted(t.masks)) for t in joined] == [
        ("obj2", list(range(16))),
        ("obj3", list(range(16))),
    ]
    assert joined[0].masks[15] == other_bird.masks[15]


def test_one_number_for_two_objects() -> None:
    parts = [
        Part(FIRST, [drawn("obj2", BIRD, range(10))]),
        Part(SECOND, [drawn("obj2", CAT, range(6, 16))]),
        Part(THIRD, [drawn("obj2", CAT, range(12, 22))]),
    ]
    assert ids(parts) == [["obj2"], ["obj2-2"], ["obj2-2"]]


def test_without_a_shared_frame_the_number_decides() -> None:
    parts = [Part(FIRST, [drawn("obj2", BIRD, range(3))]), Part(SECOND, [drawn("obj2", CAT, range(12, 16))])]
    assert ids(parts) == [["obj2"], ["obj2"]]


def test_another_label_is_another_object() -> None:
    parts = [
        Part(FIRST, [drawn("obj2", BIRD, range(10), "bird")]),
        Part(SECOND, [drawn("obj3", BIRD, range(6, 16), "cat")]),
    ]
    assert ids(parts) == [["obj2"], ["obj3"]]


def test_a_number_that_went_to_another_is_not_given_twice() -> None:
    parts = [
        Part(FIRST, [drawn("obj2", BIRD, range(10))]),
        Part(SECOND, [drawn("obj3", BIRD, range(6, 16)), drawn("obj2", CAT, range(12, 16))]),
    ]
    assert ids(parts) == [["obj2"], ["obj2", "obj2-2"]]


@pytest.mark.parametrize("place", [BIRD, CAT])
def test_objects_of_a_prompt_are_left_alone(place: dict[str, int]) -> None:
    parts = [
        Part(FIRST, [drawn("obj1", BIRD, range(10))]),
        Part(SECOND, [drawn("obj1", place, range(6, 16))]),
    ]
    assert link(parts, {"obj1"}) == parts
