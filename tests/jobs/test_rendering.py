"""Predictions as results for a config."""

from __future__ import annotations

import json

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.jobs.rendering import (
    BRUSH_FRAMES,
    cached_config,
    check_frames,
    choose_control,
    config_key,
    render,
    rendered,
)
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.predictions import Prediction, PredictionStore

FRAMES = '<Image name="frames" valueList="$frames"/>'
BRUSH = '<BrushLabels name="mask" toName="frames"><Label value="dog"/></BrushLabels>'
POLYGON = '<PolygonLabels name="poly" toName="frames"><Label value="dog"/></PolygonLabels>'


def config(*controls: str) -> str:
    return f"<View>{FRAMES}{''.join(controls)}</View>"


def prediction(frames: int, label: str = "dog") -> Prediction:
    mask = np.zeros((24, 32), np.bool_)
    mask[4:16, 6:20] = True
    rle = to_coco(mask)
    track = Track(
        "obj1", label, "the dog", dict.fromkeys(range(frames), rle), dict.fromkeys(range(frames), 0.5)
    )
    return Prediction("k", "v", "38", "7", [track], 32, 24, 25.0, frames, 0.5)


def test_brush_for_short_polygons_for_long(settings: Settings) -> None:
    both = cached_config(config(BRUSH, POLYGON))
    assert choose_control(both, prediction(BRUSH_FRAMES).tracks).name == "mask"
    assert choose_control(both, prediction(BRUSH_FRAMES + 1).tracks).name == "poly"
    only_brush = cached_config(config(BRUSH))
    assert choose_control(only_brush, prediction(BRUSH_FRAMES + 1).tracks).name == "mask"
    other_labels = cached_config(config(BRUSH, POLYGON.replace("dog", "cat")))
    assert choose_control(other_labels, prediction(BRUSH_FRAMES + 1).tracks).name == "mask"


def test_render_makes_a_region_for_each_frame(settings: Settings) -> None:
    results = render(prediction(3), config(BRUSH), settings)
    assert [region["id"] for region in results] == ["obj1-f00000", "obj1-f00001", "obj1-f00002"]
    assert {region["type"] for region in results} == {"brushlabels"}


def test_a_config_without_the_label_is_an_error(settings: Settings) -> None:
    with pytest.raises(SvacError, match="'cat'"):
        render(prediction(1, label="cat"), config(BRUSH), settings)


def test_rendered_once_for_each_config(settings: Settings, database: Database) -> None:
    store = PredictionStore(database)
    assert rendered(store, "k", config(BRUSH), settings, {}) is None
    store.put(prediction(2))
    first = rendered(store, "k", config(BRUSH), settings, {})
    assert first is not None
    text, score = first
    assert score == 0.5
    assert len(json.loads(text)) == 2
    assert store.rendering("k", config_key(config(BRUSH), settings)) == text
    assert rendered(store, "k", config(BRUSH), settings, {}) == first
    polygons = rendered(store, "k", config(POLYGON), settings, {})
    assert polygons is not None
    assert json.loads(polygons[0])[0]["type"] == "polygonlabels"


def test_the_key_depends_on_what_changes_the_regions(settings: Settings) -> None:
    keys = {
        config_key(config(BRUSH), settings),
        config_key(config(POLYGON), settings),
        config_key(config(BRUSH), settings.model_copy(update={"polygon_tolerance_px": 2.0})),
        config_key(config(BRUSH), settings.model_copy(update={"min_area_px": 1})),
    }
    assert len(keys) == 4


@pytest.mark.parametrize("frames", [["/0.jpg"], ["/0.jpg"] * 4, "/0.jpg"])
def test_frames_that_are_not_those_of_the_video_are_refused(
    database: Database, settings: Settings, frames: object
) -> None:
    store = PredictionStore(database)
    store.put(prediction(3))
    with pytest.raises(SvacError, match="its video has 3") as caught:
        rendered(store, "k", config(BRUSH), settings, {"frames": frames})
    assert "Remove 'frames'" in caught.value.hint


def test_frames_of_the_video_or_none_at_all_pass() -> None:
    for data in ({"frames": ["/0.jpg"] * 3}, {"frames": []}, {}, {"other": ["/0.jpg"]}):
        check_frames(data, config(BRUSH), 3)
    check_frames({"frames": ["/0.jpg"]}, '<View><Video name="v" value="$video"/></View>', 3)
