"""What a person changed is found by shape, and stays as it is when the rest is predicted anew."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.regions.merge import corrected_hints, merge_results
from svac_backend.labelstudio.regions.read import results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions, region_name
from svac_backend.labelstudio.regions.written import validate_results
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track
from tests.labelstudio.annotations import (
    ALL,
    BRUSH,
    HEIGHT,
    PAIR,
    POLYGON,
    WIDTH,
    brushed,
    drawn,
    mask_of,
    sent_of,
    track_of,
    track_sets,
)

Region = dict[str, Any]
SIZE = {"canvas": Canvas(WIDTH, HEIGHT)}
ONE, TWO = mask_of((4, 20, 6, 30)), mask_of((4, 20, 6, 30), (30, 44, 40, 60))
MOVED, OTHER = mask_of((6, 22, 8, 32)), mask_of((30, 44, 40, 60))
EMPTY = mask_of()


def found(
    sent: list[Region], now: list[Region], config: LabelConfig = BRUSH, **options: Any
) -> dict[str, dict[int, NDArray[np.bool_]]]:
    canvas = Canvas(WIDTH, HEIGHT, options.pop("window", None))
    prompts = corrected_hints(sent, json.loads(json.dumps(now)), config, canvas, **options)
    return {
        object_id: {frame: from_coco(prompt.mask) for frame, prompt in frames.items() if prompt.mask}
        for object_id, frames in prompts.items()
    }


def assert_found(
    prompts: dict[str, dict[int, NDArray[np.bool_]]], expected: dict[str, dict[int, NDArray[np.bool_]]]
) -> None:
    assert {o: set(frames) for o, frames in prompts.items()} == {o: set(f) for o, f in expected.items()}
    for object_id, frames in expected.items():
        for frame, mask in frames.items():
            np.testing.assert_array_equal(prompts[object_id][frame], mask)


def drifted(region: Region) -> Region:
    """As the editor returns an untouched polygon: floats off by their last digit."""
    value = region["value"]
    if "points" not in value:
        return {**region, "origin": "manual"}
    points = [[x * (1 + 2e-16), y + 1e-15] for x, y in value["points"]]
    return {**region, "value": {**value, "points": points}}


@given(track_sets(), st.sampled_from([BRUSH, PAIR, POLYGON]))
def test_nothing_touched_is_nothing_corrected(
    made: tuple[list[Track], int, int], config: LabelConfig
) -> None:
    tracks, width, height = made
    sent = sent_of(config, *tracks, canvas=Canvas(width, height))
    now = [drifted(region) for region in reversed(sent)]
    assert corrected_hints(sent, now, config, Canvas(width, height), tracks=tracks) == {}


@pytest.mark.parametrize("config", [BRUSH, PAIR])
def test_edited_deleted_and_erased_brush_masks(config: LabelConfig) -> None:
    track = track_of(dict.fromkeys(range(5), ONE))
    sent = sent_of(config, track, track_of({2: TWO}, "obj2", "cat"))
    now = copy.deepcopy([region for region in sent if region["id"] != "obj1-f00003"])
    for region in now:
        if region["id"] in ("obj1-f00001", "obj1-f00004"):
            region["value"]["rle"] = brushed(0, MOVED if region["item_index"] == 1 else EMPTY)["value"]["rle"]
    assert_found(found(sent, now, config), {"obj1": {1: MOVED, 3: EMPTY, 4: EMPTY}})


def test_a_dragged_vertex_is_found_although_origin_says_prediction() -> None:
    sent = sent_of(POLYGON, track_of(dict.fromkeys(range(3), TWO)))
    now = [drifted(region) for region in copy.deepcopy(sent)]
    dragged = now[2]  # a part of frame 1
    assert (dragged["item_index"], dragged["origin"]) == (1, "prediction")
    dragged["value"]["points"][0][0] += 0.02
    assert found(sent, now, POLYGON).keys() == {"obj1"}
    assert found(sent, now, POLYGON)["obj1"].keys() == {1}


def test_a_deleted_part_of_a_polygon_mask_leaves_the_rest() -> None:
    sent = sent_of(POLYGON, track_of({0: TWO, 1: TWO}))
    now = [region for region in sent if region["id"] != "obj1-f00001-2"]
    assert_found(found(sent, now, POLYGON), {"obj1": {1: ONE}})


def test_frames_and_objects_that_a_person_began() -> None:
    track = track_of({0: ONE, 1: ONE})
    now = [
        *sent_of(BRUSH, track),
        brushed(4, MOVED, "a"),
        brushed(0, OTHER, "b"),
        brushed(1, OTHER, "c", label="cat"),
    ]
    sent = sent_of(BRUSH, track)
    assert_found(
        found(sent, now, tracks=[track]), {"obj1": {4: MOVED}, "obj2": {0: OTHER}, "obj3": {1: OTHER}}
    )


def test_a_vector_a_box_and_a_polygon_on_one_frame() -> None:
    box = drawn(3, {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0}, "a", "rectangle", "rect")
    ring = [[50, 50], [100, 50], [100, 100], [50, 100]]
    vector = [{"id": str(i), "x": x, "y": y} for i, (x, y) in enumerate(ring)]
    now = [box, drawn(3, {"vertices": vector, "closed": True}, "b", "vector", "vec", label="cat")]
    expected = {
        "obj1": {3: mask_of((0, HEIGHT // 2, 0, WIDTH // 2))},
        "obj2": {3: mask_of((HEIGHT // 2, HEIGHT, WIDTH // 2, WIDTH))},
    }
    assert_found(found([], now, ALL), expected)


def test_another_label_is_a_change() -> None:
    sent = sent_of(BRUSH, track_of({0: ONE, 1: ONE, 2: ONE}))
    now = copy.deepcopy(sent)
    now[1]["value"]["brushlabels"] = ["cat"]
    assert_found(found(sent, now), {"obj1": {1: ONE}})


def test_new_ids_alone_are_no_change() -> None:
    """Suggestions that are accepted may get ids of their own."""
    sent = sent_of(BRUSH, track := track_of({0: ONE, 1: ONE}), other := track_of({0: OTHER}, "obj2"))
    now = [{**region, "id": f"random{number}"} for number, region in enumerate(sent)]
    assert found(sent, now, tracks=[track, other]) == {}


def test_windows_turn_items_into_the_videos_frames() -> None:
    window = Window(10, 5, 3)
    track = track_of({10: ONE, 11: ONE, 13: ONE, 16: ONE})
    sent = sent_of(BRUSH, track, window=window)
    assert [region["id"] for region in sent] == ["obj1-f00010", "obj1-f00013", "obj1-f00016"]
    now = [sent[0], brushed(4, MOVED)]
    assert_found(found(sent, now, window=window), {"obj1": {13: EMPTY, 16: EMPTY, 22: MOVED}})


def test_earlier_corrections_hold_until_they_are_changed() -> None:
    """The second round: what came back verbatim was sent, and would else be taken for the model's."""
    first = track_of(dict.fromkeys(range(4), ONE))
    sent = sent_of(BRUSH, first)
    now = [
        *copy.deepcopy([region for region in sent if region["item_index"] not in (1, 2)]),
        brushed(2, MOVED),
    ]
    now[0]["value"]["rle"] = brushed(0, TWO)["value"]["rle"]
    earlier = corrected_hints(sent, now, BRUSH, **SIZE, tracks=[first])
    assert earlier.keys() == {"obj1"}
    assert earlier["obj1"].keys() == {0, 1, 2}
    predicted = track_of({0: TWO, 2: MOVED, 3: OTHER})
    answer = merge_results(now, [predicted], earlier, BRUSH, **SIZE, sent=sent)

    assert found(answer, answer, tracks=[predicted]) == {}  # what is lost without `earlier`
    assert corrected_hints(answer, answer, BRUSH, **SIZE, tracks=[predicted], earlier=earlier) == earlier
    changed = [region for region in answer if region["item_index"] != 2]
    second = found(answer, changed, tracks=[predicted], earlier=earlier)
    assert_found(second, {"obj1": {0: TWO, 1: EMPTY, 2: EMPTY}})


