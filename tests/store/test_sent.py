"""What a task's editor was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.tracks import CocoRle
from svac_backend.store.objects import REPLACED, Replaced, SentStore
from tests.databases import OpenDatabase

MASK = FrameHint(mask=CocoRle(size=[2, 4], counts="0`0"))
CLICKS = FrameHint(clicks=(Click(1.5, 0.0), Click(3.0, 1.0, positive=False)))


@pytest.fixture
def store(open_database: OpenDatabase, tmp_path: Path) -> SentStore:
    return SentStore(open_database(tmp_path))


def region(frame: int, value: Any = "first", from_name: str = "mask") -> dict[str, Any]:
    return {
        "id": f"obj1-f{frame:05d}",
        "from_name": from_name,
        "item_index": frame,
        "value": {"rle": [1], "v": value},
    }


def test_the_latest_answer_takes_the_place_of_regions_of_the_same_id(store: SentStore) -> None:
    assert store.find("38", "7") == {}
    store.record("38", "7", {"obj1": [region(0), region(1), region(1, from_name="labels")]}, {})
    store.record("38", "7", {"obj1": [region(1, "second"), region(2)]}, {})
    (found,) = store.find("38", "7").values()
    assert found.regions == [
        region(0),
        region(1, "second"),
        region(1, "first", from_name="labels"),
        region(2),
    ]
    assert store.find("38", "8") == store.find("39", "7") == {}


def test_prompts_are_those_of_the_latest_answer(store: SentStore) -> None:
    store.record("38", "7", {"obj1": [region(0)]}, {"obj1": {4: MASK}, "obj2": {0: CLICKS}})
    found = store.find("38", "7")
    assert found["obj1"].hints == {4: MASK}
    assert (found["obj2"].hints, found["obj2"].regions) == ({0: CLICKS}, [])
    store.record("38", "7", {"obj1": [region(1)]}, {"obj1": {}})
    found = store.find("38", "7")
    assert found["obj1"].hints == {}
    assert found["obj2"].hints == {0: CLICKS}


def test_what_is_forgotten_and_what_is_not_complete(store: SentStore) -> None:
    store.record("38", "7", {"obj1": [region(0), region(1)]}, {}, complete=False)
    assert not store.find("38", "7")["obj1"].complete
    store.record("38", "7", {"obj1": [region(2)]}, {}, forget={"obj1-f00001", "obj1-f00009"})
    (found,) = store.find("38", "7").values()
    assert found.complete
    assert found.regions == [region(0), region(2)]
    assert found.updated > 0


def test_what_was_replaced_is_kept_until_much_newer_comes(store: SentStore) -> None:
    other = Replaced(5, 9.0, [region(9)])
    store.keep_replaced("38", "8", other)
    states = [Replaced(3, float(n), [region(n)]) for n in range(REPLACED + 1)]
    for one in states:
        store.keep_replaced("38", "7", one)
    assert store.replaced("38", "7") == states[1:]
    assert store.replaced("38", "8") == [other]


def test_answers_are_those_of_the_person_who_asked(store: SentStore) -> None:
    store.record("38", "7", {"obj1": [region(0, "Ann")]}, {"obj1": {0: CLICKS}}, person="1", complete=False)
    store.record("38", "7", {"obj1": [region(0, "Bob"), region(1, "Bob")]}, {"obj1": {1: MASK}}, person="2")
    ann, bob = store.find("38", "7", "1")["obj1"], store.find("38", "7", "2")["obj1"]
    assert (ann.hints, ann.complete, ann.own, ann.others) == ({0: CLICKS}, False, True, False)
    assert (bob.hints, bob.complete, bob.own, bob.others) == ({1: MASK}, True, True, False)
    # What another person was sent is known, as an annotation may be copied, but never in place of one's own.
    assert sorted(one["value"]["v"] for one in ann.regions) == ["Ann", "Bob"]
    assert {one["value"]["v"] for one in bob.regions} == {"Bob"}
    # A third person never asked for it.
    carol = store.find("38", "7", "3")["obj1"]
    assert (carol.hints, carol.complete, carol.own, carol.others) == ({}, True, False, True)


def test_answers_that_are_nobodys_are_everybodys_until_they_ask_themselves(store: SentStore) -> None:
    store.record("38", "7", {"obj1": [region(0), region(1)]}, {"obj1": {0: CLICKS}})
    (found,) = store.find("38", "7", "1").values()
    assert (found.hints, found.own, found.others) == ({0: CLICKS}, False, False)
    store.record("38", "7", {"obj1": [region(1, "own")]}, {"obj1": {1: MASK}}, person="1")
    assert store.find("38", "7", "1")["obj1"].hints == {1: MASK}
    assert store.find("38", "7", "1")["obj1"].regions == [region(0), region(1, "own")]
    assert store.find("38", "7", "2")["obj1"].hints == {0: CLICKS}
