"""What a person corrected, from what was sent and what is there."""

from __future__ import annotations

from typing import Any

import numpy as np

from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.corrections import Corrections, find_corrections, known_objects
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import area, to_coco
from svac_backend.masks.tracks import CocoRle, ObjectPrompt, Track
from svac_backend.store.objects import SentObject
from tests.jobs.conftest import CONFIG

CONFIG_PARSED = parse_config(CONFIG)

DOG = ObjectPrompt("obj1", "dog", "the dog")


def square(left: int, top: int = 8) -> CocoRle:
    mask = np.zeros((48, 64), np.bool_)
    mask[top : top + 12, left : left + 12] = True
    return to_coco(mask)


A, B = square(4), square(30)
EMPTY = to_coco(np.zeros((48, 64), np.bool_))


def regions(masks: dict[int, CocoRle], object_id: str = "obj1", label: str = "dog") -> list[dict[str, Any]]:
    control = CONFIG_PARSED.mask_control()
    return tracks_to_results([Track(object_id, label, "", masks, {})], control, Canvas(64, 48))


def find(now: list[dict[str, Any]], *predictions: list[dict[str, Any]], **options: Any) -> Corrections:
    answered, canvas = options.pop("answered", {}), Canvas(64, 48, options.pop("window", None))
    return find_corrections(now, predictions, answered, CONFIG_PARSED, canvas, known=[DOG], **options)


SENT = regions(dict.fromkeys(range(4), A))


def test_edited_and_deleted_frames() -> None:
    found = find([*SENT[:2], *regions({2: B})], SENT)
    assert found.masks == {"obj1": {2: FrameHint(mask=B), 3: FrameHint(mask=EMPTY)}}
    assert found.to_propagate() == found.masks
    assert found.objects == [DOG]


def test_an_untouched_annotation_has_none() -> None:
    assert find(SENT, SENT).to_propagate() == {}
    assert find([], SENT).to_propagate() == {}


def test_what_was_only_deleted_shows_nothing_to_carry_on() -> None:
    found = find(SENT[:3], SENT)
    assert area(found.masks["obj1"][3].mask or A) == 0
    assert found.to_propagate() == {}


def test_clicks_that_were_answered_before_go_along() -> None:
    click = FrameHint(clicks=(Click(5.0, 9.0),))
    answered = {"obj1": SentObject("obj1", SENT, {0: click, 2: click})}
    found = find([*SENT[:2], *regions({2: B}), SENT[3]], answered=answered)
    assert found.to_propagate() == {"obj1": {0: click, 2: FrameHint(mask=B)}}
    assert find(SENT, answered=answered).to_propagate() == {}


def test_an_answer_that_had_not_all_frames_is_finished() -> None:
    click = FrameHint(clicks=(Click(5.0, 9.0),))
    answered = {"obj1": SentObject("obj1", SENT[:2], {0: click}, complete=False)}
    assert find(SENT[:2], answered=answered).to_propagate() == {"obj1": {0: click}}


def test_earlier_corrections_hold_only_where_they_still_are() -> None:
    """Another annotator, who begins with the prediction, has not made them."""
    answered = {"obj1": SentObject("obj1", [], {1: FrameHint(mask=B), 2: FrameHint(mask=EMPTY)})}
    pushed = regions({0: A, 1: B, 3: A})
    mine = find(pushed, pushed, answered=answered)
    assert mine.masks == {"obj1": {1: FrameHint(mask=B), 2: FrameHint(mask=EMPTY)}}
    assert find(SENT, SENT, answered=answered).masks.get("obj1", {}) == {}


def test_a_label_that_the_editor_overwrote_is_no_correction() -> None:
    now = [{**one, "value": {**one["value"], "brushlabels": ["cat"]}} for one in SENT]
    found = find(now, SENT)
    assert found.to_propagate() == {}
    assert found.objects == [DOG]


def test_frames_are_those_of_the_video() -> None:
    window = Window(100, 4)
    track = Track("obj1", "dog", "", dict.fromkeys(range(100, 104), A), {})
    sent = tracks_to_results([track], CONFIG_PARSED.mask_control(), Canvas(64, 48, window))
    changed = tracks_to_results(
        [Track("obj1", "dog", "", {102: B}, {})],
        CONFIG_PARSED.mask_control(),
        canvas=Canvas(64, 48, window),
    )
    found = find([*sent[:2], *changed, sent[3]], sent, window=window)
    assert found.masks == {"obj1": {102: FrameHint(mask=B)}}


def test_names_of_objects() -> None:
    claimed = [ObjectPrompt("obj2", "cat", "the black cat")]
    assert known_objects({"prompt": "the dog"}, CONFIG_PARSED, claimed) == [DOG, *claimed]
    assert known_objects({"prompt": " "}, CONFIG_PARSED, claimed) == claimed