def test_a_region_never_changes_hands() -> None:
    """A person's region belongs to the second object; edited, it looks like the first one."""
    one, two = track_of({0: ONE, 2: ONE}), track_of({0: OTHER, 2: OTHER}, "obj2")
    drawn_first = [*sent_of(BRUSH, one, two), brushed(1, OTHER)]
    earlier = corrected_hints(sent_of(BRUSH, one, two), drawn_first, BRUSH, **SIZE, tracks=[one, two])
    assert earlier.keys() == {"obj2"}
    edited = [*sent_of(BRUSH, one, two), brushed(1, ONE)]
    assert_found(found(drawn_first, edited, tracks=[one, two], earlier=earlier), {"obj2": {1: ONE}})


def test_the_caller_may_keep_what_he_passed() -> None:
    earlier = {"obj1": {7: FrameHint(mask=to_coco(ONE))}}
    corrected_hints([], [brushed(0, ONE)], BRUSH, **SIZE, earlier=earlier)["obj1"][9] = earlier["obj1"][7]
    assert earlier["obj1"].keys() == {7}


@st.composite
def sessions(draw: Any) -> tuple[LabelConfig, list[Track], list[Region], list[Region], list[Track], int, int]:
    """A person at work: what was sent, what is there now, and what the model finds after that."""
    config = draw(st.sampled_from([BRUSH, PAIR, POLYGON]))
    tracks, width, height = draw(track_sets())
    sent = sent_of(config, *tracks, canvas=Canvas(width, height))
    now = [drifted(region) for region in copy.deepcopy(sent)]
    for id_ in {region["id"] for region in sent}:
        what = draw(st.sampled_from(["keep", "keep", "delete", "edit"]))
        if what == "delete":
            now = [region for region in now if region["id"] != id_]
        elif what == "edit":
            for region in (region for region in now if region["id"] == id_):
                if "points" in region["value"]:
                    region["value"]["points"][0] = [draw(st.floats(0, 100)), draw(st.floats(0, 100))]
                else:
                    region["value"]["rle"] = _stroke(width, height, draw(st.integers(1, 5)))
    for number in range(draw(st.integers(0, 2))):
        value = {"format": "rle", "rle": _stroke(width, height, number + 1)}
        label = draw(st.sampled_from(["dog", "cat"]))
        region = drawn(draw(st.integers(0, 6)), value, f"new{number}", "brush", label=label)
        now.append({**region, "original_width": width, "original_height": height})
    if config is not BRUSH:
        now = [region for region in now if not str(region["id"]).startswith("new")]
    now.append(
        {"id": "t", "from_name": "prompt", "to_name": "frames", "type": "textarea", "value": {"text": ["x"]}}
    )
    again, _, _ = draw(track_sets())
    fresh = [
        Track(track.object_id, track.label, track.expression, dict(other.masks), dict(other.scores))
        for track, other in zip(tracks, again, strict=False)
    ]
    fresh = [
        track_of(
            {frame: _resized(mask, width, height) for frame, mask in track.masks.items()},
            track.object_id,
            track.label,
        )
        for track in fresh
    ] + tracks[len(fresh) :]
    return config, tracks, sent, now, fresh, width, height


