"""Outlines on the video: a tag that only Label Studio Enterprise shows; its results are checked by label-studio-sdk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.outlines import outline_tracks, tracks_to_outlines
from svac_backend.labelstudio.regions.read import results_to_tracks
from svac_backend.labelstudio.regions.rectangles import is_overview, same_boxes
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.rle import area, iou
from svac_backend.masks.tracks import Track
from tests.datasets.made import HEIGHT, WIDTH, rectangle, tracks

XML = (
    '<View><Image name="frames" valueList="$frames"/><BrushLabels name="mask" toName="frames">'
    '<Label value="car"/><Label value="dog"/></BrushLabels><Video name="video" value="$video" framerate="$fps"/>'
    '<VideoVectorLabels name="outline" toName="video" svac="masks"><Label value="car"/><Label value="dog"/>'
    "</VideoVectorLabels></View>"
)
CONFIG = parse_config(XML)
ALONE = parse_config('<View><Video name="video" value="$video"/><VideoVector name="line" toName="video"/>'
                     '<Labels name="kind" toName="video"><Label value="car"/></Labels></View>')  # fmt: skip
FPS, COUNT = 12.5, 6
CANVAS = Canvas(WIDTH, HEIGHT)


def outlines() -> list[dict[str, Any]]:
    assert CONFIG.outlines is not None
    return tracks_to_outlines(tracks(), CONFIG.outlines, CANVAS, fps=FPS, frame_count=COUNT)


def test_masks_with_holes_and_gaps_come_back() -> None:
    made = outlines()
    assert [one["id"] for one in made] == ["obj1-outline", "obj2-outline"], "the third is on no frame"
    for region, track in zip(made, tracks(), strict=False):
        (found,) = outline_tracks([region], CONFIG, CANVAS)
        assert (found.object_id, found.label) == (track.object_id, track.label)
        assert found.masks.keys() == track.masks.keys(), "not on the frame without it"
        assert min(iou(found.masks[i], track.masks[i]) for i in track.masks) > 0.99
    window = Window(2, 2)
    shown = outline_tracks(made[:1], CONFIG, replace(CANVAS, window=window))[0]
    assert list(shown.masks) == [2, 3]


def test_label_studios_own_package_accepts_them() -> None:
    interface = LabelInterface(XML)
    for region in outlines():
        assert interface.validate_prediction({"result": [region]}, return_errors=True) == []
        broken = {**region, "value": {"sequence": [{"frame": 1}], "labels": ["car"]}}
        assert interface.validate_prediction({"result": [broken]}, return_errors=True) != []


def test_what_would_not_be_shown_is_found() -> None:
    made = outlines()
    validate_results(made, CONFIG, video_frames=COUNT)
    for change in ({"labels": ["cat"]}, {"sequence": []}, {"sequence": [{"frame": 99, "vertices": []}]}):
        wrong = {**made[0], "value": {**made[0]["value"], "framesCount": 200, **change}}
        if change == {"sequence": [{"frame": 99, "vertices": []}]}:
            wrong["value"]["sequence"] = [{**made[0]["value"]["sequence"][0], "frame": 99}]
        with pytest.raises(SvacError, match="would not be shown"):
            validate_results([wrong], CONFIG, video_frames=COUNT)


def test_beside_masks_on_frames_they_are_an_overview() -> None:
    made = outlines()
    masks = tracks_to_results(tracks(), CONFIG.mask_control(), CANVAS)
    both = results_to_tracks([*masks, *made], CONFIG, CANVAS)
    assert [(t.object_id, t.masks) for t in both] == [(t.object_id, t.masks) for t in tracks()[:2]]
    assert all(is_overview(one) for one in made)
    moved = {**made[0], "value": {**made[0]["value"], "sequence": made[0]["value"]["sequence"][:-1]}}
    assert same_boxes(made[0], made[0])
    assert not same_boxes(made[0], moved)


def test_what_a_person_drew_on_the_video_alone() -> None:
    def keyframe(frame: int, shift: float, **more: Any) -> dict[str, Any]:
        corners = [(10, 10), (30, 10), (30, 50), (10, 50)]
        return {
            "frame": frame,
            "closed": True,
            "vertices": [{"x": x + shift, "y": y} for x, y in corners],
            **more,
        }

    region = {
        "id": "r4nd0m",
        "from_name": "kind",
        "to_name": "video",
        "type": "videovectorlabels",
        "value": {"videovectorlabels": ["car"], "sequence": [keyframe(1, 0), keyframe(3, 20, enabled=False)]},
    }
    (track,) = results_to_tracks([region], ALONE, CANVAS)
    assert (track.label, sorted(track.masks)) == ("car", [0, 1, 2])
    wanted = Track("x", "car", "", {0: rectangle(5, 6, 19, 13)})
    assert iou(track.masks[0], wanted.masks[0]) > 0.9
    assert area(track.masks[1]) == pytest.approx(area(track.masks[0]), rel=0.1)
    with pytest.raises(SvacError, match="malformed"):
        outline_tracks(
            [{**region, "value": {"sequence": [{"frame": 1, "vertices": [{"x": "?"}]}]}}], ALONE, CANVAS
        )
