"""What the annotator sees of a prediction, and what is stored when it is submitted as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.browser.editor import Editor
from tests.browser.looking import OPACITY, amount_when_drawn, assert_same_regions, assert_whole_frame_is_seen
from tests.browser.tasks import PrelabelledTask, api, prelabelled_task

MIDDLE = 6


@pytest.fixture(scope="module", params=["brush", "polygon"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def task(label_studio: Any, kind: str) -> PrelabelledTask:
    return prelabelled_task(label_studio, kind)


def test_prediction_is_seen_on_its_object_and_submitted_unchanged(
    editor: Editor, label_studio: Any, kind: str, task: PrelabelledTask
) -> None:
    editor.open_task(task.project, task.task)
    assert [r["id"] for r in editor.regions()] == [r["id"] for r in task.results]
    assert [r["item_index"] for r in editor.regions()] == [r["item_index"] for r in task.results]

    assert_whole_frame_is_seen(editor)
    editor.go_to_frame(MIDDLE)
    assert_whole_frame_is_seen(editor)
    mask = task.masks[MIDDLE]
    amount = amount_when_drawn(editor, task.frames[MIDDLE], mask, OPACITY[kind])
    editor.screenshot(f"prelabelled_{kind}")
    assert np.median(amount[mask]) == pytest.approx(OPACITY[kind], abs=0.06)
    assert np.percentile(amount[~mask], 95) < 0.05
    seen = amount > OPACITY[kind] / 2
    assert (seen & mask).sum() / (seen | mask).sum() > 0.85

    sent, answer = editor.submit()
    editor.screenshot(f"prelabelled_{kind}_submitted")
    with api(label_studio) as client:
        stored = client.get(f"/api/annotations/{answer['id']}/").raise_for_status().json()
        tasks = client.get(f"/api/tasks/{task.task}/").raise_for_status().json()
    assert stored["result"] == sent["result"]
    assert tasks["total_annotations"] == 1
    assert_same_regions(stored["result"], task.results, kind)
