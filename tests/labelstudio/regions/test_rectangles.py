"""Boxes of masks as VideoRectangle tracks: as the editor shows them, and back."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from svac_backend.errors import SvacError
from svac_backend.labelstudio.regions.merge import merge_results
from svac_backend.labelstudio.regions.rectangles import box_tracks, boxes_problem, tracks_to_boxes
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.written import validate_results
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.rle import bounding_box, to_coco
from svac_backend.masks.tracks import Track
from tests.labelstudio.annotations import (
    BOXES,
    HEIGHT,
    LABELS,
    VIDEO,
    WIDTH,
    config_of,
    mask_of,
    sent_of,
    tag,
    track_of,
    xml_of,
)

XML = xml_of(tag("Brush"), VIDEO, BOXES)
CONFIG = config_of(tag("Brush"), VIDEO, BOXES)
assert CONFIG.overview is not None
CONTROL = CONFIG.overview
SIZE = {"canvas": Canvas(WIDTH, HEIGHT)}
FPS = 25.0


def boxes_of(*tracks: Track, frame_count: int = 10, **options: Any) -> list[dict[str, Any]]:
    chosen = RegionOptions(min_area_px=options.pop("min_area_px", 0))
    return tracks_to_boxes(
        tracks, CONTROL, Canvas(WIDTH, HEIGHT), chosen, fps=FPS, frame_count=frame_count, **options
    )


def moving(*lefts: int | None, first: int = 0) -> Track:
    """A box of 10 x 8 px that stands at these columns on the frames from `first` on; None: absent."""
    found = {f: left for f, left in enumerate(lefts, first) if left is not None}
    return track_of({f: mask_of((5, 13, left, left + 10)) for f, left in found.items()})


def keyframes(region: dict[str, Any]) -> list[tuple[int, bool, float]]:
    """1-based frame, enabled, left edge in pixels."""
    return [(k["frame"], k["enabled"], k["x"] / 100 * WIDTH) for k in region["value"]["sequence"]]


def test_region_is_as_the_editor_wants_it() -> None:
    (region,) = boxes_of(moving(16, first=3), frame_count=4)
    assert region == {
        "id": "obj1-boxes",
        "from_name": "box",
        "to_name": "video",
        "type": "videorectangle",
        "origin": "prediction",
        "score": 0.5,
        "value": {
            "framesCount": 4,
            "duration": 0.16,
            "labels": ["dog"],
            "sequence": [
                {
                    "frame": 4,
                    "enabled": True,
                    "rotation": 0,
                    "x": 25.0,
                    "y": 10.4167,
                    "width": 15.625,
                    "height": 16.6667,
                    "time": 0.16,
                }
            ],
        },
    }
    validate_results([region], CONFIG, video_frames=4)
    prediction = {"result": [region], "score": 0.5, "model_version": "v"}
    assert LabelInterface(XML).validate_prediction(prediction, return_errors=True) == []


def test_keyframes_stand_only_where_the_motion_changes() -> None:
    (region,) = boxes_of(moving(0, 4, 8, 12, 16, 16, 16, 16, 16, 16))
    assert [frame for frame, _, _ in keyframes(region)] == [1, 5, 10]
    (loose,) = boxes_of(moving(0, 4, 9, 12, 16, 20, 24, 28, 32, 36), tolerance_px=2.0)
    (tight,) = boxes_of(moving(0, 4, 9, 12, 16, 20, 24, 28, 32, 36), tolerance_px=0.5)
    assert [frame for frame, _, _ in keyframes(loose)] == [1, 10]
    assert [frame for frame, _, _ in keyframes(tight)] == [1, 3, 4, 10]


def test_absence_is_said() -> None:
    (region,) = boxes_of(moving(0, 0, None, None, 20, None, 30, 30, 30))
    assert [(frame, enabled) for frame, enabled, _ in keyframes(region)] == [
        (1, True),
        (2, False),  # the last frame on which the editor shows it
        (5, False),
        (7, True),
        (9, False),
    ]


def paths() -> st.SearchStrategy[list[tuple[int, int, int, int] | None]]:
    corner = st.tuples(st.integers(0, 40), st.integers(0, 30), st.integers(2, 20), st.integers(2, 15))
    return st.lists(st.none() | corner, min_size=1, max_size=12).filter(any)


@given(paths(), st.sampled_from([0.5, 2.0, 6.0]))
def test_boxes_come_back_exact_at_keyframes_and_within_the_tolerance_elsewhere(
    path: list[tuple[int, int, int, int] | None], tolerance: float
) -> None:
    track = track_of(
        {f: mask_of((y, y + h, x, x + w)) for f, box in enumerate(path) if box for x, y, w, h in [box]}
    )
    results = json.loads(json.dumps(boxes_of(track, frame_count=len(path), tolerance_px=tolerance)))
    (back,) = box_tracks(results, CONFIG, **SIZE)
    assert (back.object_id, back.label) == ("obj1", "dog")
    assert back.masks.keys() == track.masks.keys()
    keys = {k["frame"] - 1: k for k in results[0]["value"]["sequence"]}
    for frame, mask in back.masks.items():
        left, top, wide, tall = bounding_box(track.masks[frame])
        x, y, w, h = bounding_box(mask)
        off = np.abs(np.array([x - left, y - top, x + w - left - wide, y + h - top - tall])).max()
        assert off <= tolerance + 0.5
        if frame in keys:
            assert mask == track.masks[frame]
            percent = keys[frame]["x"], keys[frame]["y"], keys[frame]["width"], keys[frame]["height"]
            pixels = np.array(percent) / 100 * (WIDTH, HEIGHT, WIDTH, HEIGHT)
            np.testing.assert_allclose(pixels, (left, top, wide, tall), atol=0.5)


def test_specks_other_labels_and_empty_tracks_have_no_boxes() -> None:
    speck = track_of({0: mask_of((0, 3, 0, 5))})
    assert boxes_of(speck, min_area_px=16) == []
    assert boxes_of(track_of({}), track_of({0: mask_of((0, 9, 0, 9))}, label="lorry")) == []


def test_boxes_of_a_window() -> None:
    results = boxes_of(moving(*[10] * 10))
    (back,) = box_tracks(results, CONFIG, Canvas(WIDTH, HEIGHT, Window(2, 3, 2)))
    assert set(back.masks) == {2, 4, 6}


def test_a_turned_box_is_filled_as_it_lies() -> None:
    (region,) = boxes_of(moving(20), frame_count=1)
    region["value"]["sequence"][0] |= {
        "rotation": 90,
        "x": 50,
        "y": 25,
        "width": 31.25,
        "height": 1000 / HEIGHT,
    }
    (back,) = box_tracks([region], CONFIG, **SIZE)
    assert back.masks[0] == to_coco(mask_of((12, 32, 22, 32)))


def merged(now: list[dict[str, Any]], sent: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> list[Any]:
    results = merge_results(now, [moving(10)], {}, CONFIG, **SIZE, sent=sent, boxes=boxes)
    return [region for region in results if region["type"] == "videorectangle"]


def test_the_overview_is_made_anew_unless_a_person_moved_or_deleted_it() -> None:
    old, new = boxes_of(moving(10)), boxes_of(moving(30))
    sent = [*sent_of(CONFIG, moving(10)), *old]
    assert merged(sent, sent, new) == new
    assert merged([], [], new) == new
    assert merged(sent[:-1], sent, new) == []
    moved = copy.deepcopy(sent)
    moved[-1]["value"]["sequence"][0]["x"] += 1
    assert merged(moved, sent, new) == [moved[-1]]
    drifted = copy.deepcopy(sent)
    drifted[-1]["value"]["sequence"][0]["x"] *= 1 + 1e-15
    assert merged(drifted, sent, new) == new
    person = {**copy.deepcopy(old[0]), "id": "aB3dE_9-xY"}
    assert merged([*sent, person], sent, new) == [*new, person]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence": []}, "no keyframe"),
        ({"labels": ["lorry"]}, "labels are not among dog, cat"),
        ({"labels": None}, "labels are not among"),
        ({"sequence": [{"frame": 0, "x": 1, "y": 1, "width": 1, "height": 1}]}, "malformed"),
        ({"sequence": [{"x": 1}]}, "malformed"),
        ({"framesCount": 10**9}, "malformed"),
        ({"framesCount": 11}, "beyond the last frame 9"),
    ],
)
def test_what_the_editor_would_not_show_is_said(change: dict[str, Any], message: str) -> None:
    (region,) = boxes_of(moving(*[10] * 10))
    assert boxes_problem(region, CONTROL, 10) is None
    region["value"] |= change
    assert message in str(boxes_problem(region, CONTROL, 10))
    with pytest.raises(SvacError, match=message):
        validate_results([region], CONFIG, video_frames=10)
    assert "not a videorectangle" in str(boxes_problem({**region, "to_name": "frames"}, CONTROL, 10))


@pytest.mark.parametrize(
    "value",
    [
        {"sequence": [{"frame": "x"}]},
        {"sequence": []},
        {"framesCount": 10**9, "sequence": [{"frame": 1, "x": 1, "y": 1, "width": 1, "height": 1}]},
        {"sequence": [{"frame": 1, "x": "a", "y": 1, "width": 1, "height": 1}]},
        {"sequence": [{"frame": 1, "x": float("nan"), "y": 1, "width": 1, "height": 1}]},
    ],
)
def test_malformed_boxes_are_errors(value: dict[str, Any]) -> None:
    region = {"id": "b", "from_name": "box", "to_name": "video", "type": "videorectangle", "value": value}
    with pytest.raises(SvacError):
        box_tracks([region], CONFIG, **SIZE)


def test_other_results_are_no_boxes() -> None:
    (region,) = boxes_of(moving(10))
    others = [{**region, "from_name": "other"}, {**region, "type": "timelinelabels"}, {}]
    assert box_tracks(others, CONFIG, **SIZE) == []
    assert LABELS in XML
