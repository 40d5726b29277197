"""The annotator's loop with polygons: a sentence, a vertex dragged on one frame, propagation, submit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.browser.annotating import Annotator
from tests.browser.backend import Clip, ConnectedProject, connected_project
from tests.browser.correcting import frame_masks, inside, iou, mask_regions, mean_iou, on_frame, region_mask
from tests.browser.tasks import api

ASKED = 0
CORRECTED = 10
# How far the vertex is dragged, in pixels of the frame.
DRAGGED = 60.0


@pytest.fixture(scope="module")
def project(label_studio: Any, backend: str) -> ConnectedProject:
    return connected_project(label_studio, backend, "polygon")


def test_a_dragged_vertex_is_carried_to_the_other_frames(
    editor: Annotator, label_studio: Any, project: ConnectedProject, clip: Clip
) -> None:
    task = project.add_task(clip)
    frames = len(clip.paths)
    editor.open_task(project.project, task)
    editor.auto_annotate()
    editor.type_prompt(clip.prompts[ASKED])
    before = mask_regions(editor.results())
    masks = frame_masks(before)
    assert sorted(masks) == list(range(frames))
    assert mean_iou(masks, clip.truth(ASKED)) > 0.8
    editor.screenshot("polygon_1_prompted")

    editor.go_to_frame(CORRECTED)
    selected = editor.select(*inside(masks[CORRECTED]), keys=("Escape",))
    editor.screenshot("polygon_2_selected")
    (region,) = [region for region in on_frame(before, CORRECTED) if region["id"] == selected]
    size = np.array([region["original_width"], region["original_height"]])
    points = np.array(region["value"]["points"]) * size / 100
    # The one that is furthest from the middle of the frame is dragged towards it.
    distances = np.linalg.norm(points - size / 2, axis=1)
    vertex = points[np.argmax(distances)]
    towards = vertex + (size / 2 - vertex) * DRAGGED / distances.max()
    editor.drag([(vertex[0] - 0.5, vertex[1] - 0.5), (towards[0] - 0.5, towards[1] - 0.5)])
    editor.screenshot("polygon_3_dragged")
    edited = mask_regions(editor.results())
    corrected = on_frame(edited, CORRECTED)
    (moved,) = [region for region in corrected if region["id"] == selected]
    assert iou(region_mask(moved), region_mask(region)) < 0.97
    assert [r for r in edited if r not in corrected] == [r for r in before if r["item_index"] != CORRECTED]

    editor.propagate(5, 5)
    editor.screenshot("polygon_4_propagated")
    after = mask_regions(editor.results())
    assert on_frame(after, CORRECTED) == corrected
    others = [region for region in after if region["item_index"] != CORRECTED]
    known = {str(region["value"]["points"]) for region in edited}
    assert {region["item_index"] for region in others} == set(range(frames)) - {CORRECTED}
    assert not [region for region in others if str(region["value"]["points"]) in known]
    assert mean_iou(frame_masks(after), clip.truth(ASKED), without=CORRECTED) > 0.5
    editor.go_to_frame(CORRECTED + 3)
    editor.screenshot("polygon_5_another_frame")

    sent, answer = editor.submit()
    with api(label_studio) as client:
        stored = client.get(f"/api/annotations/{answer['id']}/").raise_for_status().json()
    editor.screenshot("polygon_6_submitted")
    assert stored["result"] == sent["result"]
    assert on_frame(stored["result"], CORRECTED) == corrected
