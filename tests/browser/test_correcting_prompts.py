"""Objects that are shown to the model on one frame: by a click, and by a box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from svac_backend.labelstudio.regions.region import by_object
from tests.browser.annotating import Annotator, Asked
from tests.browser.backend import Clip, ConnectedProject, connected_project
from tests.browser.correcting import Region, frame_masks, inside, iou, mask_regions
from tests.browser.tasks import api

# The green cross is clicked, the red triangle is boxed.
CLICKED, BOXED = 2, 0
FRAME = 4


@pytest.fixture(scope="module")
def project(label_studio: Any, backend: str) -> ConnectedProject:
    return connected_project(label_studio, backend, "brush")


def test_a_click_and_a_box_segment_objects_on_all_frames(
    editor: Annotator, label_studio: Any, project: ConnectedProject, clip: Clip
) -> None:
    task = project.add_task(clip)
    editor.open_task(project.project, task)
    editor.auto_annotate()
    editor.go_to_frame(FRAME)

    clicked = editor.point(*inside(clip.truth(CLICKED)[FRAME]))
    editor.screenshot("prompts_1_clicked")
    assert _kinds(clicked) == {"keypointlabels"}
    first = by_object(mask_regions(editor.results()))
    assert len(first) == 1
    ((first_id, regions),) = first.items()
    _assert_follows(regions, clip.truth(CLICKED))

    rows, columns = np.nonzero(clip.truth(BOXED)[FRAME])
    boxed = editor.draw_box(columns.min() - 3, rows.min() - 3, columns.max() + 3, rows.max() + 3)
    editor.screenshot("prompts_2_boxed")
    assert _kinds(boxed) == {"rectanglelabels"}
    both = by_object(mask_regions(editor.results()))
    assert len(both) == 2
    assert both.pop(first_id) == regions
    ((_, others),) = both.items()
    _assert_follows(others, clip.truth(BOXED))

    editor.go_to_frame(FRAME + 3)
    editor.screenshot("prompts_3_another_frame")
    sent, answer = editor.submit()
    with api(label_studio) as client:
        stored = client.get(f"/api/annotations/{answer['id']}/").raise_for_status().json()
    assert stored["result"] == sent["result"]
    # The click and the box themselves leave nothing.
    assert {region["type"] for region in stored["result"]} == {"brushlabels"}
    assert set(by_object(stored["result"])) == {first_id, *both}


def _kinds(asked: Asked) -> set[str]:
    return {str(region["type"]) for region in asked.context}


def _assert_follows(regions: list[Region], truth: Any) -> None:
    """The object is there on the frame that it was shown on, and before and after."""
    masks = frame_masks(regions)
    assert iou(masks[FRAME], truth[FRAME]) > 0.6
    nothing = np.zeros_like(truth[0])
    for side in (range(FRAME), range(FRAME + 1, len(truth))):
        assert np.mean([iou(masks.get(i, nothing), truth[i]) for i in side]) > 0.4
