"""Annotations of webhooks, and which frames a person drew or accepted."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.labelstudio.corrections import Corrections
from svac_backend.learning.collect import corrections_of, deleted_ids, saved_at, seen_frames, submitted, who
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.store.corrections import Annotation, AnnotationState

ABOUT = Annotation("38", "3", 1, "7", AnnotationState.EMPTY)


def square(left: int) -> np.ndarray:
    mask = np.zeros((12, 16), np.bool_)
    mask[2:6, left : left + 4] = True
    return mask


OLD, NEW, NONE = to_coco(square(1)), to_coco(square(8)), to_coco(np.zeros((12, 16), np.bool_))


def track(frames: range, name: str = "obj1") -> Track:
    return Track(name, "dog", "the dog", dict.fromkeys(frames, OLD), dict.fromkeys(frames, 0.4))


def test_drawn_accepted_and_erased_frames() -> None:
    changed = {"obj1": {1: FrameHint(mask=NEW), 3: FrameHint(mask=NONE)}}
    (found,) = corrections_of(
        ABOUT, [track(range(5))], changed, {"obj1": range(6)}, range(6), {0, 1, 2, 3, 4, 5}
    )
    assert found.annotation == ABOUT
    assert (found.drawn, found.accepted) == ({1, 3}, {0, 2, 4, 5})
    assert found.track.masks == {0: OLD, 1: NEW, 2: OLD, 4: OLD}  # 3: erased, 5: nothing was predicted
    assert (found.track.object_id, found.expression) == ("obj1", "the dog")
    assert set(found.track.scores.values()) == {1.0}


def test_what_nobody_is_known_to_have_looked_at_says_nothing() -> None:
    changed = {"obj1": {1: FrameHint(mask=NEW)}}
    tracks = [track(range(5)), track(range(5), "obj2")]
    predicted = {"obj1": range(6), "obj2": range(6)}
    first, second = corrections_of(ABOUT, tracks, changed, predicted, range(6), {1, 4})
    assert (first.drawn, first.accepted) == ({1}, {4})
    assert (second.drawn, second.accepted) == (set(), {1, 4})  # it was on the screen, too
    assert sorted(second.track.masks) == [1, 4]
    assert corrections_of(ABOUT, tracks, {}, predicted, range(6), ()) == []


def test_frames_that_were_worked_on_were_seen() -> None:
    sent = [{"id": f"{name}-f{frame:05d}"} for name in ("obj1", "obj2") for frame in range(5)]
    drawn = {1: FrameHint(mask=NEW), 3: FrameHint(mask=NONE)}
    clicked = {"obj1": {4: FrameHint(clicks=(Click(1.0, 1.0),))}}
    assert seen_frames(Corrections({"obj1": drawn}, clicked, sent=sent)) == {1, 3, 4}
    # An object that is deleted everywhere says nothing of what was looked at.
    whole = {"obj2": {frame: FrameHint(mask=NONE) for frame in range(5)}}
    assert seen_frames(Corrections(whole, sent=sent)) == set()
    assert seen_frames(Corrections({"obj2": {2: FrameHint(mask=NONE)}}, sent=sent)) == {2}


def test_of_an_object_that_only_a_person_knew_nothing_is_accepted() -> None:
    """Who draws it on two frames of a hundred does not say that it is not on the others."""
    changed = {"obj1": {1: FrameHint(mask=NEW)}}
    (found,) = corrections_of(ABOUT, [track(range(1, 3))], changed, {}, range(6), range(6))
    assert (found.drawn, found.accepted) == ({1, 2}, set())
    assert found.track.masks == {1: NEW, 2: OLD}


def test_frames_that_the_task_does_not_show_say_nothing() -> None:
    changed = {"obj1": {1: FrameHint(mask=NEW), 9: FrameHint(mask=NEW)}}
    (found,) = corrections_of(ABOUT, [track(range(10))], changed, {"obj1": range(10)}, range(4), range(10))
    assert (found.drawn, found.accepted) == ({1}, {0, 2, 3})
    assert sorted(found.track.masks) == [0, 1, 2, 3]


def test_where_only_some_frames_were_sent_only_these_are_accepted() -> None:
    (found,) = corrections_of(ABOUT, [track(range(6))], {}, {"obj1": [0, 4]}, range(6), range(6))
    assert (found.drawn, found.accepted) == (set(), {0, 4})


def test_an_object_of_which_nothing_is_known_is_left_out() -> None:
    assert corrections_of(ABOUT, [track(range(0))], {}, {}, range(6), range(6)) == []


def test_one_annotation_and_many() -> None:
    one = {
        "annotation": {"id": 3, "task": 7, "result": [{"id": "a"}, "malformed"]},
        "task": {"id": 7, "data": {}},
        "project": {"id": 38, "label_config": "<View/>"},
    }
    (found,) = submitted(one)
    assert (found.id, found.task_id, found.label_config, found.regions) == (
        "3",
        "7",
        "<View/>",
        [{"id": "a"}],
    )
    many = {
        "annotation": [{"id": 3, "task": 7}, {"id": 4, "task": 8}, {"id": 5, "task": 9}],
        "task": [{"id": 8, "data": {"n": 8}}, {"id": 7, "data": {"n": 7}}],
    }
    assert [(one.id, one.task["data"]["n"]) for one in submitted(many)] == [("3", 7), ("4", 8)]
    assert list(submitted({"annotation": None, "task": {"id": 7}})) == []


def test_deleted_ids() -> None:
    assert deleted_ids("ANNOTATIONS_DELETED", {"annotations": [{"id": 13}, {"id": 14}, {}]}) == ["13", "14"]
    assert deleted_ids("TASKS_DELETED", {"tasks": {"id": 7}}) == ["7"]


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        ({"completed_by": 1, "created_username": " ann@example.com, 1"}, "ann@example.com, 1"),
        ({"completed_by": {"id": 1, "email": "bob@example.com"}}, "bob@example.com"),
        ({"completed_by": 5}, "5"),
        ({}, ""),
    ],
)
def test_who(annotation: dict[str, object], name: str) -> None:
    assert who(annotation) == name


def test_saved_at() -> None:
    assert (
        saved_at({"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:10Z"}) == 1767225610
    )
    assert saved_at({"created_at": "2026-01-01T00:00:00"}) == 1767225600
    assert saved_at({"created_at": "yesterday"}) == saved_at({}) == 0.0
