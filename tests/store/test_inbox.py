"""Which webhooks were made use of."""

from __future__ import annotations

from pathlib import Path

import pytest

from svac_backend.store.events import DELAYS_S, Inbox
from tests.databases import OpenDatabase


def test_the_position_only_grows(open_database: OpenDatabase, tmp_path: Path) -> None:
    inbox = Inbox(open_database(tmp_path))
    assert inbox.position() == 0
    for event in (3, 7, 5):
        inbox.advance(event)
    assert inbox.position() == 7
    assert Inbox(open_database(tmp_path), "another").position() == 0


def test_what_fails_is_tried_again_later_each_time_and_then_given_up(
    open_database: OpenDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    inbox = Inbox(open_database(tmp_path))
    monkeypatch.setattr(inbox.database, "time", lambda: now)
    for number, delay in enumerate(DELAYS_S, 1):
        put_off = inbox.put_off(4, f"error {number}", "hint")
        assert (put_off.tries, put_off.due) == (number, now + delay)
        assert inbox.due() == []
        now += delay
        assert inbox.due() == [4]
    assert inbox.put_off(4, "the last", "hint").due is None
    now += 1e6
    assert inbox.due() == []
    (left,) = inbox.uncollected()
    assert (left.event, left.error, left.hint, left.due) == (4, "the last", "hint", None)
    inbox.hurry()
    assert inbox.due() == [4]
    assert inbox.put_off(4, "again", "hint").tries == 1
    inbox.settle(4)
    assert inbox.uncollected() == []
