"""Recorded webhooks become corrections, compared with what a small Label Studio says it was sent."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.labelstudio.tasks import Window
from svac_backend.learning.collect import Collector
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.corrections import AnnotationState, Correction
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.objects import video_name
from svac_backend.store.predictions import video_identity
from tests.jobs.conftest import CONFIG, HEIGHT, WIDTH

VERSION = "svac-3fa9c1d2"
FRAMES = 6


def square(left: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:30, left : left + 16] = True
    return mask


def regions(
    masks: dict[int, np.ndarray], name: str = "obj1", window: Window | None = None
) -> list[dict[str, Any]]:
    track = Track(name, "dog", "the dog", {i: to_coco(mask) for i, mask in masks.items()}, {})
    control = parse_config(CONFIG).mask_control()
    return tracks_to_results([track], control, Canvas(WIDTH, HEIGHT, window))


PREDICTED = regions(dict.fromkeys(range(FRAMES), square(4)))
(FIXED,) = regions({2: square(30)})
DRAWN = [*PREDICTED[:2], FIXED, *PREDICTED[3:]]


@dataclass
class Studio:
    """What Label Studio does: keep predictions, send webhooks."""

    server: Any
    events: EventStore
    data: dict[str, Any]

    def send(self, action: str, **body: Any) -> int:
        sent = json.dumps({"action": action, "project": {"id": 38, "label_config": CONFIG}, **body})
        return self.events.add(action, "38", sent.encode())

    def annotate(
        self, result: list[dict[str, Any]], action: str = "ANNOTATION_CREATED", **changes: Any
    ) -> int:
        annotation = {
            "id": 3,
            "task": 7,
            "result": result,
            "parent_prediction": 1,
            "completed_by": 1,
            "created_username": " ann@example.com, 1",
            "updated_at": "2026-01-01T00:00:00Z",
            "was_cancelled": False,
            **changes,
        }
        return self.send(action, annotation=annotation, task={"id": 7, "data": self.data})


@pytest.fixture
def connected(settings: Settings, label_studio: Any) -> Settings:
    return settings.model_copy(
        update={"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    )


@pytest.fixture
def studio(label_studio: Any, database: Database) -> Studio:
    frames = [f"/f/{i}.jpg" for i in range(FRAMES)]
    label_studio.predictions.append({"id": 1, "task": 7, "result": PREDICTED, "model_version": VERSION})
    data = {"video": "/data/clip.mp4", "frames": frames, "prompt": {"dog": "the white dog"}}
    return Studio(label_studio, EventStore(database), data)


@pytest.fixture
def collector(connected: Settings, database: Database) -> Collector:
    return Collector(connected, database)


def only(collector: Collector) -> Correction:
    (found,) = collector.corrections.all()
    return found


def test_an_annotation_becomes_a_correction(
    collector: Collector, studio: Studio, connected: Settings
) -> None:
    assert not collector.pending()
    event = studio.annotate([*PREDICTED[:2], FIXED, *PREDICTED[3:5]])  # 2 was changed, 5 deleted
    assert collector.pending()
    assert str(collector.collect()) == "1 annotation collected"
    assert not collector.pending()
    found = only(collector)
    assert (found.drawn, found.accepted) == ({2, 5}, set())  # who knows whether the others were looked at?
    assert sorted(found.track.masks) == [2]
    assert np.array_equal(from_coco(found.track.masks[2]), square(30))
    assert (found.expression, found.track.label) == ("the white dog", "dog")
    assert (found.task_id, found.project_id, found.annotation_id) == ("7", "38", "3")
    assert (found.video_url, found.hostname) == ("/data/clip.mp4", connected.label_studio_url)
    assert (found.who, found.when, found.model_version) == ("ann@example.com, 1", 1767225600.0, VERSION)
    assert (found.annotation.width, found.annotation.height, found.annotation.event) == (WIDTH, HEIGHT, event)


def test_masks_that_nobody_looked_at_are_not_learned(collector: Collector, studio: Studio) -> None:
    """ "the elephant" found something on every frame, and the task was submitted as it came."""
    studio.annotate(PREDICTED)
    collector.collect()
    assert collector.corrections.all() == []
    state = collector.corrections.annotation("38", "3")
    assert state is not None
    assert state.state is AnnotationState.EMPTY


def test_ground_truth_is_accepted_whole(collector: Collector, studio: Studio) -> None:
    studio.annotate(DRAWN, ground_truth=True)
    collector.collect()
    assert (only(collector).drawn, only(collector).accepted) == ({2}, {0, 1, 3, 4, 5})
    assert np.array_equal(from_coco(only(collector).track.masks[0]), square(4))


@pytest.mark.parametrize(("projects", "whole"), [("12, 38", True), ("all", True), ("12", False)])
def test_a_project_may_accept_what_is_submitted_untouched(
    connected: Settings, database: Database, studio: Studio, projects: str, whole: bool
) -> None:
    collector = Collector(connected.model_copy(update={"accept_untouched": projects}), database)
    studio.annotate(PREDICTED)
    collector.collect()
    found = collector.corrections.all()
    assert [(one.drawn, one.accepted) for one in found] == ([(set(), set(range(FRAMES)))] if whole else [])


def test_other_objects_on_a_frame_that_was_corrected_were_seen(collector: Collector, studio: Studio) -> None:
    other = regions(dict.fromkeys(range(FRAMES), square(40)), "obj2")
    studio.server.predictions[0]["result"] = [*PREDICTED, *other]
    studio.annotate([*PREDICTED[:2], FIXED, *PREDICTED[3:], *other])
    collector.collect()
    first, second = collector.corrections.all()
    assert (first.drawn, first.accepted) == ({2}, set())
    assert (second.drawn, second.accepted) == (set(), {2})


def test_masks_whose_prediction_is_gone_were_not_drawn(collector: Collector, studio: Studio) -> None:
    """Without what the editor was sent, all that it holds looked like a person's work."""
    studio.server.predictions.clear()
    (mine,) = regions({3: square(30)})
    studio.annotate([*PREDICTED[:3], {**mine, "origin": "prediction-changed"}, *PREDICTED[4:]])
    collector.collect()
    assert (only(collector).drawn, only(collector).accepted) == ({3}, set())
    assert sorted(only(collector).track.masks) == [3]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ('<Label value="object"/>', ""),
        ('<Label value="dog"/>', ""),
        ('<Label value="object" prompt="the dog with a hat"/>', "the dog with a hat"),
    ],
)
def test_what_a_click_began_has_no_sentence_unless_its_label_has(
    collector: Collector, studio: Studio, label: str, words: str
) -> None:
    config = CONFIG.replace('<Label value="dog"/><Label value="cat"/>', label)
    name = parse_config(config).mask_control().labels
    video = video_name(video_identity(collector.settings.label_studio_url, "/data/clip.mp4"))
    collector.objects.claim("38", video, [(next(iter(name)), "")], taken=["obj1"])
    masks = {i: to_coco(square(4)) for i in range(FRAMES)}
    control = parse_config(config).mask_control()
    clicked = tracks_to_results(
        [Track("obj2", next(iter(name)), "", masks, {})], control, Canvas(WIDTH, HEIGHT)
    )
    del studio.data["prompt"]
    collector.sent.record("38", "7", {"obj2": clicked}, {"obj2": {2: FrameHint(clicks=(Click(5.0, 12.0),))}})
    studio.server.predictions.clear()
    annotation = {"id": 3, "task": 7, "result": clicked, "updated_at": "2026-01-01T00:00:00Z"}
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 38, "label_config": config}}
    body |= {"annotation": annotation, "task": {"id": 7, "data": studio.data}}
    studio.events.add("ANNOTATION_CREATED", "38", json.dumps(body).encode())
    collector.collect()
    assert (only(collector).accepted, only(collector).expression) == ({2}, words)
    assert len(collector.corrections.for_training()) == bool(words)


