"""What the annotator sees of a prediction, and what is stored when it is submitted as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from svac_backend.masks.rle import decode_brush
from tests.browser.editor import Editor, painted
from tests.browser.tasks import HEIGHT, WIDTH, PrelabelledTask, api, prelabelled_task

LABEL_COLOR = (0x00, 0xA2, 0xFF)
# A brush mask is painted at 60 percent, a polygon filled at 20.
OPACITY = {"brush": 0.6, "polygon": 0.2}
MIDDLE = 6


@pytest.fixture(scope="module", params=["brush", "polygon"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def task(label_studio: Any, kind: str) -> PrelabelledTask:
    return prelabelled_task(label_studio, kind)


def amount_when_drawn(
    editor: Editor, frame: NDArray[np.uint8], mask: NDArray[np.bool_], opacity: float
) -> NDArray[np.float64]:
    """Return how much of the label's colour is seen, [H, W]; masks are drawn a while after their frame."""
    for _ in range(20):
        shot = editor.frame_picture(WIDTH, HEIGHT)
        amount = painted(shot, frame, LABEL_COLOR)
        if np.median(amount[mask]) > opacity / 2:
            break
        editor.page.wait_for_timeout(500)
    return amount


def without_value(region: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in region.items() if name != "value"}


def test_prediction_is_seen_on_its_object_and_submitted_unchanged(
    editor: Editor, label_studio: Any, kind: str, task: PrelabelledTask
) -> None:
    editor.open_task(task.project, task.task)
    assert [r["id"] for r in editor.regions()] == [r["id"] for r in task.results]
    assert [r["item_index"] for r in editor.regions()] == [r["item_index"] for r in task.results]

    editor.go_to_frame(MIDDLE)
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
    stored_by_id = {region["id"]: region for region in stored["result"]}
    assert sorted(stored_by_id) == sorted(region["id"] for region in task.results)
    for region in task.results:
        after = stored_by_id[region["id"]]
        assert without_value(after) == without_value(region)
        if kind == "polygon":
            assert after["value"] == region["value"]
        else:
            assert_same_brush(after["value"], region["value"])


def assert_same_brush(after: dict[str, Any], before: dict[str, Any]) -> None:
    """The editor leaves out a last byte that only fills up; all that carries something must be the same."""
    assert without_rle(after) == without_rle(before)
    assert after["rle"] == before["rle"] or after["rle"] + [0] == before["rle"]
    assert np.array_equal(
        decode_brush(after["rle"], HEIGHT, WIDTH), decode_brush(before["rle"], HEIGHT, WIDTH)
    )


def without_rle(value: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in value.items() if name != "rle"}
