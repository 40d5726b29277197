"""Results become the tracks that they were made of; and what persons drew becomes tracks, too."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.regions.read import read_drawn, results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions, frame_size
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.metrics import iou
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from tests.labelstudio.annotations import (
    ALL,
    BRUSH,
    HEIGHT,
    PAIR,
    POLYGON,
    VIDEO,
    WIDTH,
    brushed,
    config_of,
    drawn,
    mask_of,
    masks_of,
    sent_of,
    tag,
    track_of,
    track_sets,
)

SIZE = {"canvas": Canvas(WIDTH, HEIGHT)}
ONE, TWO = mask_of((4, 20, 6, 30)), mask_of((4, 20, 6, 30), (30, 44, 40, 60))
HOLED = mask_of((4, 40, 6, 50)) & ~mask_of((12, 30, 14, 30))
WINDOWS = st.none() | st.builds(Window, st.integers(0, 4), st.integers(1, 5), st.integers(1, 3))


def shown(track: Track, window: Window | None) -> dict[int, Any]:
    return {f: rle for f, rle in track.masks.items() if window is None or window.item(f) is not None}


def there_and_back(
    made: tuple[list[Track], int, int], config: LabelConfig, window: Window | None, known: bool = True
) -> list[Track]:
    tracks, width, height = made
    results = tracks_to_results(
        tracks,
        config.mask_control(),
        Canvas(width, height, window),
        RegionOptions(min_area_px=0),
    )
    stored = json.loads(json.dumps(results))
    return results_to_tracks(stored, config, Canvas(width, height, window), tracks=tracks if known else ())


@given(track_sets(), st.sampled_from([BRUSH, PAIR]), WINDOWS)
def test_brush_results_are_the_same_tracks_bit_for_bit(
    made: tuple[list[Track], int, int], config: LabelConfig, window: Window | None
) -> None:
    back = there_and_back(made, config, window)
    assert [(t.object_id, t.label, t.expression) for t in back] == [
        (t.object_id, t.label, t.expression) for t in made[0]
    ]
    for before, after in zip(made[0], back, strict=True):
        assert after.masks == shown(before, window)
        assert after.scores == dict.fromkeys(after.masks, 0.5)


@given(track_sets(), WINDOWS)
def test_results_alone_tell_ids_and_labels(made: tuple[list[Track], int, int], window: Window | None) -> None:
    back = {track.object_id: track for track in there_and_back(made, BRUSH, window, known=False)}
    expected = {t.object_id: t for t in made[0] if shown(t, window)}
    assert back.keys() == expected.keys()
    for object_id, track in back.items():
        assert track.label == expected[object_id].label
        assert track.masks == shown(expected[object_id], window)
        assert track.expression == {"dog": "the white dog", "cat": "cat"}[track.label]


@given(track_sets(largest=16, scales=(1, 5)), WINDOWS)
@settings(max_examples=150)
def test_polygons_keep_98_percent_of_every_mask(
    made: tuple[list[Track], int, int], window: Window | None
) -> None:
    for before, after in zip(made[0], there_and_back(made, POLYGON, window), strict=True):
        assert after.masks.keys() == shown(before, window).keys()
        was, is_ = masks_of(before), masks_of(after)
        for frame in is_:
            assert iou(is_[frame], was[frame]) >= 0.98


@pytest.mark.parametrize("mask", [HOLED, TWO, HOLED | mask_of((42, 46, 55, 60))])
def test_holes_and_parts_survive_polygons(mask: np.ndarray) -> None:
    results = sent_of(POLYGON, track_of({3: mask}))
    assert len(results) > 1
    (track,) = results_to_tracks(results, POLYGON, **SIZE)
    np.testing.assert_array_equal(masks_of(track)[3], mask)


@given(
    st.integers(0, HEIGHT - 2),
    st.integers(0, WIDTH - 2),
    st.integers(1, HEIGHT),
    st.integers(1, WIDTH),
    st.booleans(),
)
def test_boxes_and_vectors_that_follow_pixels_are_exact(
    top: int, left: int, tall: int, wide: int, vector: bool
) -> None:
    bottom, right = min(top + tall, HEIGHT), min(left + wide, WIDTH)
    x, y, x1, y1 = left / WIDTH * 100, top / HEIGHT * 100, right / WIDTH * 100, bottom / HEIGHT * 100
    corners = [(x, y), (x1, y), (x1, y1), (x, y1)]
    if vector:
        points = [{"id": str(i), "x": a, "y": b} for i, (a, b) in enumerate(corners)]
        region = drawn(2, {"vertices": points, "closed": True}, "p1", "vector", "vec")
    else:
        box = {"x": x, "y": y, "width": x1 - x, "height": y1 - y, "rotation": 0}
        region = drawn(2, box, "p1", "rectangle", "rect")
    (track,) = results_to_tracks([region], ALL, **SIZE)
    assert track.object_id == "obj1"
    np.testing.assert_array_equal(masks_of(track)[2], mask_of((top, bottom, left, right)))


def test_a_turned_box_turns_clockwise_around_its_corner() -> None:
    # A box of 20 x 10 px at (32, 12), turned by 90 degrees: it then lies left of its corner.
    box = {"x": 50, "y": 25, "width": 31.25, "height": 10 / HEIGHT * 100, "rotation": 90}
    (track,) = results_to_tracks([drawn(0, box, "p1", "rectangle", "rect")], ALL, **SIZE)
    np.testing.assert_array_equal(masks_of(track)[0], mask_of((12, 32, 22, 32)))


def test_other_tags_open_lines_and_other_objects_are_no_masks() -> None:
    results = [
        {
            "id": "t",
            "from_name": "prompt",
            "to_name": "frames",
            "type": "textarea",
            "value": {"text": ["a dog"]},
        },
        {
            "id": "c",
            "from_name": "done",
            "to_name": "frames",
            "type": "choices",
            "value": {"choices": ["yes"]},
        },
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
        drawn(0, {"vertices": [{"x": 1, "y": 1}] * 3, "closed": False}, "v", "vector", "vec"),
        drawn(0, {"points": [[1, 1], [9, 9]], "closed": True}, "p", "polygon", "poly"),
        drawn(0, {"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["dog"]}, "k", "keypoint", "kp"),
        drawn(0, {"x": 1, "y": 1, "radiusX": 5, "radiusY": 5}, "e", "rectangle", "rect"),
        {**brushed(0, ONE), "to_name": "elsewhere"},
        {**brushed(0, ONE), "dynamic": True},
    ]
    assert results_to_tracks(results, ALL, **SIZE) == []


def test_what_nothing_is_left_of_is_still_known() -> None:
    known = [track_of({0: ONE}), track_of({}, "obj2", "cat")]
    back = results_to_tracks([], BRUSH, **SIZE, tracks=known)
    assert [(track.object_id, track.masks) for track in back] == [("obj1", {}), ("obj2", {})]
    drawn = read_drawn([brushed(5, ONE, label="cat")], BRUSH, **SIZE, tracks=known)
    assert list(drawn.objects) == ["obj1", "obj2"]


def test_an_erased_brush_mask_is_no_mask() -> None:
    results = sent_of(BRUSH, track_of({0: ONE, 1: ONE}))
    results[1]["value"]["rle"] = brushed(1, mask_of())["value"]["rle"]
    (track,) = results_to_tracks(results, BRUSH, **SIZE)
    assert set(track.masks) == {0}


def test_a_label_that_a_person_changed_everywhere_is_the_objects_label() -> None:
    known = track_of({0: ONE, 1: ONE, 2: ONE})
    results = sent_of(BRUSH, known)
    results[0]["value"]["brushlabels"] = ["cat"]
    (track,) = results_to_tracks(results, BRUSH, **SIZE, tracks=[known])
    assert track.label == "dog"
    results[1]["value"]["brushlabels"] = results[2]["value"]["brushlabels"] = ["cat"]
    (track,) = results_to_tracks(results, BRUSH, **SIZE, tracks=[known])
    assert track.label == "cat"


def video_boxes(id_: str, label: str = "dog") -> dict[str, Any]:
    key = {"enabled": True, "rotation": 0, "x": 25, "y": 25, "width": 50, "height": 50}
    sequence = [{"frame": 2, "time": 2 / 25, **key}, {"frame": 3, "time": 3 / 25, **key, "enabled": False}]
    value = {"framesCount": 4, "duration": 0.16, "labels": [label], "sequence": sequence}
    return {"id": id_, "from_name": "box", "to_name": "video", "type": "videorectangle", "value": value}


BOX_CONTROLS = (
    '<VideoRectangle name="box" toName="video"/>'
    '<Labels name="bl" toName="video"><Label value="dog"/></Labels>'
)


def test_video_rectangles_are_filled_boxes_where_nothing_of_their_label_is_drawn() -> None:
    box = mask_of((12, 36, 16, 48))
    only = parse_config(f"<View>{VIDEO}{BOX_CONTROLS}</View>")
    (track,) = results_to_tracks([video_boxes("obj7-boxes")], only, **SIZE)
    assert (track.object_id, track.label) == ("obj7", "dog")
    assert track.masks == {1: to_coco(box), 2: to_coco(box)}

    both = config_of(tag("Brush"), VIDEO, BOX_CONTROLS)
    person = video_boxes("aB3dE_9-xY")
    (track,) = results_to_tracks([person], both, **SIZE)
    assert (track.object_id, set(track.masks)) == ("obj1", {1, 2})
    assert results_to_tracks([video_boxes("obj7-boxes")], both, **SIZE) == []
    (track,) = results_to_tracks([*sent_of(both, track_of({0: ONE})), person], both, **SIZE)
    assert set(track.masks) == {0}
    cat, dog = results_to_tracks([*sent_of(both, track_of({0: ONE}, label="cat")), person], both, **SIZE)
    assert (cat.object_id, dog.object_id, dog.label) == ("obj1", "obj2", "dog")


def test_300_brush_masks_are_read_in_well_under_a_few_seconds() -> None:
    rows, columns = np.indices((720, 1280))
    masks = {
        f: (columns - 300 - 2 * f) ** 2 + (rows - 360) ** 2 < (100 + f % 17) ** 2 for f in range(0, 300, 10)
    }
    size = {"canvas": Canvas(1280, 720)}
    results = sent_of(BRUSH, track_of(masks), **size)
    begun = time.process_time()
    (track,) = results_to_tracks(results, BRUSH, **size)
    assert (time.process_time() - begun) * 300 / len(masks) < 3
    assert len(track.masks) == len(masks)


@pytest.mark.parametrize("id_", ["", None, 7])
def test_regions_without_ids_are_drawn_all_the_same(id_: Any) -> None:
    """Imported pre-annotations may have none, and relations never have one."""
    results = [{**brushed(frame, ONE), "id": id_} for frame in (0, 1)]
    if id_ is None:
        results = [{key: value for key, value in one.items() if key != "id"} for one in results]
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    (track,) = results_to_tracks([*results, relation], BRUSH, **SIZE)
    assert track.masks == {0: to_coco(ONE), 1: to_coco(ONE)}


def test_a_size_is_that_of_its_own_picture() -> None:
    small = {"to_name": "thumb", "original_width": 10, "original_height": 8}
    frames = {"to_name": "frames", "original_width": 160.0, "original_height": 120.0}
    assert frame_size([small, frames], on="frames") == (160, 120)
    assert frame_size([small], on="frames") is None
    assert frame_size([{**frames, "original_width": 160.5}]) is None
    assert frame_size([{**frames, "original_width": True}]) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_index": -1}, "item_index"),
        ({"item_index": "3"}, "item_index"),
        ({"item_index": 9}, "lies on frame 9, but the task has 5"),
    ],
)
def test_regions_that_cannot_be_placed_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SvacError, match=message):
        results_to_tracks([{**brushed(0, ONE), **change}], BRUSH, Canvas(WIDTH, HEIGHT, Window(0, 5)))
    with pytest.raises(SvacError, match="not an object"):
        results_to_tracks(["text"], BRUSH, **SIZE)  # type: ignore[list-item]
