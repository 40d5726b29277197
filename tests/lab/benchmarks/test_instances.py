"""The measure of instances: who counts as found, by py-motmetrics' own matches."""

from __future__ import annotations

import numpy as np
import pytest
from lab.benchmarks.instances import Found, kept_ids, like_things, table
from rich.console import Console

from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track


def track(masks: np.ndarray, frames: range) -> Track:
    return Track("x", "o", "", {f: to_coco(masks[f]) for f in frames}, {})


def test_one_id_from_first_to_last_counts_and_a_switch_does_not() -> None:
    truth = np.zeros((2, 20, 40, 60), bool)
    truth[0, :, 5:15, 5:15] = truth[1, :, 5:15, 40:50] = True
    found = Found()
    assert kept_ids(truth, [track(truth[0], range(20)), track(truth[1], range(20))], found) == 2
    assert found.figures()["idf1"] == pytest.approx(1.0)
    # The second one's id changes in the middle.
    parts = [track(truth[0], range(20)), track(truth[1], range(10)), track(truth[1], range(10, 20))]
    assert kept_ids(truth, parts, found) == 1
    assert kept_ids(truth, [track(truth[0], range(19)), track(truth[1], range(13))], found) == 1
    figures = found.figures()
    assert 0.8 < figures["idf1"] < 1
    assert figures["num_switches"] == 1
    found.clips, found.instances, found.kept, found.frames = 3, 6, 4, 60
    Console().print(table(found, "made"))


def test_clips_have_like_things() -> None:
    scene, sentence = like_things(9001, 64, 48, 4)
    assert 2 <= len(scene.masks) <= 4
    assert len({(thing.color, thing.shape) for thing in scene.objects}) == 1
    assert sentence == f"all {scene.objects[0].color} {scene.objects[0].shape}s"
