"""What annotators are answered who type or propagate. The worker is a stand-in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from svac_backend.editor.answer import next_to_delete
from svac_backend.jobs.engine import INTERACTIVE, JobState
from svac_backend.jobs.payloads import PropagatePayload
from svac_backend.jobs.services import Services
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import area
from svac_backend.settings import Settings
from tests.editor.asking import FIRST, PREDICTED, ask, jobs, masks_of, regions, with_draft
from tests.jobs.conftest import SmallLabelStudio
from tests.server.bodies import MOVED, SQUARE, click, command, predict_body, square, task
from tests.server.conftest import Worker


@pytest.fixture
def settings(settings: Settings, label_studio: SmallLabelStudio) -> Settings:
    return settings.model_copy(
        update={"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    )


def test_an_expression_adds_an_object_beside_what_is_there(
    client: FlaskClient, backend: Services, worker: Worker
) -> None:
    worker.start()
    found = ask(client, predict_body(PREDICTED, text="cat: the black cat"))
    assert [region["id"] for region in found] == ["obj2-f00000", "obj2-f00001"]
    assert {region["value"]["brushlabels"][0] for region in found} == {"cat"}
    assert not any(region.get("dynamic") for region in found)
    again = ask(client, predict_body(PREDICTED, text="cat: the white cat"))
    assert {region["id"].split("-")[0] for region in again} == {"obj3"}


def test_ids_that_other_annotations_use_are_not_taken(client: FlaskClient, worker: Worker) -> None:
    worker.start()
    body = {**task(), "annotations": [{"id": 1, "result": regions("obj2", {0: SQUARE})}]}
    assert ask(client, predict_body(body, text="the cat"))[0]["id"] == "obj3-f00000"


def test_the_same_expression_again_replaces_its_regions(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    first = ask(client, predict_body(PREDICTED, text="the cat"))
    body = with_draft(drafts, predict_body(PREDICTED, text="the cat"), *FIRST, *first)
    second = ask(client, body)
    gone = [region for region in second if region.get("dynamic")]
    assert [region["id"] for region in gone] == [region["id"] for region in first]
    assert [region["id"] for region in second if not region.get("dynamic")] == [
        "obj2-f00000-1001",
        "obj2-f00001-1001",
    ]
    assert len(jobs(backend, "prelabel")) == 1  # from the cache
    sent = backend.sent.find("38", "7")["obj2"]
    assert len(sent.regions) == 4


def test_an_expression_whose_answer_was_not_kept_needs_no_draft(
    client: FlaskClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.start()
    ask(client, predict_body(PREDICTED, text="the cat"))
    monkeypatch.setattr("svac_backend.editor.open_task.UNSAVED_S", 0.0)
    again = ask(client, predict_body(PREDICTED, text="the cat"))
    assert [region["id"] for region in again] == ["obj2-f00000-1001", "obj2-f00001-1001"]


def test_an_expression_again_leaves_a_corrected_frame_alone(
    client: FlaskClient, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    body = predict_body(PREDICTED, text="the dog")
    edited = regions("obj1", {0: square(0, 0, 9, 9)})
    found = ask(client, with_draft(drafts, body, *edited, FIRST[1]))
    assert {region["item_index"] for region in found} == {1}
    assert [(region["id"], region.get("dynamic")) for region in found] == [
        ("obj1-f00001", True),
        ("obj1-f00001-1001", None),
    ]


def test_corrections_propagate_to_the_other_frames(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    painted = square(0, 0, 9, 9)
    edited = regions("obj1", {0: painted})
    found = ask(client, with_draft(drafts, predict_body(PREDICTED, region=command()), *edited, FIRST[1]))
    assert [(region["id"], region["item_index"], region.get("dynamic")) for region in found] == [
        ("obj1-f00001", 1, True),
        ("obj1-f00001-1001", 1, None),
    ]
    assert masks_of(found[1:], "obj1") == {1: MOVED}
    (job,) = jobs(backend)
    payload = PropagatePayload.from_json(job.payload)
    assert (job.priority, payload.event, payload.size) == (INTERACTIVE, None, (32, 24))
    assert payload.hints == {"obj1": {0: FrameHint(mask=painted)}}
    assert [(one.object_id, one.label, one.expression) for one in payload.objects] == [
        ("obj1", "dog", "the dog")
    ]

    # The next time the first correction still counts, although it came back as it was.
    later = regions("obj1", {1: square(20, 10, 30, 20)})
    later[0]["id"] = "obj1-f00001-1001"
    found = ask(client, with_draft(drafts, predict_body(PREDICTED, region=command()), *edited, *later))
    assert found == []
    latest = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert set(latest.hints["obj1"]) == {0, 1}


def test_a_frame_that_a_person_cleared_stays_empty(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    three = regions("obj1", {0: SQUARE, 1: SQUARE, 2: SQUARE})
    body = {**task(frames=["/0", "/1", "/2"])}
    body["predictions"] = [{"id": 3, "result": three, "model_version": "v"}]
    edited = regions("obj1", {0: square(0, 0, 9, 9)})
    ask(client, with_draft(drafts, predict_body(body, region=command()), *edited, three[1]))
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    cleared = payload.hints["obj1"][2].mask
    assert cleared is not None
    assert area(cleared) == 0


def test_deleting_alone_is_nothing_to_propagate(
    client: FlaskClient, backend: Services, drafts: list[dict[str, Any]]
) -> None:
    assert ask(client, with_draft(drafts, predict_body(PREDICTED, region=command()), FIRST[0])) == []
    assert ask(client, with_draft(drafts, predict_body(PREDICTED, region=command()), *FIRST)) == []
    assert jobs(backend) == []


def test_an_object_drawn_by_hand_is_carried_on(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    (drawn,) = regions("x", {0: square(22, 1, 30, 8)}, label="cat")
    drawn["id"] = "iQe_2W1Rpp"
    found = ask(client, with_draft(drafts, predict_body(PREDICTED, region=command()), *FIRST, drawn))
    assert [(region["id"], region["value"]["brushlabels"]) for region in found] == [("obj2-f00001", ["cat"])]


def test_the_command_may_be_typed_and_leaves_the_field(
    client: FlaskClient, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    body = predict_body(PREDICTED, text="propagate")
    edited = regions("obj1", {0: square(0, 0, 9, 9)})
    found = ask(client, with_draft(drafts, body, *edited, FIRST[1]))
    (text,) = [region for region in found if region["type"] == "textarea"]
    assert (text["from_name"], text["value"]) == ("prompt", {"text": []})
    assert len(found) == 3


def test_an_object_is_removed_from_all_frames_by_a_click(
    client: FlaskClient, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    other = regions("obj2", {0: square(22, 1, 30, 8), 1: square(22, 1, 30, 8)}, label="cat")
    (drawn,) = regions("x", {2: square(6, 4, 20, 16)})
    drawn["id"] = "iQe_2W1Rpp"
    body = {**PREDICTED, "data": {**PREDICTED["data"], "frames": ["/0", "/1", "/2"]}}
    asked = predict_body(body, region=click(30, 40, label="remove"))
    found = ask(client, with_draft(drafts, asked, *FIRST, *other, drawn))
    assert [(region["id"], region["dynamic"]) for region in found] == [
        ("obj1-f00000", True),
        ("obj1-f00001", True),
        ("iQe_2W1Rpp", True),
    ]
    # By its sentence, too; the command leaves the field.
    *gone, text = ask(client, with_draft(drafts, predict_body(body, text="remove The Dog"), *FIRST, *other))
    assert [region["id"] for region in gone] == ["obj1-f00000", "obj1-f00001"]
    assert text["value"] == {"text": []}


def test_where_no_object_is_nothing_is_removed(
    client: FlaskClient, backend: Services, drafts: list[dict[str, Any]]
) -> None:
    for asked in (
        predict_body(PREDICTED, region=click(90, 90, label="remove")),
        predict_body(PREDICTED, text="remove x"),
    ):
        ask(client, with_draft(drafts, asked, *FIRST))
        (failed,) = backend.engine.find(states=(JobState.FAILED,), limit=1)
        assert failed.error == "This names no object, so nothing is removed."


def test_many_polygons_are_removed_in_portions() -> None:
    polygons = [{"id": str(n), "type": "polygonlabels"} for n in range(300)]
    assert next_to_delete(polygons, 300) == polygons[:46]
    assert next_to_delete(polygons[:40], 300) == polygons[:40]
    strokes = [{"id": str(n), "type": "brushlabels"} for n in range(300)]
    assert next_to_delete(strokes, 300) == strokes


def test_what_was_corrected_just_before_asking_is_waited_for(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    """The body's draft is older than the last stroke; the one with the request is saved while /predict waits."""
    worker.start()
    stale = regions("obj1", {0: square(0, 0, 9, 9)})
    fresh = [*stale, *regions("obj1", {1: square(20, 10, 30, 20)})]
    body = predict_body(
        {**PREDICTED, "drafts": [{"id": 5, "updated_at": "T1", "result": [*stale, FIRST[1]]}]}
    )
    body["params"]["context"] = {"result": [command()]}
    drafts[:] = [{"id": 5, "updated_at": "T1", "result": [*stale, FIRST[1]]}]
    saved = {"id": 5, "updated_at": "T2", "result": [*fresh, command()]}
    threading.Timer(0.5, lambda: drafts.__setitem__(0, saved)).start()
    begun = time.monotonic()
    assert (
        ask(client, body) == []
    )  # both frames are corrected: nothing to predict, and nothing is overwritten
    assert time.monotonic() - begun >= 0.5


def test_without_the_draft_nothing_is_replaced(
    make: Callable[..., Flask], drafts: list[dict[str, Any]]
) -> None:
    app = make(predict_wait_s=0.3)
    backend: Services = app.extensions["svac"]
    drafts[:] = [{"id": 5, "updated_at": "T2", "result": FIRST}]
    assert ask(app.test_client(), predict_body(PREDICTED, region=command())) == []
    (failed,) = backend.engine.find(states=(JobState.FAILED,))
    assert failed.error is not None
    assert "no draft with this request" in failed.error
    assert failed.hint == "Wait until the editor says that the draft is saved, and ask again."


def test_regions_that_the_editor_lost_long_ago_are_not_removed_again(
    client: FlaskClient, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    """Each removal is a region that the editor makes first."""
    worker.start()
    edited, shown = regions("obj1", {0: square(0, 0, 9, 9)}), [FIRST[1]]
    for generation in range(1, 6):
        body = with_draft(drafts, predict_body(PREDICTED, region=command()), *edited, *shown)
        gone, made = ask(client, body)
        assert (gone["id"], gone["dynamic"]) == (shown[0]["id"], True)
        assert made["id"] == f"obj1-f00001-{generation}001"
        shown = [made]