def test_an_update_replaces_and_a_deletion_removes(collector: Collector, studio: Studio) -> None:
    studio.annotate(DRAWN)
    collector.collect()
    studio.annotate([FIXED, *PREDICTED[1:2], *PREDICTED[3:]], "ANNOTATION_UPDATED")
    collector.collect()
    assert only(collector).drawn == {0, 2}
    studio.send("ANNOTATIONS_DELETED", annotations=[{"id": 3}])
    assert str(collector.collect()) == "0 annotations collected, 1 removed"
    assert collector.corrections.all() == []


def test_all_at_once_is_as_one_by_one(collector: Collector, studio: Studio) -> None:
    studio.annotate(DRAWN)
    studio.send("ANNOTATIONS_DELETED", annotations=[{"id": 3}])
    studio.send("TASKS_CREATED", tasks=[{"id": 8}])
    studio.annotate(DRAWN, id=4)
    studio.send("ANNOTATION_CREATED", annotation={"id": 5, "task": 9, "result": []}, task=None)
    collector.collect()
    assert only(collector).annotation_id == "4"


def test_a_prediction_that_came_after_the_annotation_is_not_what_it_was_made_from(
    collector: Collector, studio: Studio
) -> None:
    """A submitted correction that was propagated comes back as a prediction, with masks on frames that had none."""
    studio.server.predictions[0]["created_at"] = "2026-01-01T00:00:00Z"
    later = {**studio.server.predictions[0], "id": 2, "created_at": "2026-01-01T00:00:20Z"}
    frames = [f"/f/{i}.jpg" for i in range(FRAMES + 3)]
    studio.data |= {"frames": frames}
    later["result"] = [*PREDICTED[:2], FIXED, *PREDICTED[3:], *regions(dict.fromkeys(range(6, 9), square(4)))]
    studio.server.predictions.append(later)
    for parent in (1, None):
        studio.annotate(
            [*PREDICTED[:2], FIXED, *PREDICTED[3:]],
            created_at="2026-01-01T00:00:10Z",
            updated_at="2026-01-01T00:00:40Z",
            parent_prediction=parent,
        )
        collector.collect()
        assert (only(collector).drawn, only(collector).accepted) == ({2}, set())


