"""What Label Studio told: recorded webhooks, and each /setup."""

from __future__ import annotations

import json
from pathlib import Path

from svac_backend.store.events import ConnectionStore, EventStore
from tests.databases import OpenDatabase


def test_events_come_back_in_order(open_database: OpenDatabase, tmp_path: Path) -> None:
    store = EventStore(open_database(tmp_path))
    body = {"action": "ANNOTATION_CREATED", "annotation": {"result": [{"value": {"rle": list(range(500))}}]}}
    first = store.add("ANNOTATION_CREATED", "38", json.dumps(body).encode())
    second = store.add("ANNOTATIONS_DELETED", "38", b'{"annotations": [{"id": 13}]}')
    third = store.add("ANNOTATION_CREATED", "", b"{}")
    assert first < second < third
    events = store.find()
    assert [event.id for event in events] == [first, second, third]
    assert events[0].body == body
    assert events[0].received > 0
    assert [event.id for event in store.find(after=first)] == [second, third]
    assert [event.id for event in store.find(action="ANNOTATION_CREATED")] == [first, third]
    assert [event.id for event in store.find(limit=1)] == [first]
    assert store.counts() == {"ANNOTATION_CREATED": 2, "ANNOTATIONS_DELETED": 1}


def test_the_latest_setup_of_a_project_counts(open_database: OpenDatabase, tmp_path: Path) -> None:
    store = ConnectionStore(open_database(tmp_path))
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


def test_the_token_is_not_in_the_text_of_a_connection(open_database: OpenDatabase, tmp_path: Path) -> None:
    store = ConnectionStore(open_database(tmp_path))
    store.put("38", "http://h", "very-secret", "<View/>")
    assert "very-secret" not in repr(store.get("38"))
