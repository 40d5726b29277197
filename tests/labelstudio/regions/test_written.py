"""Tracks as Label Studio regions, and the check before they are sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.written import to_prediction, tracks_to_results, validate_results
from svac_backend.masks.metrics import iou
from svac_backend.masks.polygons import polygons_to_mask
from svac_backend.masks.rle import decode_brush, to_coco
from svac_backend.masks.tracks import Track

CONFIGS = Path(__file__).parents[3] / "labelstudio_config"
WIDTH, HEIGHT = 64, 48


def shipped(kind: str) -> str:
    return (CONFIGS / f"{kind}_frames.xml").read_text()


def mask_of(*boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


ONE, TWO = mask_of((4, 20, 6, 30)), mask_of((4, 20, 6, 30), (30, 44, 40, 60))
SPECK = mask_of((0, 3, 0, 5))


def track(masks: dict[int, NDArray[np.bool_]], object_id: str = "obj1", label: str = "object") -> Track:
    scores = {frame: 0.5 + frame / 100 for frame in masks}
    return Track(object_id, label, "the box", {frame: to_coco(mask) for frame, mask in masks.items()}, scores)


def results_of(config: LabelConfig, *tracks: Track, **options: Any) -> list[dict[str, Any]]:
    return tracks_to_results(tracks, config.mask_control(), Canvas(WIDTH, HEIGHT), RegionOptions(**options))


def test_brush_region_is_as_the_editor_wants_it() -> None:
    config = parse_config(shipped("brush"))
    (region,) = results_of(config, track({4: TWO}))
    rle = region["value"].pop("rle")
    assert region == {
        "id": "obj1-f00004",
        "from_name": "mask",
        "to_name": "frames",
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "item_index": 4,
        "score": 0.54,
        "meta": {"text": ["the box"]},
        "value": {"format": "rle", "brushlabels": ["object"]},
    }
    assert np.array_equal(decode_brush(rle, HEIGHT, WIDTH), TWO)


def test_polygon_regions_have_unique_ids_and_percent_coordinates() -> None:
    config = parse_config(shipped("polygon"))
    results = results_of(config, track({4: TWO}))
    assert [region["id"] for region in results] == ["obj1-f00004", "obj1-f00004-2"]
    assert {region["type"] for region in results} == {"polygonlabels"}
    assert all(
        region["value"]["closed"] and region["value"]["polygonlabels"] == ["object"] for region in results
    )
    rings = [np.array(region["value"]["points"]) / 100 * [WIDTH, HEIGHT] for region in results]
    drawn = polygons_to_mask(rings, HEIGHT, WIDTH)
    assert (drawn & TWO).sum() / (drawn | TWO).sum() > 0.97


@pytest.mark.parametrize("kind", ["brush", "polygon"])
def test_regions_are_valid_here_and_by_the_sdk(kind: str) -> None:
    config = parse_config(shipped(kind))
    tracks = [track({0: ONE, 3: TWO}), track({3: ONE}, "obj2")]
    results = results_of(config, *tracks)
    validate_results(results, config, frame_count=4)
    prediction = to_prediction(results, "svac-12345678")
    assert LabelInterface(shipped(kind)).validate_prediction(prediction, return_errors=True) == []
    assert json.loads(json.dumps(prediction)) == prediction


def test_shipped_configs_are_valid_by_the_sdk() -> None:
    for path in CONFIGS.iterdir():
        LabelInterface(path.read_text()).validate()


def test_pair_of_brush_and_labels_makes_two_results_with_one_id() -> None:
    config = parse_config(
        '<View><Image name="frames" valueList="$frames"/><Brush name="b" toName="frames"/>'
        '<Labels name="l" toName="frames"><Label value="object"/></Labels></View>'
    )
    results = results_of(config, track({0: ONE}))
    assert [(r["id"], r["from_name"], r["type"]) for r in results] == [
        ("obj1-f00000", "b", "brush"),
        ("obj1-f00000", "l", "labels"),
    ]
    assert results[1]["value"]["labels"] == ["object"]
    validate_results(results, config)


@pytest.mark.parametrize(
    ("width", "height", "corners"),
    [
        (86, 63, [[22, 62], [38, 59], [1, 28]]),
        (83, 70, [[1, 39], [8, 4], [57, 58]]),
        (56, 80, [[1, 53], [40, 36], [20, 20]]),
    ],
)
def test_digits_that_are_sent_do_not_lower_the_floor(
    width: int, height: int, corners: list[list[int]]
) -> None:
    """Slanting edges run exactly through pixel centres; rounded to four digits of percent they may miss some."""
    mask = cv2.fillPoly(np.zeros((height, width), np.uint8), [np.array(corners, np.int32)], 1) > 0
    config = parse_config(shipped("polygon"))
    one = Track("obj1", "object", "the triangle", {0: to_coco(mask)}, {0: 0.5})
    results = tracks_to_results([one], config.mask_control(), Canvas(width, height))
    rings = [np.array(region["value"]["points"]) / 100 * [width, height] for region in results]
    assert iou(polygons_to_mask(rings, height, width), mask) >= 0.98


def test_order_is_by_frame_then_track() -> None:
    config = parse_config(shipped("brush"))
    results = results_of(config, track({5: ONE, 1: ONE}), track({1: ONE}, "obj2"))
    assert [region["id"] for region in results] == ["obj1-f00001", "obj2-f00001", "obj1-f00005"]


def test_chosen_frames_and_small_masks() -> None:
    config = parse_config(shipped("brush"))
    masks = {0: ONE, 1: ONE, 2: SPECK, 3: ONE, 4: ONE, 6: np.zeros_like(ONE)}
    frames = lambda **options: [r["item_index"] for r in results_of(config, track(masks), **options)]  # noqa: E731
    assert frames() == [0, 1, 3, 4]
    assert frames(frames={0, 2, 4, 9}) == [0, 4]
    assert frames(min_area_px=15, frames={0, 2, 4}) == [0, 2, 4]
    assert frames(min_area_px=0, frames={0, 3, 6}) == [0, 3]


def test_prediction_score_is_the_mean() -> None:
    config = parse_config(shipped("brush"))
    prediction = to_prediction(results_of(config, track({0: ONE, 20: ONE})), "v")
    assert prediction["score"] == pytest.approx(0.6)
    assert to_prediction([], "v") == {"result": [], "score": 0.0, "model_version": "v"}


def test_masks_of_another_size_and_unknown_labels_are_errors() -> None:
    config = parse_config(shipped("brush"))
    with pytest.raises(SvacError, match="label 'lorry' of obj1"):
        results_of(config, track({0: ONE}, label="lorry"))
    with pytest.raises(SvacError, match="has 64x48 pixels, but the video 48x64"):
        tracks_to_results([track({0: ONE})], config.mask_control(), Canvas(HEIGHT, WIDTH))


def put(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda region: region.update(changes)


def put_value(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda region: region["value"].update(changes)


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("brush", put(id=""), "no id"),
        ("brush", put(id="obj1-f00000"), "same id"),
        ("brush", put(from_name="kp"), "no mask control 'kp'"),
        ("brush", put(to_name="video"), "'video' .to_name. is not the frames"),
        ("brush", put(type="polygonlabels"), "type is 'polygonlabels', not 'brushlabels'"),
        ("brush", lambda region: region.pop("original_width"), "original_width is missing"),
        ("brush", put(original_height=0), "original_height is missing or not a positive"),
        ("brush", lambda region: region.pop("item_index"), "item_index is missing"),
        ("brush", put(item_index=-1), "item_index is missing or not"),
        ("brush", put(item_index=True), "item_index is missing or not"),
        ("brush", put(item_index=9), "item_index 9 is beyond the last frame 8"),
        ("brush", put(score=1.5), "score"),
        ("brush", put(score=float("nan")), "score"),
        ("brush", put(value=None), "no value"),
        ("brush", put_value(brushlabels=["lorry"]), "'mask' has no label 'lorry', only object"),
        ("brush", put_value(brushlabels=[]), "no brushlabels"),
        ("brush", put_value(format="png"), "format 'rle'"),
        ("brush", put_value(rle=[]), "format 'rle'"),
        ("brush", put_value(rle=[0, 256]), "other than bytes"),
        ("brush", put_value(rle=[0.5]), "other than bytes"),
        ("polygon", put_value(points=[[0, 0], [1, 1]]), "three points"),
        ("polygon", put_value(points=[[0, 0], [1, 1], [1]]), "pair of numbers"),
        ("polygon", put_value(points=[[0, 0], [1, 1], [1, float("nan")]]), "pair of numbers"),
        ("polygon", put_value(points=[[0, 0], [1, 1], [1, 100.1]]), "not within 0..100"),
    ],
)
def test_first_region_that_would_not_be_shown_is_named(kind: str, spoil: Any, message: str) -> None:
    config = parse_config(shipped(kind))
    results = results_of(config, track({0: ONE, 1: ONE, 2: ONE}))
    validate_results(results, config, frame_count=9)
    spoil(results[1])
    with pytest.raises(SvacError, match=rf"Region 1 \('.*'\) would not be shown: .*{message}"):
        validate_results(results, config, frame_count=9)


@pytest.mark.parametrize("results", [None, {}, [1]])
def test_results_of_a_wrong_form_are_errors(results: Any) -> None:
    with pytest.raises(SvacError):
        validate_results(results, parse_config(shipped("brush")))
