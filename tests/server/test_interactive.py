"""What annotators are answered. The worker is a stand-in; drafts are what a test puts on the desk."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from svac_backend.jobs.engine import BATCH, INTERACTIVE, Job, JobState
from svac_backend.jobs.payloads import PrelabelPayload, PropagatePayload
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions import results_to_tracks
from svac_backend.labelstudio.results import tracks_to_results
from svac_backend.masks.prompts import FramePrompt
from svac_backend.masks.rle import area, from_coco
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.server.backend import Backend
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction
from tests.jobs.conftest import SmallLabelStudio, serve
from tests.server.bodies import CONFIG, MOVED, SQUARE, click, command, predict_body, square, task
from tests.server.conftest import Worker

PARSED = parse_config(CONFIG)
Region = dict[str, Any]


@pytest.fixture
def label_studio() -> Iterator[SmallLabelStudio]:
    yield from serve()


@pytest.fixture
def settings(settings: Settings, label_studio: SmallLabelStudio) -> Settings:
    return settings.model_copy(
        update={"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    )


@pytest.fixture
def drafts(label_studio: SmallLabelStudio) -> list[dict[str, Any]]:
    """The task's drafts in Label Studio."""
    return label_studio.drafts


def ask(client: FlaskClient, body: dict[str, Any]) -> list[Region]:
    """Return the regions of the answer."""
    answer = client.post("/predict", data=json.dumps(body), content_type="application/json")
    assert answer.status_code == 200, answer.data
    (item,) = json.loads(answer.data)["results"]
    return [] if item == [] else list(item["result"])


def regions(object_id: str, masks: dict[int, CocoRle], label: str = "dog") -> list[Region]:
    track = Track(object_id, label, "", masks, dict.fromkeys(masks, 0.5))
    return tracks_to_results([track], PARSED.mask_control(), width=32, height=24)


def masks_of(found: list[Region], object_id: str) -> dict[int, CocoRle]:
    tracks = results_to_tracks(found, PARSED, width=32, height=24)
    return next((track.masks for track in tracks if track.object_id == object_id), {})


def with_draft(drafts: list[dict[str, Any]], body: dict[str, Any], *shown: Region) -> dict[str, Any]:
    """Have Label Studio save a draft with some regions and the request itself."""
    drafts[:] = [{"id": 5, "updated_at": "T9", "result": [*shown, *body["params"]["context"]["result"]]}]
    return body


def jobs(backend: Backend, kind: str = "propagate") -> list[Job]:
    return backend.engine.find(kind=kind)


FIRST = regions("obj1", {0: SQUARE, 1: SQUARE})
PREDICTED = {
    **task(),
    "predictions": [{"id": 3, "result": FIRST, "model_version": "standin-1", "score": 0.5}],
}


