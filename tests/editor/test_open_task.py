"""What annotators are answered who click and draw boxes, in windows, and when time is up. The worker is a stand-in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from svac_backend.jobs.payloads import PrelabelPayload, PropagatePayload
from svac_backend.jobs.services import Services
from svac_backend.masks.rle import from_coco
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction
from tests.editor.asking import FIRST, PREDICTED, Region, ask, jobs, regions, with_draft
from tests.jobs.conftest import SmallLabelStudio
from tests.server.bodies import SQUARE, click, command, predict_body, square, task
from tests.server.conftest import Worker

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(settings: Settings, label_studio: SmallLabelStudio) -> Settings:
    return settings.model_copy(
        update={"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    )


def test_a_click_beside_all_objects_is_a_new_one_with_a_free_label(
    client: FlaskClient, backend: Services, worker: Worker
) -> None:
    worker.start()
    found = ask(client, predict_body(PREDICTED, region=click(75, 75)))
    assert [region["id"] for region in found] == ["obj2-f00000", "obj2-f00001"]
    assert found[0]["value"]["brushlabels"] == ["cat"]
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    (one,) = payload.hints["obj2"][0].clicks
    assert (one.x, one.y, one.positive) == (24.0, 18.0, True)


def test_a_click_on_an_object_refines_it_and_remembers_earlier_clicks(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    first = ask(client, predict_body(PREDICTED, region=click(75, 75)))
    body = predict_body(PREDICTED, region=click(60, 50, item=1, label="negative"))
    found = ask(client, with_draft(drafts, body, *first))
    assert {region["id"].split("-")[0] for region in found} == {"obj2"}
    latest = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert set(latest.hints["obj2"]) == {0, 1}
    assert [one.positive for one in latest.hints["obj2"][1].clicks] == [True, False]
    assert len([region for region in found if region.get("dynamic")]) == 2


def test_a_click_on_what_a_person_drew_takes_its_place(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    (drawn,) = regions("x", {0: square(22, 1, 30, 8)}, label="cat")
    drawn["id"] = "iQe_2W1Rpp"
    before = {"id": 5, "updated_at": "T1", "result": [*FIRST, drawn]}
    body = predict_body({**PREDICTED, "drafts": [before]}, region=click(80, 15))
    found = ask(client, with_draft(drafts, body, *FIRST, drawn))
    assert [(region["id"], region.get("dynamic")) for region in found] == [
        ("iQe_2W1Rpp", True),
        ("obj2-f00000", None),
        ("obj2-f00001", None),
    ]


def test_without_a_free_label_the_first_one_is_taken(
    client: FlaskClient, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    shown = [*FIRST, *regions("obj2", {0: square(22, 1, 30, 8)}, label="cat")]
    shown[-1]["value"]["brushlabels"].append({"no": "text"})  # as a script may have written it
    body = {**task(prompt=None), "annotations": [{"id": 1, "result": shown}]}
    asked = with_draft(drafts, predict_body(body, region=click(75, 75)), *shown)
    assert ask(client, asked)[0]["value"]["brushlabels"] == ["dog"]
    body = {**task(prompt=None), "annotations": [{"id": 1, "result": FIRST}]}
    asked = with_draft(drafts, predict_body(body, region=click(75, 75)), *FIRST)
    assert ask(client, asked)[0]["value"]["brushlabels"] == ["cat"]


def test_another_persons_annotation_is_not_what_the_asker_clicks_on(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    """The body holds everybody's annotations: whose editor it is, the draft with the click tells."""
    worker.start()
    theirs = regions("obj2", {0: square(22, 16, 30, 23)}, label="cat")
    body = {**PREDICTED, "annotations": [{"id": 1, "result": theirs}]}
    asked = with_draft(drafts, predict_body(body, region=click(80, 80)), *FIRST)
    assert {region["id"].split("-")[0] for region in ask(client, asked)} == {"obj3"}
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert list(payload.hints) == ["obj3"]


def test_a_box_is_a_new_object(client: FlaskClient, backend: Services, worker: Worker) -> None:
    worker.start()
    drawn = {**click(50, 50), "type": "rectanglelabels"}
    drawn["value"] = {"x": 70, "y": 60, "width": 20, "height": 30, "rectanglelabels": ["cat"]}
    assert ask(client, predict_body(task(), region=drawn))[0]["value"]["brushlabels"] == ["cat"]
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert payload.hints["obj2"][0].box == pytest.approx((22.4, 14.4, 28.8, 21.6))


