"""What /setup told."""

from __future__ import annotations

from pathlib import Path

from svac_backend.store.connections import ConnectionStore
from svac_backend.store.database import Database


def test_the_latest_setup_of_a_project_counts(tmp_path: Path) -> None:
    store = ConnectionStore(Database(tmp_path))
    assert store.get("38") is None
    store.put("38", "http://old", "token", "<View/>")
    store.put("39", "http://other", "t", "")
    store.put("38", "http://new", "token2", "<View></View>")
    found = store.get("38")
    assert found is not None
    assert (found.hostname, found.access_token, found.label_config) == (
        "http://new",
        "token2",
        "<View></View>",
    )
    assert [connection.project_id for connection in store.all()] == ["38", "39"]


def test_the_token_is_not_in_the_text_of_a_connection(tmp_path: Path) -> None:
    store = ConnectionStore(Database(tmp_path))
    store.put("38", "http://h", "very-secret", "<View/>")
    assert "very-secret" not in repr(store.get("38"))