def test_an_expression_adds_an_object_beside_what_is_there(
    client: FlaskClient, backend: Backend, worker: Worker
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
    client: FlaskClient, backend: Backend, worker: Worker, drafts: list[dict[str, Any]]
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
    client: FlaskClient, backend: Backend, worker: Worker, drafts: list[dict[str, Any]]
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
    assert (job.priority, payload.push, payload.size) == (INTERACTIVE, False, (32, 24))
    assert payload.prompts == {"obj1": {0: FramePrompt(mask=painted)}}
    assert [(one.object_id, one.label, one.expression) for one in payload.objects] == [
        ("obj1", "dog", "the dog")
    ]

    # The next time the first correction still counts, although it came back as it was.
    later = regions("obj1", {1: square(20, 10, 30, 20)})
    later[0]["id"] = "obj1-f00001-1001"
    found = ask(client, with_draft(drafts, predict_body(PREDICTED, region=command()), *edited, *later))
    assert found == []
    latest = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert set(latest.prompts["obj1"]) == {0, 1}


def test_a_frame_that_a_person_cleared_stays_empty(
    client: FlaskClient, backend: Backend, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    three = regions("obj1", {0: SQUARE, 1: SQUARE, 2: SQUARE})
    body = {**task(frames=["/0", "/1", "/2"])}
    body["predictions"] = [{"id": 3, "result": three, "model_version": "v"}]
    edited = regions("obj1", {0: square(0, 0, 9, 9)})
    ask(client, with_draft(drafts, predict_body(body, region=command()), *edited, three[1]))
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    cleared = payload.prompts["obj1"][2].mask
    assert cleared is not None
    assert area(cleared) == 0


def test_deleting_alone_is_nothing_to_propagate(
    client: FlaskClient, backend: Backend, drafts: list[dict[str, Any]]
) -> None:
    assert ask(client, with_draft(drafts, predict_body(PREDICTED, region=command()), FIRST[0])) == []
    assert ask(client, with_draft(drafts, predict_body(PREDICTED, region=command()), *FIRST)) == []
    assert jobs(backend) == []


def test_an_object_drawn_by_hand_is_carried_on(
    client: FlaskClient, backend: Backend, worker: Worker, drafts: list[dict[str, Any]]
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


def test_what_was_corrected_just_before_asking_is_waited_for(
    client: FlaskClient, backend: Backend, worker: Worker, drafts: list[dict[str, Any]]
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
    backend: Backend = app.extensions["svac"]
    drafts[:] = [{"id": 5, "updated_at": "T2", "result": FIRST}]
    assert ask(app.test_client(), predict_body(PREDICTED, region=command())) == []
    (failed,) = backend.engine.find(states=(JobState.FAILED,))
    assert failed.error is not None
    assert "no draft with this request" in failed.error
    assert failed.hint == "Wait until the editor says that the draft is saved, and ask again."


def test_a_click_beside_all_objects_is_a_new_one_with_a_free_label(
    client: FlaskClient, backend: Backend, worker: Worker
) -> None:
    worker.start()
    found = ask(client, predict_body(PREDICTED, region=click(75, 75)))
    assert [region["id"] for region in found] == ["obj2-f00000", "obj2-f00001"]
    assert found[0]["value"]["brushlabels"] == ["cat"]
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    (one,) = payload.prompts["obj2"][0].clicks
    assert (one.x, one.y, one.positive) == (24.0, 18.0, True)


def test_a_click_on_an_object_refines_it_and_remembers_earlier_clicks(
    client: FlaskClient, backend: Backend, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    first = ask(client, predict_body(PREDICTED, region=click(75, 75)))
    body = predict_body(PREDICTED, region=click(60, 50, item=1, label="negative"))
    found = ask(client, with_draft(drafts, body, *first))
    assert {region["id"].split("-")[0] for region in found} == {"obj2"}
    latest = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert set(latest.prompts["obj2"]) == {0, 1}
    assert [one.positive for one in latest.prompts["obj2"][1].clicks] == [True, False]
    assert len([region for region in found if region.get("dynamic")]) == 2


def test_a_box_is_a_new_object(client: FlaskClient, backend: Backend, worker: Worker) -> None:
    worker.start()
    drawn = {**click(50, 50), "type": "rectanglelabels"}
    drawn["value"] = {"x": 70, "y": 60, "width": 20, "height": 30, "rectanglelabels": ["cat"]}
    assert ask(client, predict_body(task(), region=drawn))[0]["value"]["brushlabels"] == ["cat"]
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert payload.prompts["obj2"][0].box == pytest.approx((22.4, 14.4, 28.8, 21.6))


def test_a_window_shows_its_frames_of_the_whole_video(
    client: FlaskClient, backend: Backend, worker: Worker, drafts: list[dict[str, Any]]
) -> None:
    worker.start()
    window = {"start": 1, "count": 1}
    body = task(svac_window=window, frames=["/f/1.jpg"])
    found = ask(client, predict_body(body, text="the dog"))
    assert [(region["id"], region["item_index"]) for region in found] == [("obj1-f00001", 0)]
    ask(client, predict_body(body, region=click(75, 75)))
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert (payload.frames, list(payload.prompts["obj2"])) == ((1, 2), [1])


def test_windows_of_a_video_speak_of_the_same_objects(client: FlaskClient, worker: Worker) -> None:
    worker.start()
    first, second = (
        task(number, video="/v.mp4", svac_window={"start": start, "count": 1}, frames=["/f"])
        for number, start in ((7, 0), (8, 1))
    )
    assert ask(client, predict_body(first, text="the cat"))[0]["id"] == "obj2-f00000"
    assert ask(client, predict_body(second, text="the white cat"))[0]["id"] == "obj3-f00001"
    assert ask(client, predict_body(second, text="the cat"))[0]["id"] == "obj2-f00001"


def test_when_time_is_up_what_is_ready_is_answered_and_the_rest_pushed(make: Callable[..., Flask]) -> None:
    app = make(predict_wait_s=0.4)
    backend: Backend = app.extensions["svac"]
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
    assert [region["id"] for region in answers[0]] == ["obj2-f00000"]
    pushing = PrelabelPayload.from_json(jobs(backend, "prelabel")[0].payload)
    assert (pushing.push, jobs(backend, "prelabel")[0].priority) == (True, BATCH)
    assert pushing.snapshot is not None
    assert backend.sent.snapshot(pushing.snapshot) == FIRST
    assert not backend.sent.find("38", "7")["obj2"].complete


def test_frames_that_are_not_ready_keep_their_regions(
    make: Callable[..., Flask], drafts: list[dict[str, Any]]
) -> None:
    app = make(predict_wait_s=1.0)
    backend: Backend = app.extensions["svac"]
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


def test_refined_masks_are_those_of_the_frame(client: FlaskClient, backend: Backend) -> None:
    """The click is at (9.6, 9.6): on the square of frame 0, whose mask the job gets to refine."""
    assert from_coco(SQUARE)[9, 9]
    body = predict_body(PREDICTED, region={**click(30, 40), "is_positive": False})
    # No worker, no draft: the job is all that happens.
    client.post("/predict", data=json.dumps(body), content_type="application/json")
    payload = PropagatePayload.from_json(jobs(backend)[0].payload)
    assert payload.prompts["obj1"][0].box == (6.0, 4.0, 20.0, 16.0)
