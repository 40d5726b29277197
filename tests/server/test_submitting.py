"""Submitted annotations whose corrections are carried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from svac_backend.jobs.engine import BATCH, JobState
from svac_backend.jobs.payloads import PropagatePayload
from svac_backend.jobs.services import Services
from svac_backend.settings import names_project
from tests.server.bodies import CONFIG, task


@pytest.fixture
def app(make: Callable[..., Flask]) -> Flask:
    return make(propagate_on_submit="12, 38")


def webhook(action: str = "ANNOTATION_CREATED", **changes: Any) -> dict[str, Any]:
    body = {
        "action": action,
        "project": {"id": 38, "label_config": CONFIG},
        "task": {"id": 7, "data": task()["data"]},
        "annotation": {"id": 1, "result": [{"id": "x", "value": {"rle": [1] * 1000}}]},
    }
    return {**body, **changes}


def send(client: FlaskClient, body: dict[str, Any]) -> int:
    answer = client.post("/webhook", json=body)
    assert answer.status_code == 201, answer.data
    return int(answer.get_json()["event"])


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])
def test_a_submitted_annotation_is_queued(client: FlaskClient, backend: Services, action: str) -> None:
    event = send(client, webhook(action))
    (job,) = backend.engine.find()
    assert (job.kind, job.state, job.priority) == ("propagate", JobState.QUEUED, BATCH)
    payload = PropagatePayload.from_json(job.payload)
    assert (payload.event, payload.task_id) == (event, "7")
    assert payload.video_url == "/data/upload/7.mp4"
    assert "annotation" not in str(job.payload)  # it is in the event, and may be megabytes


def test_each_submission_is_a_job_of_its_own(client: FlaskClient, backend: Services) -> None:
    """What is submitted while the first one is at work must not be lost."""
    send(client, webhook())
    send(client, webhook("ANNOTATION_UPDATED"))
    assert len(backend.engine.find()) == 2


@pytest.mark.parametrize(
    "body",
    [
        webhook(project={"id": 39, "label_config": CONFIG}),
        webhook("ANNOTATIONS_DELETED"),
        webhook("TASKS_CREATED"),
        {"action": "X"},
    ],
)
def test_what_nobody_asked_for_is_only_recorded(
    client: FlaskClient, backend: Services, body: dict[str, Any]
) -> None:
    send(client, body)
    assert backend.engine.find() == []


def test_by_default_nothing_is_propagated(make: Callable[..., Flask]) -> None:
    app = make()
    send(app.test_client(), webhook())
    assert app.extensions["svac"].engine.find() == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"task": {"id": 7, "data": {"frames": ["f"]}}}, "no video"),
        ({"task": None}, "which task"),
        ({"project": {"id": 38}}, "no labelling config"),
        ({"project": {"id": 38, "label_config": "<View"}}, "not well-formed"),
    ],
)
def test_a_webhook_that_cannot_be_used_is_a_failed_job(
    client: FlaskClient, backend: Services, changes: dict[str, Any], error: str
) -> None:
    send(client, webhook(**changes))
    (job,) = backend.engine.find()
    assert (job.kind, job.state) == ("propagate", JobState.FAILED)
    assert job.error is not None
    assert error in job.error


def test_the_config_of_setup_stands_in(client: FlaskClient, backend: Services) -> None:
    backend.connections.put("38", "http://ls", "t", CONFIG)
    send(client, webhook(project=38))
    assert backend.engine.find()[0].payload["label_config"] == CONFIG


@pytest.mark.parametrize(
    ("setting", "project", "answer"),
    [
        ("", "38", False),
        ("", "", False),
        ("38", "38", True),
        ("3, 8", "38", False),
        ("All", "38", True),
        (",", "", False),
    ],
)
def test_wanted(setting: str, project: str, answer: bool) -> None:
    assert names_project(setting, project) is answer
