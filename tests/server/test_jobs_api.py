"""The job list."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from flask.testing import FlaskClient

from svac_backend.jobs.engine import JobState
from svac_backend.jobs.services import Services
from tests.server.bodies import predict_body, task


def test_the_list_shows_what_people_need(client: FlaskClient, backend: Services) -> None:
    client.post("/predict", json=predict_body(task(7), task(8, prompt="")))
    body = client.get("/jobs").get_json()
    assert body["counts"] == {"queued": 1, "running": 0, "done": 0, "failed": 1, "cancelled": 0}
    by_state = {job["state"]: job for job in body["jobs"]}
    queued, failed = by_state["queued"], by_state["failed"]
    assert (queued["kind"], queued["project_id"], queued["task_id"]) == ("prelabel", "38", "7")
    assert queued["prompts"] == [{"label": "dog", "expression": "the dog"}]
    assert datetime.fromisoformat(queued["created"]).utcoffset() is not None
    assert (queued["started"], queued["finished"]) == (None, None)
    assert "empty" in failed["error"]
    assert failed["hint"]
    assert failed["finished"] is not None
    assert "/data/upload" not in json.dumps(body)


def test_filters(client: FlaskClient) -> None:
    client.post("/predict", json=predict_body(task(7), task(8), task(9, prompt="")))
    assert len(client.get("/jobs?state=queued").get_json()["jobs"]) == 2
    assert len(client.get("/jobs?limit=1").get_json()["jobs"]) == 1
    assert client.get("/jobs?kind=frames").get_json()["jobs"] == []


@pytest.mark.parametrize("query", ["state=lost", "limit=0", "limit=1001", "limit=x", "limit=-1", "limit=٣"])
def test_bad_filters_are_refused(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/jobs?{query}")
    assert answer.status_code == 400
    assert answer.get_json()["hint"]


def test_one_job_and_cancel(client: FlaskClient, backend: Services) -> None:
    client.post("/predict", json=predict_body(task()))
    (job,) = backend.engine.find()
    assert client.get(f"/jobs/{job.id}").get_json()["state"] == "queued"
    answer = client.post(f"/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.get_json()["state"]) == (200, "cancelled")
    assert backend.engine.get(job.id).state is JobState.CANCELLED
    # It can be asked for again.
    client.post("/predict", json=predict_body(task()))
    assert len(backend.engine.find(states=(JobState.QUEUED,))) == 1


def test_unknown_jobs(client: FlaskClient) -> None:
    for answer in (client.get("/jobs/nothing"), client.post("/jobs/nothing/cancel")):
        assert answer.status_code == 404
        assert answer.get_json()["error"] == "There is no job of that id."
