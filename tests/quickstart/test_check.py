from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.quickstart.check import (
    CheckReport,
    another_wording,
    brush_masks,
    check_predictions,
    kind_of,
    read_truth,
    region_key,
    track_ious,
)
from svac_backend.quickstart.content import PromptedVideo
from svac_backend.synthetic.scene import DEMO_SEEDS
from svac_backend.synthetic.video import make_demo

CONFIG = parse_config(
    '<View><Image name="frames" valueList="$frames"/><BrushLabels name="mask" toName="frames">'
    '<Label value="object"/></BrushLabels></View>'
)
WIDTH, HEIGHT = 128, 96


class Predictions:
    """The one call of the client that the check makes."""

    def __init__(self, by_task: dict[int, list[dict[str, Any]]]) -> None:
        self.by_task = by_task

    def list_predictions(self, task: int) -> list[dict[str, Any]]:
        return self.by_task[task]


def square(left: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10 : 10 + size, left : left + size] = True
    return mask


@pytest.fixture
def clip(tmp_path: Path) -> PromptedVideo:
    (entry,) = make_demo(tmp_path, DEMO_SEEDS.start, 1, width=WIDTH, height=HEIGHT, frames=4)
    return PromptedVideo(Path(entry["video"]), tuple(entry["prompts"]), Path(entry["truth"]))


def regions(tracks: list[Track]) -> list[dict[str, Any]]:
    for track in tracks:
        track.label = "object"
    return tracks_to_results(
        tracks, CONFIG.mask_control(), Canvas(WIDTH, HEIGHT), options=RegionOptions(min_area_px=1)
    )


def checked(clip: PromptedVideo, results: list[dict[str, Any]]) -> CheckReport:
    report = CheckReport()
    client = cast(
        LabelStudioClient, Predictions({7: [{"id": 1, "result": []}, {"id": 2, "result": results}]})
    )
    check_predictions(client, [(clip, 7)], report)
    return report


def test_the_truth_itself_passes(clip: PromptedVideo) -> None:
    assert clip.truth is not None
    tracks, frames = read_truth(clip.truth)
    report = checked(clip, regions(tracks))
    assert report.problems == []
    assert (report.tasks, report.frames, report.frames_with_mask) == (1, frames, frames)
    assert report.masks == sum(len(track.masks) for track in tracks)
    assert np.mean(report.ious["color"]) == 1.0
    assert "mean IoU, color expressions: 1.000 (at least 0.65 is asked)" in report.lines()


def test_masks_on_the_wrong_objects_fail(clip: PromptedVideo) -> None:
    assert clip.truth is not None
    tracks, _ = read_truth(clip.truth)
    tracks[0].masks, tracks[1].masks = tracks[1].masks, tracks[0].masks
    report = checked(clip, regions(tracks))
    assert ["IoU below 0.65" in problem for problem in report.problems] == [True]
    assert report.lines()[-1].startswith("PROBLEM: ")


def test_an_empty_prediction_fails(clip: PromptedVideo) -> None:
    report = checked(clip, [])
    assert "has no mask" in report.problems[0]
    assert np.mean(report.ious["color"]) == 0.0


def test_a_task_without_prediction_fails(clip: PromptedVideo) -> None:
    report = CheckReport()
    check_predictions(cast(LabelStudioClient, Predictions({7: []})), [(clip, 7)], report)
    assert ["has no prediction" in problem for problem in report.problems] == [True]


def test_a_users_own_video_needs_masks_only(tmp_path: Path) -> None:
    own = PromptedVideo(tmp_path / "own.mp4", ("the dog",))
    track = Track("obj1", "object", "the dog", {0: to_coco(square(5))}, {0: 0.9})
    report = checked(own, regions([track]))
    assert (report.problems, report.masks, dict(report.ious)) == ([], 1, {})
    assert "frames with a mask: 1 (1 masks)" in report.lines()


def test_iou_counts_frames_that_either_side_has() -> None:
    truth = Track("obj1", "object", "x", {0: to_coco(square(0)), 1: to_coco(square(0))})
    seen = Track("obj1", "object", "x", {0: to_coco(square(10)), 2: to_coco(square(0))}, {0: 1.0, 2: 1.0})
    masks = brush_masks(regions([seen]))
    # Half of each square lies on the other: 200 / 600. Frame 1 is missed, frame 2 invented, frame 3 empty on both.
    assert track_ious(truth, 4, masks, "obj1") == pytest.approx([1 / 3, 0.0, 0.0])


def test_region_ids() -> None:
    assert region_key({"id": "obj12-f00034", "item_index": 34}) == ("obj12", 34)
    assert region_key({"id": "obj1-f00034-2", "item_index": 34}) == ("obj1", 34)
    with pytest.raises(SvacError, match="not one of ours"):
        region_key({"id": "Xy3_k", "item_index": 0})


@pytest.mark.parametrize(
    ("expression", "kind"),
    [("the red object", "color"), ("the red circle", "color_shape")],
)
def test_kind_of_a_demos_prompt(expression: str, kind: str) -> None:
    assert kind_of(expression) == kind


@pytest.mark.parametrize(
    ("prompt", "other"), [("the red object", "the red thing"), ("the red one", "find the red one")]
)
def test_a_live_prompt_is_worded_otherwise(prompt: str, other: str) -> None:
    assert another_wording(prompt) == other
