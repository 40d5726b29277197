"""Fine-tuning runs in the database."""

from __future__ import annotations

from pathlib import Path

from svac_backend.store.versions import Training, TrainingStore
from tests.databases import OpenDatabase


def test_a_run_that_goes_on_stays_as_it_began(open_database: OpenDatabase, tmp_path: Path) -> None:
    store = TrainingStore(open_database(tmp_path))
    assert store.get("a") is None
    assert store.last_event("svac-1") == 0
    first = store.begin(Training("a", "svac-1", "", event=5, corrections=16))
    assert first.created > 0
    assert store.begin(Training("a", "svac-1", "", event=9, corrections=17)) == first == store.get("a")
    store.begin(Training("b", "svac-1", "0123abcd", event=8, corrections=17))
    store.begin(Training("c", "svac-2", "", event=20, corrections=17))
    assert store.last_event("svac-1") == 8
