"""Predictions as results for a config."""

from __future__ import annotations

import json

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.jobs.rendering import (
    BRUSH_MASKS,
    brush_masks,
    check_frames,
    choose_control,
    config_key,
    merge,
    render,
    rendered,
    task_score,
)
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.tasks import WINDOW_KEY, Window
from svac_backend.masks.flags import COMES_OR_GOES, FADING
from svac_backend.masks.hints import FrameHint
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
    assert choose_control(both, prediction(BRUSH_MASKS).tracks).name == "mask"
    assert choose_control(both, prediction(BRUSH_MASKS + 1).tracks).name == "poly"
    only_brush = cached_config(config(BRUSH))
    assert choose_control(only_brush, prediction(BRUSH_MASKS + 1).tracks).name == "mask"
    other_labels = cached_config(config(BRUSH, POLYGON.replace("dog", "cat")))
    assert choose_control(other_labels, prediction(BRUSH_MASKS + 1).tracks).name == "mask"


def test_masks_are_counted_and_large_ones_sooner_become_polygons() -> None:
    both = cached_config(config(BRUSH, POLYGON))
    (one,) = prediction(BRUSH_MASKS // 2).tracks
    assert choose_control(both, [one, one]).name == "mask"
    assert choose_control(both, [one, one, one]).name == "poly"
    assert choose_control(both, [one], others=BRUSH_MASKS // 2 + 1).name == "poly"
    assert [brush_masks(*size) for size in ((64, 48), (640, 360), (1280, 720), (1920, 1080))] == [
        100,
        100,
        43,
        19,
    ]
    assert brush_masks(8000, 8000) == 1


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


def scored(*scores: float, frames_with_mask: set[int] | None = None) -> Prediction:
    made = prediction(len(scores))
    (track,) = made.tracks
    if frames_with_mask is not None:
        track.masks = {frame: track.masks[frame] for frame in frames_with_mask}
    track.scores = dict(enumerate(scores))
    return made


def test_windows_number_the_frames_of_their_task(settings: Settings) -> None:
    results = render(prediction(10), config(BRUSH), settings, window=Window(4, 2, 3))
    assert [(region["id"], region["item_index"]) for region in results] == [
        ("obj1-f00004", 0),
        ("obj1-f00007", 1),
    ]


def test_polygons_beyond_100_frames_of_the_task() -> None:
    both = cached_config(config(BRUSH, POLYGON))
    tracks = prediction(3 * BRUSH_MASKS).tracks
    assert choose_control(both, tracks, Window(50, BRUSH_MASKS)).name == "mask"
    assert choose_control(both, tracks, Window(50, BRUSH_MASKS + 1)).name == "poly"
    assert choose_control(both, tracks, None, set(range(BRUSH_MASKS))).name == "mask"


def test_a_tasks_frames_are_those_of_its_window(settings: Settings, database: Database) -> None:
    store = PredictionStore(database)
    store.put(prediction(10))
    data = {"frames": ["/0.jpg"] * 4, WINDOW_KEY: Window(6, 4).to_json()}
    found = rendered(store, "k", config(BRUSH), settings, data)
    assert found is not None
    assert [region["item_index"] for region in json.loads(found[0])] == [0, 1, 2, 3]
    assert store.rendering("k", config_key(config(BRUSH), settings, Window(6, 4))) == found[0]
    with pytest.raises(SvacError, match="10 frames under 'frames', but its 'svac_window' says 4"):
        check_frames({**data, "frames": ["/0.jpg"] * 10}, config(BRUSH), 10)
    with pytest.raises(SvacError, match="frames up to 9, but its video has 9"):
        check_frames(data, config(BRUSH), 9)


def test_a_task_is_scored_by_the_worst_stretch_it_shows(settings: Settings, database: Database) -> None:
    store = PredictionStore(database)
    store.put(scored(*[0.9] * 30, *[0.3] * 10, *[0.9] * 30))
    scores = [
        rendered(store, "k", config(BRUSH), settings, {WINDOW_KEY: window.to_json()} if window else {})
        for window in (None, Window(0, 20), Window(30, 10), Window(25, 10), None)
    ]
    assert [round(found[1], 3) for found in scores if found] == [0.3, 0.9, 0.3, 0.6, 0.3]
    absent = scored(*[0.9] * 5, *[0.45] * 15, frames_with_mask=set(range(5)))
    # Its going, in the middle of the picture, is a jump, whose doubt fades.
    left = [0.55 * (1 - COMES_OR_GOES * FADING**i) for i in range(10)]
    assert task_score(absent.tracks, 20) == pytest.approx(sum(left) / 10)
    assert task_score(scored(0.1, 0.1, frames_with_mask=set()).tracks, 2) == 0.0


def test_only_key_frames_and_frames_below_a_score(settings: Settings) -> None:
    made = scored(0.9, 0.9, 0.3, 0.9, 0.9, 0.2, 0.9, frames_with_mask={1, 2, 3, 4, 5, 6})
    shown = lambda window=None, **options: [  # noqa: E731
        region["id"][-1]
        for region in render(made, config(BRUSH), settings.model_copy(update=options), window=window)
    ]
    assert shown() == list("123456")
    assert shown(send_every=3) == list("136")  # 1 is the first with a mask
    assert shown(send_below_score=0.5) == list("1235")  # it comes in the middle of the picture on frame 1
    assert shown(send_below_score=0.5, send_every=3) == list("12356")
    assert shown(Window(2, 5, 2), send_every=2) == list("26")
    keys = {
        config_key(config(BRUSH), settings.model_copy(update=options), window)
        for options in ({}, {"send_every": 2}, {"send_below_score": 0.5})
        for window in (None, Window(0, 2), Window(0, 2, 2))
    }
    assert len(keys) == 9


VIDEO = '<Video name="v" value="$video" framerate="{}"/><VideoRectangle name="b" toName="v" svac="boxes"/>'
VIDEO += '<Labels name="bl" toName="v"><Label value="dog"/></Labels>'


def test_an_overview_of_boxes_where_the_config_asks_for_it(settings: Settings) -> None:
    *masks, boxes = render(prediction(4), config(BRUSH, VIDEO.format("$fps")), settings, window=Window(2, 2))
    assert [region["type"] for region in masks] == ["brushlabels"] * 2
    assert (boxes["id"], boxes["type"]) == ("obj1-boxes", "videorectangle")
    assert [keyframe["frame"] for keyframe in boxes["value"]["sequence"]] == [1, 4]
    assert len(render(prediction(4), config(BRUSH, VIDEO.format("25")), settings)) == 5
    for wrong in ("30", "", "$"):  # "" is 24 in the editor
        assert len(render(prediction(4), config(BRUSH, VIDEO.format(wrong)), settings)) == 4


def test_merging_shows_masks_as_they_were_sent(settings: Settings) -> None:
    """A track that grew beyond 100 frames does not turn an annotation of brush masks into polygons."""
    xml = config(BRUSH, POLYGON)
    sent = render(prediction(BRUSH_MASKS), xml, settings)
    made = prediction(BRUSH_MASKS + 1)
    merged = merge(made, xml, settings, sent, {}, sent=sent)
    assert {region["from_name"] for region in merged} == {"mask"}
    assert len(merged) == BRUSH_MASKS + 1
    assert {region["from_name"] for region in render(made, xml, settings)} == {"poly"}


def test_merging_keeps_what_was_corrected(settings: Settings) -> None:
    sent = render(prediction(4), config(BRUSH), settings)
    drawn = {**sent[1], "id": "aB3dE_9-xY", "score": 0.125}
    now = [sent[0], drawn, *sent[2:]]
    rle = prediction(1).tracks[0].masks[0]
    merged = merge(
        prediction(6), config(BRUSH), settings, now, {"obj1": {1: FrameHint(mask=rle)}}, window=Window(0, 5)
    )
    assert [region["id"] for region in merged] == [
        "obj1-f00000",
        "aB3dE_9-xY",
        "obj1-f00002",
        "obj1-f00003",
        "obj1-f00004",
    ]
    assert merged[1] == drawn
