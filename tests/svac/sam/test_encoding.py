"""How many frames are encoded at a time."""

from __future__ import annotations

import pytest
import torch

from svac_backend.svac.sam.grounding import frames_at_a_time


@pytest.mark.parametrize(("size", "frames"), [(1024, 16), (2048, 4), (8192, 1), (512, 32), (192, 32)])
def test_smaller_pictures_make_longer_windows(size: int, frames: int) -> None:
    assert frames_at_a_time(size, torch.device("cuda")) == frames


@pytest.mark.parametrize(
    ("size", "threads", "frames"), [(1024, 1, 4), (1024, 8, 8), (1024, 64, 16), (4096, 2, 1), (192, 2, 32)]
)
def test_large_pictures_come_a_few_at_a_time_on_a_cpu_and_every_core_has_one(
    size: int, threads: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert frames_at_a_time(size, torch.device("cpu")) == frames