def test_of_a_bulk_only_what_a_person_drew_is_learned_from(collector: Collector, studio: Studio) -> None:
    """Label Studio turns the predictions of all tasks into annotations at a click."""
    both = {"task": 7, "parent_prediction": 1, "updated_at": "2026-01-01T00:00:00Z"}
    annotations = [
        {"id": 3, "result": PREDICTED, **both},
        {"id": 4, "result": [*PREDICTED[:2], FIXED, *PREDICTED[3:]], **both},
    ]
    studio.send("ANNOTATIONS_CREATED", annotation=annotations, task=[{"id": 7, "data": studio.data}])
    collector.collect()
    assert (only(collector).annotation_id, only(collector).drawn) == ("4", {2})
    studio.annotate([FIXED, *PREDICTED[1:]], "ANNOTATION_UPDATED")  # now a person has worked on it
    collector.collect()
    assert {one.annotation_id for one in collector.corrections.all()} == {"3", "4"}


def test_skipped_and_empty_annotations_are_not_learned_from(collector: Collector, studio: Studio) -> None:
    studio.annotate(DRAWN)
    collector.collect()
    studio.annotate(DRAWN, "ANNOTATION_UPDATED", was_cancelled=True)
    studio.annotate([], id=4, parent_prediction=None)
    collector.collect()
    assert collector.corrections.all() == []
    states = [collector.corrections.annotation("38", number).state for number in ("3", "4")]  # type: ignore[union-attr]
    assert states == [AnnotationState.SKIPPED, AnnotationState.EMPTY]


def test_what_a_person_drew_without_a_prediction(collector: Collector, studio: Studio) -> None:
    studio.server.predictions.clear()
    (region,) = regions({4: square(30)})
    studio.annotate([{**region, "id": "aB3xY", "origin": "manual"}], parent_prediction=None)
    collector.collect()
    found = only(collector)
    assert (found.drawn, found.accepted, found.model_version) == ({4}, set(), "")
    assert found.expression == "the white dog"