def _stroke(width: int, height: int, columns: int) -> list[int]:
    mask = np.zeros((height, width), bool)
    mask[:, :columns] = True
    return list(brushed(0, mask)["value"]["rle"])


def _resized(rle: Any, width: int, height: int) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    mask[: rle["size"][0], : rle["size"][1]] = from_coco(rle)[:height, :width]
    mask[0, 0] = True
    return mask


@given(sessions())
@settings(max_examples=60)
def test_merging_keeps_all_that_a_person_made(session: Any) -> None:
    config, tracks, sent, now, fresh, width, height = session
    size = {"canvas": Canvas(width, height)}
    corrected = corrected_hints(sent, now, config, **size, tracks=tracks)
    # What `pipeline.propagate` does with the prompts: their frames hold exactly their masks.
    made = {track.object_id for track in fresh}
    fresh = fresh + [Track(o, "dog", "dog") for o in corrected if o not in made]
    for track in fresh:
        for frame, prompt in corrected.get(track.object_id, {}).items():
            assert prompt.mask is not None
            track.masks.pop(frame, None)
            if from_coco(prompt.mask).any():
                track.masks[frame] = prompt.mask
    before = json.dumps(now)
    merged = merge_results(
        now, fresh, corrected, config, **size, sent=sent, options=RegionOptions(min_area_px=0)
    )
    assert json.dumps(now) == before

    # Every region of a corrected frame is there as it was, byte for byte, and so are those of other tags.
    texts = {json.dumps(region) for region in merged}
    for region in now:
        name = region_name(region)
        object_id = name.object_id if name else ""
        if not object_id or region["item_index"] in corrected.get(object_id, {}):
            assert json.dumps(region) in texts
    # Ids are unique for each control, and everything else is what the model found.
    ids = [(region["id"], region["from_name"]) for region in merged]
    assert len(ids) == len(set(ids))
    back = {
        track.object_id: track
        for track in results_to_tracks(merged, config, **size, tracks=fresh, certain=corrected)
    }
    for track in fresh:
        assert back[track.object_id].masks.keys() == track.masks.keys()
        if config is not POLYGON:
            assert back[track.object_id].masks == track.masks
    # A second round without a touch changes nothing.
    assert corrected_hints(merged, merged, config, **size, tracks=fresh, earlier=corrected) == corrected


