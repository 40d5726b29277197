"""What the editor is sent so that it shows a prediction."""

from __future__ import annotations

from typing import Any

import numpy as np

from svac_backend.editor.answer import MOST_WORK, Change, EditorState, change
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.sent import of_generation
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction
from tests.server.bodies import MOVED, SQUARE

BOTH = parse_config("""<View><Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="dog"/></BrushLabels>
  <PolygonLabels name="poly" toName="frames"><Label value="dog"/></PolygonLabels></View>""")
POLYGON = BOTH.mask_control("polygon")
SETTINGS = Settings(_env_file=None, min_area_px=1)


def two_parts() -> CocoRle:
    mask = np.zeros((24, 32), np.bool_)
    mask[2:10, 2:10] = mask[12:22, 18:30] = True
    return to_coco(mask)


def prediction(masks: dict[int, CocoRle], object_id: str = "obj1", frames: int = 4) -> Prediction:
    track = Track(object_id, "dog", "the dog", masks, dict.fromkeys(range(frames), 0.5))
    return Prediction("k", "v", "38", "7", [track], 32, 24, 25.0, frames, 0.5)


def polygons(masks: dict[int, CocoRle]) -> list[dict[str, Any]]:
    return tracks_to_results(
        [Track("obj1", "dog", "", masks, {})], POLYGON, Canvas(32, 24), RegionOptions(min_area_px=1)
    )


def send(made: Prediction, shown: list[dict[str, Any]], **options: Any) -> Change:
    settings = options.pop("settings", SETTINGS)
    before, kept = options.pop("before", shown), options.pop("kept", {})
    editor = EditorState(shown, before, kept, window=options.pop("window", None))
    return change(made, ("obj1",), editor, BOTH, settings, **options)


def ids(regions: list[dict[str, Any]]) -> list[str]:
    return [region["id"] for region in regions]


def test_a_mask_keeps_its_kind_and_all_parts_of_the_old_one_go() -> None:
    shown = polygons({0: two_parts(), 1: SQUARE})
    found = send(prediction({0: MOVED, 2: two_parts()}), shown)
    assert ids(found.removed) == ["obj1-f00000", "obj1-f00000-2", "obj1-f00001"]
    assert ids(found.made["obj1"]) == ["obj1-f00000-1001", "obj1-f00002-1001", "obj1-f00002-1002"]
    assert {region["type"] for region in found.regions} == {"polygonlabels"}


def test_without_regions_the_config_decides_the_kind() -> None:
    found = send(prediction({0: MOVED}), [])
    assert (ids(found.regions), found.regions[0]["type"]) == (["obj1-f00000"], "brushlabels")


def test_other_objects_and_what_persons_made_are_left_alone() -> None:
    shown = polygons(dict.fromkeys(range(4), SQUARE))
    other = [{**region, "id": region["id"].replace("obj1", "obj2")} for region in shown]
    kept = {"obj1": {2: FrameHint(mask=SQUARE), 3: FrameHint(box=(0.0, 0.0, 9.0, 9.0))}}
    found = send(prediction(dict.fromkeys(range(4), MOVED)), [*shown, *other], kept=kept)
    assert {region["item_index"] for region in found.regions} == {0, 1, 3}
    assert all(region["id"].startswith("obj1") for region in found.regions)


def test_ids_that_were_ever_sent_are_not_sent_again() -> None:
    shown = polygons({0: SQUARE})
    before = [*shown, *of_generation(shown, 4), *of_generation(shown, 1)]
    found = send(prediction({0: MOVED}), shown, before=before)
    assert ids(found.regions) == ["obj1-f00000", "obj1-f00000-5001"]
    assert found.outdated == {"obj1-f00000", "obj1-f00000-1001"}


def test_only_what_was_predicted_is_replaced() -> None:
    shown = polygons(dict.fromkeys(range(4), SQUARE))
    found = send(prediction(dict.fromkeys(range(4), MOVED)), shown, frames=range(1, 3))
    assert {region["item_index"] for region in found.regions} == {1, 2}
    window = Window(2, 2)
    (only,) = send(prediction({1: MOVED, 3: MOVED}), [], window=window).regions
    assert (only["id"], only["item_index"]) == ("obj1-f00003", 1)


def test_what_would_freeze_the_page_is_counted_and_comes_with_the_next_answers() -> None:
    frames = range(200)
    shown = polygons(dict.fromkeys(frames, SQUARE))
    made = prediction(dict.fromkeys(frames, MOVED), frames=len(frames))
    left: list[int] = []
    while not left or left[-1]:
        found = send(made, shown)
        assert 0 < len(found.removed) * (len(shown) + len(found.made["obj1"])) <= MOST_WORK
        gone = set(ids(found.removed))
        shown = [region for region in shown if region["id"] not in gone] + found.made["obj1"]
        left.append(found.left)
        assert found.left == sum(region["id"].count("-") == 1 for region in shown)
    assert len(left) > 2


def test_settings_that_send_fewer_frames_hold_for_new_objects_but_not_for_what_is_shown() -> None:
    few = SETTINGS.model_copy(update={"send_every": 3})
    everywhere = prediction(dict.fromkeys(range(4), MOVED))
    assert ids(send(everywhere, [], settings=few).regions) == ["obj1-f00000", "obj1-f00003"]
    found = send(everywhere, polygons({1: SQUARE}), settings=few)
    assert {region["item_index"] for region in found.made["obj1"]} == {0, 1, 3}


def test_regions_that_were_made_already_are_taken_when_they_fit() -> None:
    ready = [{**region, "score": 0.125} for region in polygons({0: MOVED, 1: MOVED})]
    shown = polygons({0: SQUARE, 1: SQUARE})
    kept = {"obj1": {1: FrameHint(mask=SQUARE)}}
    found = send(prediction({0: MOVED, 1: MOVED}), shown, kept=kept, rendered=ready)
    assert [(region["id"], region["score"]) for region in found.made["obj1"]] == [("obj1-f00000-1001", 0.125)]
    (brush,) = send(prediction({0: MOVED}), [], rendered=ready).regions
    assert brush["type"] == "brushlabels"
