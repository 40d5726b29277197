"""Memory that runs out: smaller parts, the same masks; and where one frame is too much, an error in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from svac_backend.errors import SvacError
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.svac.model import Svac
from svac_backend.svac.parts import Parts
from svac_backend.svac.sam import grounding
from svac_backend.svac.sam.grounding import frames_at_a_time
from svac_backend.video.reader import ArrayVideo

VIDEO = ArrayVideo(np.random.default_rng(0).integers(0, 255, (8, 32, 48, 3), np.uint8))


def limit(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let memory run out where more than so many frames are encoded at a time; returns how many were tried."""
    tried: list[int] = []
    encode = grounding.encode_frames

    def limited(sam: Any, pixels: torch.Tensor, **options: Any) -> Any:
        tried.append(len(pixels))
        if len(pixels) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(sam, pixels, **options)

    monkeypatch.setattr(grounding, "encode_frames", limited)
    return tried


def test_a_window_that_does_not_fit_is_encoded_in_smaller_ones(
    model: Svac, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [frame.masks for frame in model.segment(VIDEO, ["the red circle"], window=8)]
    tried = limit(monkeypatch, 2)
    found = [frame.masks for frame in model.segment(VIDEO, ["the red circle"], window=8)]
    assert tried == [8, 4, 2, 2, 2, 2]
    assert np.array_equal(np.stack(found), np.stack(expected))
    # What fitted is remembered: the second sweep begins with it.
    tried.clear()
    hints = [{3: FrameHint(clicks=(Click(20, 20),))}]
    assert len({frame for _, frame, _, _ in model.propagate(VIDEO, hints, window=4)}) == 8
    assert tried == [1, 4, 2, 2, 2, 1]


def test_one_frame_that_does_not_fit_says_what_to_do(model: Svac, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 0)
    with pytest.raises(SvacError, match="memory is not enough") as raised:
        list(model.segment(VIDEO, ["the red circle"], window=4))
    assert "SVAC_DEVICE=cpu" in raised.value.hint
    monkeypatch.undo()

    def out(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    # The language model reads all at once: nothing can be made smaller there.
    monkeypatch.setattr(model.mllm, "seg_states", out)
    with pytest.raises(SvacError, match="memory is not enough"):
        list(model.segment(VIDEO, ["the red circle"]))


def test_other_errors_are_not_mistaken_for_it() -> None:
    def fails(part: list[int]) -> None:
        raise RuntimeError(f"{part}")

    with pytest.raises(RuntimeError, match="1, 2"):
        Parts(2).run(fails, [1, 2, 3])


@pytest.mark.parametrize(("gigabytes", "frames"), [(100, 16), (3, 4), (0.1, 1)])
def test_little_free_memory_makes_short_windows(gigabytes: float, frames: int) -> None:
    assert frames_at_a_time(1024, torch.device("cuda"), int(gigabytes * 1e9)) == frames
