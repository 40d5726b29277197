"""Prompts that people give on frames."""

from __future__ import annotations

import json

import pytest

from svac_backend.errors import SvacError
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.tracks import CocoRle

MASK = CocoRle(size=[4, 6], counts="54")


@pytest.mark.parametrize(
    "prompt",
    [
        FrameHint(mask=MASK),
        FrameHint(clicks=(Click(1.5, 2.0), Click(3.0, 0.5, positive=False))),
        FrameHint(box=(0.0, 1.0, 5.0, 3.5)),
        FrameHint(clicks=(Click(1.0, 2.0),), box=(0.0, 1.0, 5.0, 3.5)),
    ],
)
def test_prompts_survive_json(prompt: FrameHint) -> None:
    assert FrameHint.from_json(json.loads(json.dumps(prompt.to_json()))) == prompt


def test_a_prompt_says_something_and_one_thing() -> None:
    with pytest.raises(SvacError, match="empty"):
        FrameHint()
    with pytest.raises(SvacError, match="mixes"):
        FrameHint(mask=MASK, clicks=(Click(1, 1),))
    with pytest.raises(SvacError, match="no area"):
        FrameHint(box=(5.0, 1.0, 5.0, 3.0))
