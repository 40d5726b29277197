"""Bodies of interactive calls, as Label Studio 1.23.2 sends them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from svac_backend.editor.request import (
    Request,
    draft_with,
    predicted_regions,
    read_request,
    shown_regions,
    used_ids,
)
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import frame_size
from svac_backend.masks.hints import Click, FrameHint

CONFIG = parse_config(
    """<View><TextArea name="prompt" toName="frames" smart="true"/><Image name="frames" valueList="$frames"/>
    <BrushLabels name="mask" toName="frames"><Label value="dog"/><Label value="cat"/></BrushLabels></View>"""
)


def text(*texts: Any) -> dict[str, Any]:
    region = {"value": {"text": list(texts)}, "from_name": "prompt", "to_name": "frames", "type": "textarea"}
    return {"result": [{"id": "iQe_2W1Rpp", "origin": "manual", **region}]}


def point(x: float = 25.0, y: float = 50.0, label: str = "positive", **other: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.26, "labels": [label], "keypointlabels": [label]}
    return {
        "original_width": 480,
        "original_height": 270,
        "image_rotation": 0,
        "item_index": 2,
        "value": value,
        "is_positive": True,
        "id": "rwhTmhnW9C",
        "from_name": "kp",
        "to_name": "frames",
        "type": "keypointlabels",
        **other,
    }


def box(x: float, y: float, width: float, height: float, rotation: float = 0.0) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    return {
        **point(),
        "id": "b",
        "type": "rectanglelabels",
        "value": {**value, "rectanglelabels": ["object_box"]},
    }


def test_a_text_is_an_expression() -> None:
    assert read_request(text("the red car"), CONFIG) == Request(
        texts=("the red car",), typed=["the red car"], ids=frozenset({"iQe_2W1Rpp"})
    )


def test_of_a_field_that_keeps_its_texts_the_last_one_counts() -> None:
    assert read_request(text("the ring", "the star"), CONFIG).texts == ("the star",)
    assert read_request(text("propagate", "the star"), CONFIG).texts == ("the star",)


@pytest.mark.parametrize("command", ["propagate", " Propagate ", ">>"])
def test_a_command_in_the_field_is_taken_out_of_it(command: str) -> None:
    found = read_request(text("the ring", command), CONFIG)
    assert (found.propagate, found.left, found.texts) == (True, ("the ring",), ())
    assert read_request(text(command), CONFIG).left == ()


def test_a_key_point_of_that_label_is_the_command() -> None:
    stray = {
        "value": {"brushlabels": ["dog"]},
        "id": "rwhTmhnW9C",
        "from_name": "mask",
        "type": "brushlabels",
    }
    found = read_request({"result": [stray, point(label="propagate")]}, CONFIG)
    assert found == Request(propagate=True, ids=frozenset({"rwhTmhnW9C"}))


def test_clicks_are_pixels_of_their_frame() -> None:
    points = [
        point(25.0, 50.0),
        point(50.0, 50.0, is_positive=False),
        point(0.0, 0.0, label="negative", item_index=3),
    ]
    found = read_request({"result": points}, CONFIG)
    assert found.pointed == {
        2: FrameHint(clicks=(Click(120.0, 135.0), Click(240.0, 135.0, positive=False))),
        3: FrameHint(clicks=(Click(0.0, 0.0, positive=False),)),
    }
    assert (found.size, found.label) == ((480, 270), "positive")


@pytest.mark.parametrize(
    ("drawn", "wanted"),
    [
        (box(10, 20, 50, 10), (48.0, 54.0, 288.0, 81.0)),
        (box(90, 20, 50, 10), (432.0, 54.0, 480.0, 81.0)),  # reaches beyond the frame
        (box(50, 50, 10, 10, rotation=90), (213.0, 135.0, 240.0, 183.0)),
    ],
)
def test_boxes_are_pixels(drawn: dict[str, Any], wanted: tuple[float, ...]) -> None:
    assert read_request({"result": [drawn]}, CONFIG).pointed[2].box == pytest.approx(wanted)


def test_clicks_and_a_box_on_a_frame_belong_together() -> None:
    found = read_request({"result": [point(25.0, 50.0), box(10, 20, 50, 50)]}, CONFIG)
    assert list(found.pointed) == [2]
    assert found.pointed[2].box is not None
    assert found.pointed[2].clicks == (Click(120.0, 135.0),)


@pytest.mark.parametrize("context", [{"result": []}, text()])
def test_an_empty_context_asks_for_nothing(context: dict[str, Any]) -> None:
    assert read_request(context, CONFIG) == Request()


@pytest.mark.parametrize(
    ("region", "error"),
    [
        ({**point(), "type": "brushlabels"}, "brushlabels"),
        ({**point(), "original_width": None}, "how large"),
        ({**point(), "item_index": -1}, "no possible frame"),
        ({**point(), "item_index": 200_000}, "no possible frame"),
        ({**point(), "original_width": 20_000, "original_height": 20_000}, "larger than any"),
        ({**point(), "value": {"x": 10**400, "y": 2}}, "no coordinates"),
        ({**point(), "value": {"x": "1", "y": 2}}, "no coordinates"),
        ({**point(), "value": {"x": float("nan"), "y": 2}}, "no coordinates"),
        (box(10, 10, 0, 5), "no area"),
        (box(100, 10, 5, 5), "no area"),
    ],
)
def test_what_is_no_prompt_is_refused(region: dict[str, Any], error: str) -> None:
    with pytest.raises(SvacError, match=re.escape(error)):
        read_request({"result": [region]}, CONFIG)


def result(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id_, "original_width": 480, "original_height": 270} for id_ in ids]


TASK = {
    "annotations": [
        {"id": 1, "result": result("old"), "updated_at": "2026-01-01T10:00:00Z"},
        {"id": 2, "result": result("obj4-f00001"), "created_at": "2026-01-01T11:00:00Z"},
    ],
    "drafts": [{"id": 3, "result": result("draft"), "updated_at": "2026-01-01T12:00:00Z"}],
    "predictions": [
        {"id": 12, "result": result("obj2-f00001"), "model_version": "other"},
        {"id": 10, "result": result("obj1-f00001"), "model_version": "v"},
        {"id": 11, "result": result("obj1-f00001-1001"), "model_version": "v"},
    ],
}


def test_the_editor_shows_what_was_changed_last() -> None:
    assert shown_regions(TASK, "v") == result("draft")
    assert shown_regions({**TASK, "drafts": []}, "v") == result("obj4-f00001")
    assert shown_regions({**TASK, "drafts": [17], "annotations": []}, "v") == result("obj1-f00001-1001")
    assert shown_regions({**TASK, "drafts": [], "annotations": []}, "x") == result("obj2-f00001")
    assert shown_regions({"id": 7}, "v") == []


def draft(number: int, updated: str, *regions: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "updated_at": updated, "result": list(regions)}


def test_the_draft_that_holds_a_click() -> None:
    request = read_request({"result": [point(label="propagate")]}, CONFIG)
    stroke, click = {"id": "stroke"}, {"id": "rwhTmhnW9C"}
    old, new, other = draft(1, "T1", stroke), draft(1, "T2", stroke, click), draft(2, "T3", stroke)
    assert draft_with([old, other], request) is None
    assert draft_with([new, other], request, [old]) == (new, [stroke, click])
    assert draft_with([new, other], request, [new]) is None
    assert draft_with([{"id": 3, "result": None}], request, None) is None


def test_the_draft_that_holds_a_text_has_this_text() -> None:
    (before,), (after,) = text("the ring")["result"], text("the ring", "propagate")["result"]
    request = read_request(text("the ring", "propagate"), CONFIG)
    assert draft_with([draft(1, "T1", before)], request) is None
    saved = draft(1, "T2", after)
    assert draft_with([saved], request, [draft(1, "T1", before)]) == (saved, [after])


def test_all_that_was_ever_there_is_in_use() -> None:
    assert used_ids(TASK) == {"obj1", "obj2", "obj4"}
    assert used_ids({"id": 7, "annotations": None}) == set()


def test_predictions_come_in_order() -> None:
    assert [regions[0]["id"] for regions in predicted_regions(TASK)] == [
        "obj1-f00001",
        "obj1-f00001-1001",
        "obj2-f00001",
    ]


def test_the_size_of_the_frames() -> None:
    assert frame_size([{"id": "text"}], result("a")) == (480, 270)
    assert frame_size([], [{"original_width": 0, "original_height": 5}]) is None


@pytest.mark.parametrize(("key", "value"), [("value", 5), ("id", ["a"]), ("from_name", {"a": 1})])
def test_what_is_no_region_is_refused_or_left_out(key: str, value: Any) -> None:
    """Each of them was a TypeError, in the call that an annotator waits for."""
    broken = {**point(), "id": "a", key: value}
    with pytest.raises(SvacError, match=f"its '{key}'"):
        read_request({"result": [broken]}, CONFIG)
    with pytest.raises(SvacError, match=f"its '{key}'"):
        shown_regions({"drafts": [{"id": 1, "result": [broken]}]}, "v")
    foreign = {"predictions": [{"id": [1], "result": [broken, point()]}]}
    assert shown_regions(foreign, "v") == [point()]
    assert predicted_regions(foreign) == [[point()]]
