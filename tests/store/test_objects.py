"""The ids of a video's objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from svac_backend.masks.tracks import ObjectPrompt
from svac_backend.store.objects import ObjectStore, video_name
from tests.databases import OpenDatabase

VIDEO = video_name("http://ls /data/upload/v.mp4")


@pytest.fixture
def store(open_database: OpenDatabase, tmp_path: Path) -> ObjectStore:
    return ObjectStore(open_database(tmp_path))


def ids(found: list[ObjectPrompt]) -> list[str]:
    return [one.object_id for one in found]


def test_the_same_expression_and_label_are_the_same_object(store: ObjectStore) -> None:
    wishes = [("dog", "the dog"), ("cat", "the cat"), ("cat", "the dog")]
    assert ids(store.claim("38", VIDEO, wishes)) == ["obj1", "obj2", "obj3"]
    assert ids(store.claim("38", VIDEO, wishes[::-1])) == ["obj3", "obj2", "obj1"]
    assert store.find("38", VIDEO) == [
        ObjectPrompt("obj1", "dog", "the dog"),
        ObjectPrompt("obj2", "cat", "the cat"),
        ObjectPrompt("obj3", "cat", "the dog"),
    ]


def test_an_object_without_expression_always_is_a_new_one(store: ObjectStore) -> None:
    assert ids(store.claim("38", VIDEO, [("dog", ""), ("dog", "")])) == ["obj1", "obj2"]
    assert ids(store.claim("38", VIDEO, [("dog", "")])) == ["obj3"]


def test_ids_in_use_are_not_given_again(store: ObjectStore) -> None:
    known = [ObjectPrompt("obj1", "dog", "the dog")]
    found = store.claim(
        "38", VIDEO, [("dog", "the dog"), ("cat", "the cat")], known=known, taken=["obj2", "x9"]
    )
    assert ids(found) == ["obj1", "obj3"]


def test_what_the_task_calls_an_object_goes_before_what_was_claimed(store: ObjectStore) -> None:
    store.claim("38", VIDEO, [("dog", "the dog")], taken=["obj1"])
    known = [ObjectPrompt("obj1", "dog", "the dog")]
    assert ids(store.claim("38", VIDEO, [("dog", "the dog")], known=known)) == ["obj1"]


def test_videos_and_projects_are_apart(store: ObjectStore) -> None:
    store.claim("38", VIDEO, [("dog", "the dog")])
    assert ids(store.claim("39", VIDEO, [("cat", "the cat")])) == ["obj1"]
    assert ids(store.claim("38", video_name("other"), [("cat", "the cat")])) == ["obj1"]
