"""Between true and false lies a margin in which nothing is said; events are found where they are."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.synthetic.rich.clauses import own_clauses
from svac_backend.synthetic.rich.description import (
    NEVER,
    Array,
    Bar,
    Camera,
    Description,
    Look,
    Thing,
    Trajectory,
    events_of,
    measure,
)
from svac_backend.synthetic.rich.nouns import make_noun
from svac_backend.synthetic.rich.phrases import phrases_of
from svac_backend.synthetic.rich.relations import Comparison, comparisons

T = 20
TIME = np.linspace(0, 1, T)


def still(x: float, y: float) -> Array:
    return np.tile([x, y], (T, 1)).astype(float)


def line(x: float, y: float, dx: float, dy: float, time: Array = TIME) -> Array:
    return still(x, y) + time[:, None] * [dx, dy]


def scene(
    *paths: Array, looks: tuple[Look, ...] = (), pan: float = 0.0, bars: tuple[Bar, ...] = ()
) -> Description:
    """A square scene of small things on these ways."""
    looks = looks or (Look("star", "red"),) * len(paths)
    tracks = [Trajectory(path, np.full(T, 0.08), np.zeros(T), "test") for path in paths]
    things = tuple(Thing(look, track) for look, track in zip(looks, tracks, strict=True))
    return Description(things, Camera(line(0, 0, pan, 0), np.ones(T)), bars, (1.0, 1.0), "test")


def truths(description: Description, key: str) -> list[int]:
    facts = measure(description)
    (clause,) = (c for c in own_clauses(facts, events_of(facts)) if c.key == key)
    return clause.truth.tolist()


def test_a_little_way_is_doubtful() -> None:
    ways = [line(0.5, 0.5, dx, 0) for dx in (0.3, 0.15, 0.05, 0.0)]
    assert truths(scene(*ways), "move right") == [1, 0, -1, -1]
    assert truths(scene(*ways), "still") == [-1, -1, 0, 1]


def test_what_only_the_camera_moves_neither_moves_nor_stands_still() -> None:
    assert truths(scene(still(0.5, 0.5), pan=0.2), "move right") == [0]
    assert truths(scene(still(0.5, 0.5), pan=0.2), "still") == [0]
    assert truths(scene(line(0.3, 0.5, 0.4, 0), pan=0.01), "move right") == [1]


def test_events_are_found_where_they_are() -> None:
    stop = line(0.2, 0.2, 0.5, 0, np.minimum(TIME * 2, 1))
    start = line(0.2, 0.4, 0.5, 0, np.maximum(TIME * 2 - 1, 0))
    enter = line(-0.2, 0.6, 0.7, 0, np.maximum(TIME - 0.3, 0))
    leave = line(0.8, 0.8, 0.5, 0)
    events = events_of(measure(scene(stop, start, enter, leave)))
    assert events.stops[0] == pytest.approx(10, abs=1)
    assert events.starts[1] == pytest.approx(9, abs=1)
    assert events.stops[1] == events.starts[0] == events.enters[0] == events.leaves[0] == NEVER
    assert 9 <= events.enters[2] <= 14
    assert 6 <= events.leaves[3] <= 10
    assert np.isnan(events.starts[2])


def test_the_first_to_move_must_be_first_by_far() -> None:
    def path(y: float, when: float) -> Array:
        return line(0.2, y, 0.5, 0, np.maximum(TIME - when, 0) / (1 - when))

    def first(*when: float) -> list[int] | None:
        facts = measure(scene(*(path(0.2 + 0.3 * n, w) for n, w in enumerate(when))))
        (order,) = (c for c in comparisons(facts, events_of(facts), []) if c.key == "first to move")
        found = order.among(np.ones(len(when), np.int8))
        return None if found is None else found.tolist()

    assert first(0.2, 0.6) == [1, -1]
    assert first(0.6, 0.2, 0.5) == [-1, 1, -1]
    assert first(0.4, 0.45) is None


def test_a_comparison_asks_its_margin_and_is_silent_where_someone_is_uncertain() -> None:
    def among(low: list[float], members: list[int], **options: float) -> list[int] | None:
        values = np.array(low)
        found = Comparison("largest", "size", False, values, values, **options).among(
            np.array(members, np.int8)
        )
        return None if found is None else found.tolist()

    assert among([1.0, 1.5, 1.1], [1, 1, 1], ratio=1.2) == [-1, 1, -1]
    assert among([1.0, 1.5, 1.4], [1, 1, 1], ratio=1.2) is None
    assert among([1.0, 1.5, 1.4], [1, 1, -1], ratio=1.2) == [-1, 1, -1]
    assert among([1.0, np.nan], [1, 1]) is None
    assert among([1.0, 2.0], [1, 0], ratio=1.2) is None  # it may be none of them
    assert among([2.0, 1.0], [1, 0], ratio=1.2) == [1, -1]
    assert among([2.0, 1.0], [1, -1]) is None  # one alone is not compared


def test_names_that_people_differ_about_are_doubtful() -> None:
    looks = (
        Look("square", "red"),
        Look("diamond", "blue"),
        Look("star", "orange", "striped", second="white"),
    )
    assert make_noun(looks, name="square").truth.tolist() == [1, 0, -1]
    assert make_noun(looks, color="white").truth.tolist() == [-1, -1, 0]
    assert make_noun(looks, color="red", name="shape").truth.tolist() == [1, -1, -1]


def test_words_are_needed() -> None:
    looks = (Look("star", "red"), Look("star", "blue"), Look("heart", "red"))
    found = phrases_of(scene(line(0.2, 0.2, 0.4, 0), still(0.7, 0.5), still(0.3, 0.8), looks=looks))
    said = {(p.says, p.noun.color, p.noun.name): p.targets for p in found}
    assert said["color", "red", "star"] == (0,)
    assert ("color", "blue", "star") not in said  # "the blue one" is enough
    assert said["color", "blue", None] == (1,)
    assert said["color", "blue", "heart"] == ()
    assert said["move right", None, None] == (0,)
    assert ("move right", "blue", None) not in said  # there is only one blue thing
    assert said["move right", None, "star"] == (0,)
    assert said["still", None, None] == (1, 2)


def test_bars_and_others_hide() -> None:
    bar = Bar(upright=True, at=0.5, width=0.3, rgb=(0, 0, 0))
    hidden = scene(still(0.5, 0.5), still(0.2, 0.5), still(0.2, 0.5), bars=(bar,))
    visible = hidden.visible()[:, 0]
    assert visible[0] < 1e-9
    assert visible[1] < 0.1
    assert visible[2] == pytest.approx(1)