def test_windows_speak_of_the_frames_of_the_whole_video(collector: Collector, studio: Studio) -> None:
    window = Window(100, 3, 2)
    sent = regions({100: square(4), 102: square(4), 104: square(4)}, window=window)
    assert [region["item_index"] for region in sent] == [0, 1, 2]
    (fixed,) = regions({102: square(30)}, window=window)
    studio.server.predictions[:] = [{"id": 1, "task": 7, "result": sent, "model_version": VERSION}]
    studio.data |= {"frames": ["a", "b", "c"], "svac_window": window.to_json()}
    studio.annotate([sent[0], fixed, sent[2]])
    collector.collect()
    found = only(collector)
    assert (found.drawn, found.accepted) == ({102}, set())
    assert sorted(found.track.masks) == [102]


def test_what_cannot_be_looked_at_now_is_tried_again(
    connected: Settings, database: Database, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio may be down when the worker looks; nothing is lost, and the rest goes on."""
    offline = connected.model_copy(
        update={"label_studio_url": "http://127.0.0.1:9", "label_studio_timeout_s": 2}
    )
    studio.annotate(DRAWN)
    studio.send("ANNOTATIONS_DELETED", annotations=[{"id": 99}])
    collector = Collector(offline, database)
    assert collector.collect().put_off == 1
    assert collector.corrections.all() == []
    (waiting,) = collector.inbox.uncollected()
    assert waiting.tries == 1
    assert not collector.pending()

    monkeypatch.setattr(database, "time", lambda: waiting.due + 1 if waiting.due else 0.0)
    online = Collector(connected, database)
    assert online.pending()
    assert online.collect().annotations == 1
    assert online.inbox.uncollected() == []
    assert only(online).annotation_id == "3"


def test_a_late_retry_does_not_undo_a_deletion(
    connected: Settings, database: Database, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = connected.model_copy(
        update={"label_studio_url": "http://127.0.0.1:9", "label_studio_timeout_s": 2}
    )
    studio.annotate(DRAWN)
    Collector(offline, database).collect()
    studio.send("ANNOTATIONS_DELETED", annotations=[{"id": 3}])
    collector = Collector(connected, database)
    collector.collect()
    monkeypatch.setattr(database, "time", lambda: 1e12)
    collector.collect()
    assert collector.corrections.all() == []
    assert collector.inbox.uncollected() == []


def test_a_malformed_annotation_does_not_stop_the_others(collector: Collector, studio: Studio) -> None:
    broken = {**PREDICTED[0], "item_index": "x", "value": {"format": "rle", "rle": [1, 2], "brushlabels": 3}}
    studio.annotate([broken])
    studio.annotate(DRAWN, id=4)
    assert collector.collect().put_off == 1
    assert only(collector).annotation_id == "4"


def damage(database: Database, event: int, body: bytes) -> None:
    """Make the stored body of a webhook something that cannot be read."""
    with database.write() as session:
        session.execute(text("UPDATE events SET body = :b WHERE id = :e"), {"b": body, "e": event})


def test_poisoned_webhooks_are_set_aside_with_their_reason(
    collector: Collector, studio: Studio, database: Database
) -> None:
    """Each of them kept the cursor from passing: the ones after it were never looked at."""
    surrogate = studio.events.add("ANNOTATION_CREATED", "38", rb'{"annotation": {"id": 1, "task": "\ud800"}}')
    task = {"id": "\ud800", "data": studio.data}
    words = studio.send("ANNOTATION_CREATED", annotation={"id": 2, "result": []}, task=task)
    no_zlib, no_json, no_object = (studio.send("ANNOTATION_CREATED") for _ in range(3))
    damage(database, no_zlib, b"\x00not compressed")
    damage(database, no_json, zlib.compress(b'{"annotation": '))
    damage(database, no_object, zlib.compress(b"[1, 2]"))
    studio.annotate(DRAWN)

    assert collector.collect().annotations == 1
    assert only(collector).annotation_id == "3"
    assert not collector.pending()
    aside = {one.event: one.error for one in collector.inbox.uncollected()}
    assert aside.keys() == {words, no_zlib, no_json, no_object}
    assert aside[words] == r"'\ud800' is not the id of a task."
    assert all("cannot be read" in aside[event] for event in (no_zlib, no_json, no_object))
    assert surrogate not in aside  # it names no task: there is nothing in it to learn from


def test_one_annotation_of_a_bulk_does_not_stop_the_others(collector: Collector, studio: Studio) -> None:
    changed = [*PREDICTED[:2], FIXED, *PREDICTED[3:]]
    broken = {**PREDICTED[0], "item_index": "x", "value": {"format": "rle", "rle": [1, 2], "brushlabels": 3}}
    annotations = [{"id": 3, "task": 7, "result": [broken]}, {"id": 4, "task": 7, "result": changed}]
    event = studio.send("ANNOTATIONS_CREATED", annotation=annotations, task=[{"id": 7, "data": studio.data}])
    assert collector.collect().put_off == 1
    assert only(collector).annotation_id == "4"
    assert [one.event for one in collector.inbox.uncollected()] == [event]


def test_a_webhook_that_is_gone_is_not_waited_for(
    collector: Collector, studio: Studio, database: Database
) -> None:
    event = studio.annotate(DRAWN)
    collector.inbox.put_off(event, "error", "hint")
    collector.inbox.hurry()
    studio.annotate([], id=4, parent_prediction=None)
    with database.write() as session:
        session.execute(text("DELETE FROM events WHERE id = :e"), {"e": event})
    collector.collect()
    assert not collector.pending()


def test_a_damaged_correction_does_not_hide_the_others(
    collector: Collector, studio: Studio, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    studio.annotate(DRAWN)
    studio.annotate(DRAWN, id=4)
    collector.collect()
    with database.write() as session:
        session.execute(text("UPDATE corrections SET track = x'00' WHERE annotation_id = '3'"))
    assert [one.annotation_id for one in collector.corrections.all()] == ["4"]
    assert [one.annotation_id for one in collector.corrections.for_training()] == ["4"]
    assert "annotation 3 of project 38" in caplog.text


def test_an_earlier_state_that_is_sent_again_is_not_taken(collector: Collector, studio: Studio) -> None:
    """A replayed webhook: Label Studio neither signs nor numbers them."""
    first = [*PREDICTED[:2], FIXED, *PREDICTED[3:]]
    studio.annotate(first, updated_at="2026-01-01T00:00:10Z")
    studio.annotate([FIXED, *PREDICTED[1:2], *PREDICTED[3:]], updated_at="2026-01-01T00:00:20Z")
    collector.collect()
    assert only(collector).drawn == {0, 2}
    studio.annotate(first, updated_at="2026-01-01T00:00:10Z")
    collector.collect()
    assert only(collector).drawn == {0, 2}


@pytest.mark.parametrize(("key", "value"), [("value", 5), ("id", ["a"]), ("from_name", {"a": 1})])
def test_an_annotation_with_what_is_no_region_is_put_off_in_words(
    collector: Collector, studio: Studio, key: str, value: object
) -> None:
    studio.annotate([*PREDICTED, {**PREDICTED[0], key: value}])
    assert collector.collect().put_off == 1
    assert f"its '{key}'" in collector.inbox.uncollected()[0].error


@pytest.mark.parametrize(
    ("action", "key"), [("TASKS_DELETED", "tasks"), ("ANNOTATIONS_DELETED", "annotations")]
)
def test_deletions_of_ids_that_no_database_takes_remove_nothing(
    collector: Collector, studio: Studio, action: str, key: str
) -> None:
    studio.annotate(DRAWN)
    collector.collect()
    known = len(collector.corrections.all())
    studio.send(action, **{key: [{"id": "\ud800" * 40}, {"id": ["\0"]}]})
    assert collector.collect().put_off == 0
    assert known
    assert len(collector.corrections.all()) == known
