"""The annotator's loop with the brush: a sentence, one frame corrected by hand, propagation, submit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.annotating import Annotator
from tests.browser.backend import Clip, ConnectedProject, connected_project
from tests.browser.correcting import (
    frame_masks,
    inside,
    iou,
    lines,
    mean_iou,
    on_frame,
    region_mask,
    there_and_back,
)
from tests.browser.tasks import api

# The green cross is asked for; then the annotator makes it the black hexagon, on one frame.
ASKED, WANTED = 2, 1
CORRECTED = 10


@pytest.fixture(scope="module")
def project(label_studio: Any, backend: str) -> ConnectedProject:
    return connected_project(label_studio, backend, "brush")


def test_a_frame_corrected_with_the_brush_is_carried_to_the_others(
    editor: Annotator, label_studio: Any, project: ConnectedProject, clip: Clip
) -> None:
    task = project.add_task(clip)
    frames = len(clip.paths)
    editor.open_task(project.project, task)
    editor.auto_annotate()
    editor.screenshot("brush_1_opened")

    editor.type_prompt(clip.prompts[ASKED])
    before = editor.results()
    masks = frame_masks(before)
    assert sorted(masks) == list(range(frames))
    assert mean_iou(masks, clip.truth(ASKED)) > 0.8
    editor.screenshot("brush_2_prompted")

    editor.go_to_frame(CORRECTED)
    editor.screenshot("brush_3_wrong_object")
    selected = editor.select(*inside(masks[CORRECTED]))
    assert [region["id"] for region in on_frame(before, CORRECTED)] == [selected]
    editor.press("e", "]", "]", "]", "]")
    editor.drag(there_and_back(masks[CORRECTED], 12, margin=8))
    editor.screenshot("brush_4_erased")
    editor.press("b")
    for stroke in lines(clip.truth(WANTED)[CORRECTED], 6):
        editor.drag(stroke)
    editor.screenshot("brush_5_repainted")
    edited = editor.results()
    (corrected,) = on_frame(edited, CORRECTED)
    assert corrected["id"] == selected
    assert iou(region_mask(corrected), clip.truth(WANTED)[CORRECTED]) > 0.7

    editor.propagate(5, 5)
    editor.screenshot("brush_6_propagated")
    after = editor.results()
    assert on_frame(after, CORRECTED) == [corrected]
    masks, old = frame_masks(after), frame_masks(edited)
    changed = [i for i in range(frames) if i not in masks or iou(masks[i], old[i]) < 0.9]
    assert changed == [i for i in range(frames) if i != CORRECTED]
    assert mean_iou(masks, clip.truth(WANTED), without=CORRECTED) > 0.5
    editor.go_to_frame(CORRECTED + 6)
    editor.screenshot("brush_7_another_frame")

    sent, answer = editor.submit()
    with api(label_studio) as client:
        stored = client.get(f"/api/annotations/{answer['id']}/").raise_for_status().json()
    editor.screenshot("brush_8_submitted")
    assert stored["result"] == sent["result"]
    assert on_frame(stored["result"], CORRECTED) == [corrected]
    assert {i: m.tobytes() for i, m in frame_masks(stored["result"]).items()} == {
        i: m.tobytes() for i, m in masks.items()
    }
