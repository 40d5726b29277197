"""Which object is meant by clicks and boxes."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.editor.request import pointed_object, refined
from svac_backend.errors import SvacError
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle


def mask(left: int, top: int, right: int, bottom: int) -> CocoRle:
    found = np.zeros((24, 32), np.bool_)
    found[top:bottom, left:right] = True
    return to_coco(found)


MASKS = {
    "big": mask(2, 2, 20, 20),
    "small": mask(4, 4, 8, 8),
    "far": mask(26, 2, 30, 6),
    "gone": mask(0, 0, 0, 0),
}


def clicks(*points: tuple[float, float, bool]) -> FrameHint:
    return FrameHint(clicks=tuple(Click(*point) for point in points))


@pytest.mark.parametrize(
    ("pointed", "wanted"),
    [
        (clicks((15.5, 15.5, True)), "big"),
        (clicks((5.5, 5.5, True)), "small"),
        (clicks((22.5, 22.5, True), (5.5, 5.5, False)), None),
        (clicks((22.5, 22.5, True), (27.0, 3.0, True)), "far"),
        (clicks((24.5, 3.5, False)), "far"),
        (clicks((5.5, 5.5, False)), "big"),
        (clicks((32.0, 24.0, True)), None),  # the corner of the frame
        (FrameHint(box=(3.0, 3.0, 21.0, 21.0)), "big"),
        (FrameHint(box=(3.5, 3.5, 8.5, 8.5)), "small"),
        (FrameHint(box=(0.0, 0.0, 32.0, 24.0)), None),
        (FrameHint(box=(22.0, 10.0, 30.0, 20.0)), None),
        (FrameHint(box=(3.0, 3.0, 9.0, 9.0), clicks=(Click(27.0, 3.0),)), "far"),
    ],
)
def test_which_object(pointed: FrameHint, wanted: str | None) -> None:
    assert pointed_object(pointed, MASKS) == wanted


def test_a_negative_click_needs_an_object() -> None:
    with pytest.raises(SvacError, match="no object on this frame"):
        pointed_object(clicks((5.0, 5.0, False)), {"gone": MASKS["gone"]})


def test_nothing_but_negative_clicks_keeps_the_object_where_it_is() -> None:
    found = refined(clicks((5.5, 5.5, False)), MASKS["big"], None)
    assert found.box == (2.0, 2.0, 20.0, 20.0)
    first, second = found.clicks
    assert first.positive
    assert 8 <= first.x <= 14
    assert 8 <= first.y <= 14
    assert second == Click(5.5, 5.5, positive=False)


def test_clicks_add_to_earlier_ones_and_a_new_box_replaces() -> None:
    earlier = FrameHint(clicks=(Click(1.0, 1.0), Click(2.0, 2.0)), box=(0.0, 0.0, 4.0, 4.0))
    assert refined(clicks((2.0, 2.0, True), (3.0, 3.0, False)), None, earlier) == FrameHint(
        clicks=(Click(1.0, 1.0), Click(2.0, 2.0), Click(3.0, 3.0, positive=False)), box=(0.0, 0.0, 4.0, 4.0)
    )
    assert refined(FrameHint(box=(1.0, 1.0, 2.0, 2.0)), None, earlier).box == (1.0, 1.0, 2.0, 2.0)
    positive = clicks((3.0, 3.0, True))
    assert refined(positive, MASKS["big"], None) == positive


def test_an_earlier_mask_counts_as_what_the_object_is() -> None:
    drawn = FrameHint(mask=CocoRle(size=[24, 32], counts="whatever"))
    assert refined(clicks((5.5, 5.5, False)), MASKS["small"], drawn).box == (4.0, 4.0, 8.0, 8.0)
