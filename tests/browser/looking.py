"""Whether a mask is seen where it should be, and whether regions came back as they went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from svac_backend.masks.rle import decode_brush
from tests.browser.editor import Editor

# Of the label `object` in the shipped configs.
LABEL_COLOR = (0x00, 0xA2, 0xFF)
# A brush mask is painted at 60 percent, a polygon filled at 20.
OPACITY = {"brush": 0.6, "polygon": 0.2}


def painted(
    shot: NDArray[np.uint8], frame: NDArray[np.uint8], color: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Return how much of a colour was laid over a frame.

    Args:
        shot: u8 [H, W, 3] RGB, as seen on screen.
        frame: u8 [H, W, 3] RGB, as it is in the file.
        color: RGB of the label.

    Returns:
        f64 [H, W]: 0 where the frame is as it was, 1 where it is wholly of the colour. Pixels of the frame
        that already have nearly this colour give 0.
    """
    before = frame.astype(np.float64)
    way = np.asarray(color, np.float64) - before
    length = (way**2).sum(axis=2)
    moved = ((shot.astype(np.float64) - before) * way).sum(axis=2)
    return np.where(length > 40**2, moved / np.maximum(length, 1), 0.0)


def amount_when_drawn(
    editor: Editor, frame: NDArray[np.uint8], mask: NDArray[np.bool_], opacity: float
) -> NDArray[np.float64]:
    """Return how much of the label's colour is seen, [H, W]; masks are drawn a while after their frame."""
    height, width = mask.shape
    for _ in range(20):
        amount = painted(editor.frame_picture(width, height), frame, LABEL_COLOR)
        if np.median(amount[mask]) > opacity / 2:
            break
        editor.page.wait_for_timeout(500)
    return amount


def assert_whole_frame_is_seen(editor: Editor) -> None:
    """Check that nothing of the frame is cut off: an annotator could not see or correct what lies there."""
    stage = editor.stage()
    assert stage["zoom"] == pytest.approx(1, abs=1e-3)
    assert stage["cut"] < 1


def assert_same_regions(after: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], kind: str) -> None:
    """Check that the regions of an annotation are those of the prediction: ids, frames, labels, geometry."""
    by_id = {region["id"]: region for region in after}
    assert sorted(by_id) == sorted(region["id"] for region in before)
    for region in before:
        stored = by_id[region["id"]]
        assert _without(stored, "value") == _without(region, "value")
        if kind == "polygon":
            assert stored["value"] == region["value"]
        else:
            size = region["original_height"], region["original_width"]
            _assert_same_brush(stored["value"], region["value"], size)


def _assert_same_brush(after: dict[str, Any], before: dict[str, Any], size: tuple[int, int]) -> None:
    """The editor leaves out a last byte that only fills up; all that carries something must be the same."""
    assert _without(after, "rle") == _without(before, "rle")
    assert after["rle"] == before["rle"] or after["rle"] + [0] == before["rle"]
    assert np.array_equal(decode_brush(after["rle"], *size), decode_brush(before["rle"], *size))


def _without(mapping: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}