def test_a_window_shows_its_frames_of_the_whole_video(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    window = {"start": 1, "count": 1}
    body = task(svac_window=window, frames=["/f/1.jpg"])
    found = ask(client, predict_body(body, text="the dog"))
    assert [(region["id"], region["item_index"]) for region in found] == [("obj1-f00001", 0)]
    ask(client, predict_body(body, region=click(75, 75)))
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert (payload.frames, list(payload.hints["obj2"])) == ((1, 2), [1])


def test_windows_of_a_video_speak_of_the_same_objects(client: FlaskClient, worker: Worker) -> None:
    worker.start()
    first, second = (
        task(number, video="/v.mp4", svac_window={"start": start, "count": 1}, frames=["/f"])
        for number, start in ((7, 0), (8, 1))
    )
    assert ask(client, predict_body(first, text="the cat"))[0]["id"] == "obj2-f00000"
    assert ask(client, predict_body(second, text="the white cat"))[0]["id"] == "obj3-f00001"
    assert ask(client, predict_body(second, text="the cat"))[0]["id"] == "obj2-f00001"


def test_when_time_is_up_what_is_ready_is_answered_and_nothing_is_pushed(
    make: Callable[..., Flask],
) -> None:
    app = make(predict_wait_s=2.0)
    backend: Services = app.extensions["svac"]
    answers: list[list[Region]] = []
    body = predict_body(PREDICTED, text="the cat")
    asking = threading.Thread(target=lambda: answers.append(ask(app.test_client(), body)))
    asking.start()
    while not (waiting := jobs(backend, "prelabel")):
        time.sleep(0.01)
    payload = PrelabelPayload.from_json(waiting[0].payload)
    track = Track("obj2", "dog", "the cat", {0: SQUARE}, {0: 0.5})
    version = backend.model_version
    part = Prediction(payload.cache_key(version), version, "38", "7", [track], 32, 24, 25.0, 2, 0.5)
    backend.parts.put(part)
    asking.join()
    assert [region["id"] for region in answers[0]] == ["obj2-f00000", "abc"]  # and what the annotator is told
    # The draft of the one who asked is theirs: nothing is to become a prediction that others start from.
    assert [PrelabelPayload.from_json(job.payload).push for job in jobs(backend, "prelabel")] == [False]
    assert not backend.sent.find("38", "7")["obj2"].complete


def test_frames_that_are_not_ready_keep_their_regions(
    make: Callable[..., Flask], drafts: list[dict[str, Any]]
) -> None:
    app = make(predict_wait_s=1.0)
    backend: Services = app.extensions["svac"]
    body = predict_body(PREDICTED, region=click(30, 40))
    with_draft(drafts, body, *FIRST)
    answers: list[list[Region]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(app.test_client(), body)))
    asking.start()
    while not (waiting := jobs(backend)):
        time.sleep(0.01)
    payload = PropagatePayload.from_json(waiting[0].payload)
    track = Track("obj1", "dog", "the dog", {}, {1: 0.0})  # looked at, and not there
    version = backend.model_version
    backend.parts.put(
        Prediction(payload.cache_key(version), version, "38", "7", [track], 32, 24, 25.0, 2, 0.0)
    )
    asking.join()
    assert [(region["id"], region.get("dynamic")) for region in answers[0]] == [("obj1-f00001", True)]


@pytest.mark.parametrize(
    "region",
    [
        click(75, 75),
        click(75, 75, label="negative"),  # on a frame without an object: an error
    ],
)
def test_a_point_is_taken_away_also_when_nothing_comes_of_it(
    make: Callable[..., Flask], region: Region
) -> None:
    client = make(predict_wait_s=0.1).test_client()
    body = predict_body(task(), region=region)
    answer = client.post("/predict", data=json.dumps(body), content_type="application/json")
    assert json.loads(answer.data)["results"][0]["result"] == []


def test_refined_masks_are_those_of_the_frame(client: FlaskClient, backend: Services) -> None:
    """The click is at (9.6, 9.6): on the square of frame 0, whose mask the job gets to refine."""
    assert from_coco(SQUARE)[9, 9]
    body = predict_body(PREDICTED, region={**click(30, 40), "is_positive": False})
    # No worker, no draft: the job is all that happens.
    client.post("/predict", data=json.dumps(body), content_type="application/json")
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert payload.hints["obj1"][0].box == (6.0, 4.0, 20.0, 16.0)


def test_what_one_person_asked_for_is_nothing_of_anothers(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    """Two people refine the same object of the prediction by a click: each one's counts in their own editor."""
    worker.start()
    for user, x in ((1, 30), (2, 50)):
        body = with_draft(drafts, predict_body(PREDICTED, region=click(x, 40)), *FIRST)
        drafts[0]["created_username"] = f"Somebody somebody@example.com, {user}"
        body["tasks"][0] = {**PREDICTED, "drafts": [{**drafts[0], "updated_at": "T1", "result": FIRST}]}
        ask(client, body)
        (hint,) = PropagatePayload.from_json(jobs(backend)[0].payload).hints["obj1"].values()
        assert [(one.x, one.positive) for one in hint.clicks] == [(x * 32 / 100, True)]
        assert backend.sent.find("38", "7", str(user))["obj1"].hints == {0: hint}
    assert backend.sent.find("38", "7", "3")["obj1"].hints == {}


def test_an_object_that_another_person_asked_for_does_not_take_what_is_drawn(
    client: FlaskClient, backend: Services, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    asked = with_draft(drafts, predict_body(PREDICTED, text="cat: the black cat"), *FIRST)
    drafts[0]["created_username"] = "somebody@example.com, 1"
    assert {region["id"].split("-")[0] for region in ask(client, asked)} == {"obj2"}
    drawn = {**regions("obj2", {0: square(22, 16, 30, 23)}, "cat")[0], "id": "drawn", "origin": "manual"}
    for user, owner in (("2", "obj3"), ("1", "obj2")):
        body = with_draft(drafts, predict_body(PREDICTED, region=command()), *FIRST, drawn)
        drafts[0]["created_username"] = f"somebody@example.com, {user}"
        ask(client, body)
        assert set(PropagatePayload.from_json(jobs(backend)[0].payload).hints) == {owner}