def test_notes_and_results_of_other_tags_stay_and_relations_need_both_ends() -> None:
    track = track_of({0: ONE, 1: ONE})
    sent = sent_of(BRUSH, track)
    now = copy.deepcopy(sent)
    now[0] |= {"meta": {"text": ["look here"]}, "locked": True}
    choice = {
        "id": "c",
        "from_name": "done",
        "to_name": "frames",
        "type": "choices",
        "value": {"choices": ["yes"]},
    }
    comment = {**now[1], "from_name": "prompt", "type": "textarea", "value": {"text": ["a tail"]}}
    holds = {"type": "relation", "from_id": "obj1-f00000", "to_id": "obj1-f00001", "direction": "right"}
    broken = {**holds, "to_id": "gone"}
    predicted = track_of({0: MOVED, 1: MOVED}, score=0.9)
    stray = {"id": "t", "from_name": "mask", "to_name": "frames", "type": "brushlabels"}
    stray["value"] = {"brushlabels": ["dog"]}
    assert found(sent, [*sent, stray]) == {}
    merged = merge_results(
        [*now, choice, comment, holds, broken, stray], [predicted], {}, BRUSH, **SIZE, sent=sent
    )
    assert merged[:2] == [
        {**sent_of(BRUSH, predicted)[0], "meta": {"text": ["look here"]}, "locked": True},
        sent_of(BRUSH, predicted)[1],
    ]
    assert merged[2:] == [choice, comment, holds]


def test_a_region_without_an_id_stays_and_gets_one() -> None:
    drawn_ = {key: value for key, value in brushed(0, OTHER, label="cat").items() if key != "id"}
    relation = {"type": "relation", "from_id": "x", "to_id": "y"}
    corrected = {"obj1": {0: FrameHint(clicks=(Click(1, 1),))}}
    now = [*sent_of(BRUSH, track_of({0: ONE})), drawn_, relation]
    merged = merge_results(now, [track_of({0: MOVED})], corrected, BRUSH, **SIZE)
    assert [{**region, "id": ""} for region in merged[1:]] == [{**drawn_, "id": ""}]
    validate_results(merged, BRUSH)


def test_clicks_protect_nothing_and_objects_without_a_track_stay() -> None:
    now = [*sent_of(BRUSH, track_of({0: ONE})), brushed(0, OTHER, label="cat")]
    corrected = {"obj1": {0: FrameHint(clicks=(Click(1, 1),))}}
    merged = merge_results(now, [track_of({0: MOVED})], corrected, BRUSH, **SIZE)
    assert merged == [*sent_of(BRUSH, track_of({0: MOVED})), now[1]]


def test_a_rendered_id_that_a_kept_region_has_gets_another_part() -> None:
    """Copied onto another frame, a region keeps what its id says; it must not meet the one that is rendered."""
    copied = {**brushed(1, ONE, "obj1-f00000"), "item_index": 1}
    corrected = {"obj1": {1: FrameHint(mask=to_coco(ONE))}}
    merged = merge_results([copied], [track_of({0: MOVED, 1: ONE})], corrected, BRUSH, **SIZE)
    assert [region["id"] for region in merged] == ["obj1-f00000-2", "obj1-f00000"]
    assert merged[1] == copied


def test_masks_of_corrections_that_are_not_in_the_annotation_are_rendered() -> None:
    corrected = {"obj1": {1: FrameHint(mask=to_coco(ONE))}}
    merged = merge_results([], [track_of({1: ONE})], corrected, BRUSH, **SIZE)
    assert merged == sent_of(BRUSH, track_of({1: ONE}))
