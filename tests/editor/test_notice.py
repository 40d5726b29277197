"""What annotators are told in the editor when a request did not simply work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from svac_backend.jobs.engine import JobState
from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.jobs.services import Services
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction
from tests.editor.asking import FIRST, PREDICTED, Region, ask, jobs, with_draft
from tests.jobs.conftest import SmallLabelStudio
from tests.server.bodies import CONFIG, SQUARE, click, command, predict_body, task
from tests.server.conftest import Worker

NOTES = CONFIG.replace("<Image", '<TextArea name="notes" toName="frames" svac="notes"/><Image')


@pytest.fixture
def settings(settings: Settings, label_studio: SmallLabelStudio) -> Settings:
    return settings.model_copy(
        update={"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    )


def noted(found: list[Region], name: str = "notes") -> list[str]:
    """Return the texts of a field in an answer; that of the notes begin with the mark."""
    (texts,) = [region["value"]["text"] for region in found if region["from_name"] == name]
    return list(texts)


def body(config: str = NOTES, of: dict[str, Any] | None = None, **asked: Any) -> dict[str, Any]:
    return {**predict_body(PREDICTED if of is None else of, **asked), "label_config": config}


def test_a_good_answer_takes_the_notice_away(client: FlaskClient, worker: Worker) -> None:
    worker.start()
    ask(client, body(text="x" * 501))
    found = ask(client, body(text="the cat"))
    assert noted(found) == []
    # Where none stands, nothing is sent: an empty text would be submitted with the annotation.
    other = ask(client, body(of={**PREDICTED, "id": 8}, text="a dog"))
    assert not [region for region in other if region["from_name"] == "notes"]
    shown = {
        "id": "n",
        "from_name": "notes",
        "to_name": "frames",
        "type": "textarea",
        "value": {"text": ["x"]},
    }
    draft = {"id": 5, "updated_at": "T1", "result": [*FIRST, shown]}
    assert noted(ask(client, body(of={**PREDICTED, "id": 9, "drafts": [draft]}, text="a hen"))) == []
    assert [region["id"] for region in found if region["type"] == "brushlabels"] == [
        "obj2-f00000",
        "obj2-f00001",
    ]


def test_without_a_worker_nobody_waits(client: FlaskClient, backend: Services) -> None:
    backend.workers.leave("stand-in")
    for asked in (body(text="the cat"), body(region=click(75, 75)), body(region=command())):
        begun = time.monotonic()
        (said,) = noted(ask(client, asked))
        assert time.monotonic() - begun < 2
        assert said.startswith("\N{WARNING SIGN} No worker is running")
    assert backend.engine.find() == []


def test_without_a_worker_what_is_known_is_answered(
    client: FlaskClient, backend: Services, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svac_backend.editor.open_task.UNSAVED_S", 0.0)
    worker.start()
    ask(client, body(text="the cat"))
    backend.workers.leave("stand-in")
    assert noted(ask(client, body(of={**PREDICTED, "id": 8}, text="the dog"))) != []
    assert len(ask(client, body(of=task(), text="the cat"))) == 2


@pytest.mark.parametrize(("config", "field"), [(NOTES, "notes"), (CONFIG, "prompt")])
def test_nothing_found(make: Callable[..., Flask], config: str, field: str) -> None:
    app = make()
    backend: Services = app.extensions["svac"]
    empty = Worker(backend)
    finish = backend.predictions.put

    def nothing(prediction: Prediction) -> None:
        tracks = [
            Track(one.object_id, one.label, one.expression, {}, {0: 0.1, 1: 0.1}) for one in prediction.tracks
        ]
        finish(Prediction(**{**vars(prediction), "tracks": tracks}))

    backend.predictions.put = nothing  # type: ignore[method-assign]
    empty.start()
    try:
        *kept, said = noted(ask(app.test_client(), body(config, text="the elephant")), field)
    finally:
        empty.stop()
    assert kept == ([] if field == "notes" else ["the elephant"])
    assert said.startswith('\N{WARNING SIGN} Nothing was found: "the elephant". Say it in other words')


@pytest.mark.parametrize(("config", "field"), [(NOTES, "notes"), (CONFIG, "prompt")])
def test_a_refused_prompt(client: FlaskClient, config: str, field: str) -> None:
    *_, said = noted(ask(client, body(config, text="x" * 501)), field)
    assert "has 501 characters, more than 500. Describe the object in one sentence" in said


def test_a_click_is_refused_in_the_notes_alone(client: FlaskClient) -> None:
    wrong = click(75, 75, label="negative")  # there is no object on the frame
    (said,) = noted(ask(client, body(of=task(), region=wrong)))
    assert "there is no object on this frame" in said
    assert ask(client, body(CONFIG, of=task(), region=wrong)) == []


def test_nothing_to_propagate(client: FlaskClient, drafts: list[dict[str, Any]]) -> None:
    found = ask(client, with_draft(drafts, body(region=command()), *FIRST))
    assert "There is nothing to propagate" in noted(found)[0]


def test_a_job_that_failed_says_why(client: FlaskClient, backend: Services) -> None:
    answers: list[list[Region]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(client, body(text="the cat"))))
    asking.start()
    while not (waiting := backend.jobs.claim("model", "stand-in")):
        time.sleep(0.01)
    backend.jobs.finish(waiting, JobState.FAILED, error="The video is gone.", hint="Put it back.")
    asking.join()
    assert noted(answers[0]) == ['\N{WARNING SIGN} "the cat": The video is gone. Put it back.']


def test_what_is_not_ready_is_fetched_by_propagate(
    make: Callable[..., Flask], drafts: list[dict[str, Any]]
) -> None:
    app = make(predict_wait_s=0.3)
    client, backend = app.test_client(), app.extensions["svac"]
    (said,) = noted(ask(client, body(text="the cat")))
    assert said.startswith('\N{WARNING SIGN} "the cat" waits for other work. Type propagate')
    worker = Worker(backend)
    worker.complete(jobs(backend, "prelabel")[0])
    found = ask(client, with_draft(drafts, body(region=command()), *FIRST))
    assert noted(found) == []
    assert {region["id"] for region in found if region["type"] == "brushlabels"} == {
        "obj2-f00000",
        "obj2-f00001",
    }
    assert backend.sent.find("38", "7")["obj2"].complete


def test_a_part_says_how_much_it_is(make: Callable[..., Flask]) -> None:
    app = make(predict_wait_s=2.0)
    backend: Services = app.extensions["svac"]
    answers: list[list[Region]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(app.test_client(), body(text="the cat"))))
    asking.start()
    while not (waiting := jobs(backend, "prelabel")):
        time.sleep(0.01)
    version, payload = backend.model_version, PrelabelPayload.from_json(waiting[0].payload)
    track = Track("obj2", "dog", "the cat", {0: SQUARE}, {0: 0.5})
    backend.parts.put(
        Prediction(payload.cache_key(version), version, "38", "7", [track], 32, 24, 25.0, 2, 0.5)
    )
    asking.join()
    (said,) = noted(answers[0])
    assert said.startswith('\N{WARNING SIGN} 1 of 2 frames of "the cat" are here so far. Type propagate')


def test_a_text_that_is_taken_out_of_the_field_asks_nothing(client: FlaskClient, backend: Services) -> None:
    """The editor asks then, too, and the last text that is left was asked for long ago."""
    texts = {"id": "abc", "from_name": "prompt", "to_name": "frames", "type": "textarea"}
    draft = {"id": 5, "updated_at": "T1", "result": [{**texts, "value": {"text": ["the cat", "a mistake"]}}]}
    assert ask(client, body(of={**PREDICTED, "drafts": [draft]}, text="the cat")) == []
    draft["result"] = [{**texts, "value": {"text": ["the cat"]}}]
    notice = body(of={**PREDICTED, "drafts": [draft]}, text="\N{WARNING SIGN} Nothing was found.")
    assert ask(client, notice) == []
    assert jobs(backend, "prelabel") == []
