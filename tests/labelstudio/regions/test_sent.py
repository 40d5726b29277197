"""What the editor was sent, and what takes its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import RegionName, by_object, region_name
from svac_backend.labelstudio.regions.sent import (
    next_generation,
    of_generation,
    outdated,
    removals,
    sent_regions,
)
from svac_backend.labelstudio.regions.written import validate_results
from svac_backend.masks.rle import decode_brush

CONFIG = """<View><Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="dog"/></BrushLabels>
  <PolygonLabels name="poly" toName="frames"><Label value="dog"/></PolygonLabels></View>"""


def region(frame: int, value: int = 1, object_id: str = "obj1", generation: int = 0) -> dict[str, Any]:
    return {
        "id": str(RegionName(object_id, frame, generation)),
        "from_name": "mask",
        "to_name": "frames",
        "type": "brushlabels",
        "original_width": 32,
        "original_height": 24,
        "image_rotation": 0,
        "item_index": frame,
        "score": 0.5,
        "value": {"format": "rle", "rle": [value, 2, 3], "brushlabels": ["dog"]},
    }


def polygon(frame: int, *points: tuple[float, float], part: int = 1) -> dict[str, Any]:
    return {
        **region(frame),
        "id": str(RegionName("obj1", frame, 0, part)),
        "from_name": "poly",
        "type": "polygonlabels",
        "value": {"points": [list(p) for p in points], "closed": True, "polygonlabels": ["dog"]},
    }


@given(
    st.from_regex(r"[a-z0-9_]{1,8}(-f1)?", fullmatch=True),
    st.integers(0, 200_000),
    st.integers(0, 99),
    st.integers(1, 999),
)
def test_names_round_trip(object_id: str, frame: int, generation: int, part: int) -> None:
    name = RegionName(object_id, frame, generation, part)
    assert region_name({"id": str(name)}) == name


def test_first_ids_are_plain_and_those_of_persons_say_nothing() -> None:
    assert str(RegionName("obj1", 4)) == "obj1-f00004"
    assert str(RegionName("obj1", 4, 0, 2)) == "obj1-f00004-2"
    assert str(RegionName("obj1", 4, 2, 1)) == "obj1-f00004-2001"
    assert [region_name({"id": id_}) for id_ in ("iQe_2W1Rpp", "obj1-f4", "obj1-boxes", None)] == [None] * 4


def test_generations_follow_each_other() -> None:
    first = [region(0), polygon(1, (0, 0), part=2)]
    assert next_generation([]) == next_generation([{"id": "abc"}]) == 0
    assert next_generation(first) == 1
    second = of_generation(first, 1)
    assert [one["id"] for one in second] == ["obj1-f00000-1001", "obj1-f00001-1002"]
    assert first[0]["id"] == "obj1-f00000"
    assert next_generation([*second, *first]) == 2
    assert outdated([*first, *second], 3) == {"obj1-f00000", "obj1-f00001-2"}


def test_regions_by_object() -> None:
    other = region(0, object_id="obj2")
    assert by_object([region(0), other, {"id": "abc"}, region(1)]) == {
        "obj1": [region(0), region(1)],
        "obj2": [other],
    }


def test_removals_are_dynamic_tiny_and_shown_where_the_region_is() -> None:
    gone = removals([region(3), polygon(4, (10, 10), (20, 10), (20, 20)), region(3)])
    assert [(one["id"], one["item_index"], one["dynamic"]) for one in gone] == [
        ("obj1-f00003", 3, True),
        ("obj1-f00004", 4, True),
    ]
    assert not np.any(decode_brush(gone[0]["value"]["rle"], 24, 32))
    assert gone[0]["value"]["brushlabels"] == gone[1]["value"]["polygonlabels"] == ["dog"]
    validate_results(gone[:1], parse_config(CONFIG))
    # A point goes in half the time that a polygon takes.
    assert gone[1]["value"] == {"x": 0, "y": 0, "width": 0.1, "polygonlabels": ["dog"]}


def ids(regions: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in regions]


def test_an_untouched_prediction_is_what_was_sent() -> None:
    sent = [region(0), region(1)]
    assert sent_regions([region(0), region(1, 9)], [], [sent]) == sent


def test_what_a_person_deleted_was_sent() -> None:
    sent = [region(frame) for frame in range(4)]
    assert sent_regions(sent[:3], [], [sent]) == sent


def test_a_prediction_that_came_later_was_not_deleted() -> None:
    """The annotator got the first frames at once, and the whole was pushed while he worked."""
    whole = [region(frame) for frame in range(6)]
    assert ids(sent_regions(whole[:4], whole[:4], [whole])) == ids(whole[:4])
    assert ids(sent_regions(whole[:3], whole[:4], [whole])) == ids(whole[:4])  # this one he did delete


def test_a_suggestion_that_was_not_accepted_was_not_deleted() -> None:
    assert sent_regions([], [region(0), region(1)], []) == []
    sent = [region(0), region(1)]
    rejected = of_generation(sent, 1)
    assert sent_regions(sent, rejected, [sent]) == sent


def test_the_prediction_that_the_annotation_was_made_from_tells_deletions() -> None:
    whole = [region(frame) for frame in range(6)]
    assert sent_regions(whole[:1], [], [whole]) == whole[:1]
    assert sent_regions(whole[:1], [], [whole], parent=whole) == whole


def test_of_predictions_with_the_same_ids_the_one_that_agrees_counts() -> None:
    old, new = [region(0, 1), region(1, 1)], [region(0, 2), region(1, 2)]
    assert sent_regions([region(0, 1), region(1, 7)], [], [old, new])[0] == old[0]
    assert sent_regions([region(0, 2), region(1, 7)], [], [old, new])[0] == new[0]
    assert sent_regions([region(0, 8), region(1, 7)], [], [old, new]) == new


def test_of_answers_the_one_that_is_there_counts() -> None:
    first = [region(frame) for frame in range(4)]
    second = of_generation(first, 1)
    now = [first[0], *second[1:]]  # frame 0 was corrected, so it was not in the answer
    assert ids(sent_regions(now, second[1:], [first])) == ids(now)
    assert ids(sent_regions(now[:-1], second[1:], [first])) == ids(now)


@pytest.mark.parametrize("drift", [0.0, 1e-13])
def test_floats_that_drift_are_the_same(drift: float) -> None:
    old = [polygon(0, (10, 10), (20, 10), (20, 20))]
    new = [polygon(0, (11, 10), (20, 10), (20, 20))]
    now = [polygon(0, (10 + drift, 10), (20, 10), (20, 20))]
    assert sent_regions(now, [], [old, new]) == old


def test_all_parts_of_a_frame_were_sent_together() -> None:
    parts = [polygon(0, (10, 10), (20, 10), (20, 20), part=n) for n in (1, 2)]
    assert sent_regions(parts[1:], [], [parts]) == parts
