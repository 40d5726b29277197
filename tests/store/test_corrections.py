"""Corrections are kept as long as their annotations, whatever the order in which webhooks are looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.objects import video_name
from tests.databases import OpenDatabase

MASK = CocoRle(size=[4, 5], counts="04d0")


@pytest.fixture
def store(open_database: OpenDatabase, tmp_path: Path) -> CorrectionStore:
    return CorrectionStore(open_database(tmp_path))


def annotation(number: int = 1, event: int = 1, **changes: object) -> Annotation:
    about = Annotation(
        project_id="38",
        annotation_id=str(number),
        event=event,
        task_id="7",
        state=AnnotationState.USED,
        hostname="http://ls",
        video_url="/data/clip.mp4",
        video="v" * 64,
        width=5,
        height=4,
        who="ann@example.com",
        saved=float(event),
        model_version="svac-3fa9c1d2",
    )
    return replace(about, **changes)  # type: ignore[arg-type]


def correction(about: Annotation, name: str = "obj1", drawn: frozenset[int] = frozenset({2})) -> Correction:
    track = Track(name, "dog", "the dog", {2: MASK, 3: MASK}, {2: 1.0, 3: 1.0})
    return Correction(about, track, drawn, frozenset({3}))


def names(found: list[Correction]) -> list[tuple[str, str, int]]:
    return [(one.annotation_id, one.track.object_id, one.annotation.event) for one in found]


def test_what_is_stored_comes_back(store: CorrectionStore) -> None:
    one = correction(annotation())
    assert store.put(one.annotation, [one])
    assert store.all() == [one]
    assert Correction.from_json(one.to_json()) == one
    (found,) = store.all()
    assert (found.task_id, found.project_id, found.annotation_id) == ("7", "38", "1")
    assert (found.video_url, found.hostname, found.who, found.when) == (
        "/data/clip.mp4",
        "http://ls",
        "ann@example.com",
        1.0,
    )
    assert (found.expression, found.model_version) == ("the dog", "svac-3fa9c1d2")
    assert store.all(project_id="39") == store.all(video="w" * 64) == []
    assert store.all(project_id="38", video="v" * 64) == [one]


def test_an_update_replaces_all_of_its_annotation(store: CorrectionStore) -> None:
    old = annotation()
    store.put(old, [correction(old), correction(old, "obj2")])
    new = annotation(event=2)
    assert store.put(new, [correction(new, "obj3")])
    assert names(store.all()) == [("1", "obj3", 2)]


def test_an_older_webhook_that_is_looked_at_late_changes_nothing(store: CorrectionStore) -> None:
    new = annotation(event=5)
    store.put(new, [correction(new)])
    old = annotation(event=4)
    assert not store.put(old, [correction(old, "obj9")])
    assert names(store.all()) == [("1", "obj1", 5)]


def test_a_deleted_annotation_leaves_and_does_not_come_back(store: CorrectionStore) -> None:
    first, second = annotation(), annotation(2)
    store.put(first, [correction(first)])
    store.put(second, [correction(second)])
    assert store.delete("38", ["1"], event=3) == 1
    assert names(store.all()) == [("2", "obj1", 1)]
    assert not store.put(annotation(event=2), [correction(annotation(event=2))])
    assert names(store.all()) == [("2", "obj1", 1)]
    # Another project's annotation of that number is another one.
    assert store.delete("39", ["2"], event=4) == 0
    assert len(store.all()) == 1


def test_a_deletion_that_is_looked_at_before_the_creation_counts(store: CorrectionStore) -> None:
    assert store.delete("38", ["1"], event=9) == 0
    assert not store.put(annotation(event=8), [correction(annotation(event=8))])
    assert store.all() == []


def test_a_deletion_without_a_project_is_for_all(store: CorrectionStore) -> None:
    one = annotation()
    store.put(one, [correction(one)])
    assert store.delete("", ["1", "17"], event=9) == 1
    assert store.all() == []


def test_annotations_go_with_their_tasks(store: CorrectionStore) -> None:
    here, there = annotation(), annotation(2, task_id="8")
    store.put(here, [correction(here)])
    store.put(there, [correction(there)])
    assert store.delete_tasks("38", ["7"], event=9) == 1
    assert names(store.all()) == [("2", "obj1", 1)]


def test_one_annotation_of_a_task_is_learned_from(store: CorrectionStore) -> None:
    """The one that an export takes: ground truth, else the one saved last."""
    early, late = annotation(1, event=1), annotation(2, event=2)
    for one in (early, late):
        store.put(one, [correction(one)])
    assert names(store.for_training()) == [("2", "obj1", 2)]
    truth = annotation(1, event=3, ground_truth=True, saved=0.5)
    store.put(truth, [correction(truth)])
    assert names(store.for_training()) == [("1", "obj1", 3)]


def test_objects_without_an_expression_are_not_learned_from(store: CorrectionStore) -> None:
    one = annotation()
    nameless = correction(one)
    nameless.track.expression = " "
    store.put(one, [nameless])
    assert store.for_training() == []


def test_corrected_tasks_are_those_where_something_was_drawn(store: CorrectionStore) -> None:
    first, again = annotation(1, event=1), annotation(2, event=4)
    other = annotation(3, event=5, task_id="8")
    accepted = annotation(4, event=6, task_id="9")
    for one, drawn in ((first, {2}), (again, {2}), (other, {2}), (accepted, set())):
        store.put(one, [correction(one, drawn=frozenset(drawn))])
    assert store.corrected_tasks() == 2
    assert store.corrected_tasks(after=4) == 1
    assert store.corrected_tasks(after=6) == 0


def test_an_annotation_whose_words_are_no_text_is_kept_all_the_same(store: CorrectionStore) -> None:
    odd = "half \ud800 and \0"
    about = Annotation("38", "9", 1, "7", AnnotationState.EMPTY, hostname=odd, video_url=odd, who=odd)
    assert store.put(replace(about, video=video_name(odd)))
    found = store.annotation("38", "9")
    assert found is not None
    assert (found.video_url.startswith("half \\ud800 and"), found.video) == (True, video_name(odd))
