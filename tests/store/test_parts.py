"""Predictions that are still being made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.store.predictions import PartStore, Prediction
from tests.databases import OpenDatabase


def test_the_latest_part_is_found_until_it_is_dropped(open_database: OpenDatabase, tmp_path: Path) -> None:
    store = PartStore(open_database(tmp_path))
    track = Track("obj1", "dog", "the dog", {0: CocoRle(size=[2, 4], counts="0`0")}, {0: 0.5})
    part = Prediction("k", "svac-1", "38", "7", [track], 4, 2, 29.97, 289, 0.5, created=1.0)
    assert store.get("k") is None
    store.put(part)
    assert store.get("k") == part
    more = replace(part, tracks=[replace(track, scores={0: 0.5, 1: 0.25})])
    store.put(more)
    assert store.get("k") == more
    assert store.get("other") is None
    store.drop("k")
    assert store.get("k") is None
