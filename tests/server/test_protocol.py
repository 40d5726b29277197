"""Label Studio's routes."""

from __future__ import annotations

import json
import logging
import re
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient

from svac_backend.jobs.services import Services
from svac_backend.server.bodies import MAX_UNFOLDED, TOGETHER, unfolded
from svac_backend.settings import Settings
from svac_backend.svac.files.weights import model_version
from tests.learning.adapter_folders import adapter_folder
from tests.server.bodies import CONFIG, click, predict_body, task

SETUP = {
    "project": "38.1795331614",
    "schema": CONFIG,
    "hostname": "http://localhost:8080",
    "access_token": "a-secret-token",
    "extra_params": None,
}


@pytest.mark.usefixtures("no_worker")
def test_health_says_that_no_worker_runs(client: FlaskClient, backend: Services) -> None:
    for path in ("/", "/health"):
        answer = client.get(path)
        assert answer.status_code == 200
        body = answer.get_json()
        assert (body["status"], body["model_version"]) == ("UP", backend.model_version)
        assert "svac-backend worker" in body["problem"]
    backend.workers.beat("w", device="cuda:0", model_version="svac-1")
    body = client.get("/health").get_json()
    assert body["workers"] == [{"device": "cuda:0", "model_version": "svac-1"}]
    assert body["problem"] is None


@pytest.mark.usefixtures("no_worker")
def test_ready_says_whether_and_why_not(client: FlaskClient, backend: Services) -> None:
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.get_json()["ready"] is False
    assert "svac-backend worker" in " ".join(answer.get_json()["reasons"])
    backend.settings.min_free_mb = 0
    backend.workers.beat("w", device="cuda:0", model_version=backend.model_version)
    answer = client.get("/ready")
    assert (answer.status_code, answer.get_json()) == (200, {"ready": True, "reasons": []})


def test_health_is_up_without_a_model_and_says_so(make: Callable[..., Flask]) -> None:
    client = make(model="nothing-here").test_client()
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.get_json()["model_version"] is None
    assert "nothing-here" in answer.get_json()["problem"]
    # The others cannot do their work.
    for answer in (
        client.post("/setup", json=SETUP),
        client.post("/predict", json=predict_body(task())),
        client.get("/versions"),
    ):
        assert answer.status_code == 503
        assert "nothing-here" in answer.get_json()["error"]
        assert "SVAC_MODEL" in answer.get_json()["hint"]


def test_setup_remembers_the_project_and_names_the_version(client: FlaskClient, backend: Services) -> None:
    answer = client.post("/setup", json=SETUP)
    assert answer.status_code == 200
    assert answer.get_json() == {"model_version": model_version(backend.settings.model)}
    known = backend.connections.get("38")
    assert known is not None
    assert (known.hostname, known.access_token, known.label_config) == (
        "http://localhost:8080",
        "a-secret-token",
        CONFIG,
    )


def test_versions(client: FlaskClient, backend: Services) -> None:
    assert client.get("/versions").get_json() == {"versions": [backend.model_version]}


def test_every_webhook_is_recorded(client: FlaskClient, backend: Services) -> None:
    bodies: list[dict[str, Any]] = [
        {"action": "ANNOTATION_CREATED", "project": {"id": 38}, "task": {"id": 7}, "annotation": {"id": 1}},
        {"action": "ANNOTATIONS_CREATED", "project": {"id": 38}, "annotation": [{"id": 1}]},
        {"action": "ANNOTATIONS_DELETED", "project": 38, "annotations": [{"id": 13}]},
        {"action": "SOMETHING_NEW"},
    ]
    for number, body in enumerate(bodies, start=1):
        answer = client.post("/webhook", json=body)
        assert (answer.status_code, answer.get_json()) == (201, {"status": "recorded", "event": number})
    events = backend.events.find()
    assert [event.body for event in events] == bodies
    assert [event.project_id for event in events] == ["38", "38", "38", ""]


def test_start_training_queues_one_job(client: FlaskClient, backend: Services) -> None:
    first, again = (
        client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 38}}) for _ in range(2)
    )
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.get_json()["message"] == (
        "Fine-tuning starts. It learns from the corrections of all projects."
    )
    assert "waits already" in again.get_json()["message"]
    (job,) = backend.engine.find()
    assert first.get_json()["job_id"] == again.get_json()["job_id"] == job.id
    assert (job.kind, job.payload["project_id"]) == ("finetune", "38")
    assert [event.action for event in backend.events.find()] == ["START_TRAINING"] * 2
    assert client.get("/jobs").get_json()["jobs"][0]["kind"] == "finetune"


def test_the_promoted_version_is_reported_and_a_damaged_one_is_not(
    client: FlaskClient, backend: Services, tmp_path: Path
) -> None:
    base = backend.model_version
    versions = []
    for content, parent in ((b"one", ""), (b"two", "one")):
        adapter_folder(tmp_path / content.decode(), content)
        parent = versions[0].id if parent else ""
        folder = tmp_path / content.decode()
        versions.append(
            backend.registry.publish(folder, base=base, parent=parent, promote=True, reason="better")
        )
    one, two = versions
    setup = {"project": "38", "hostname": "http://ls", "access_token": "t", "schema": "<View/>"}
    assert client.post("/setup", json=setup).get_json() == {"model_version": f"{base}-{two.id}"}
    assert client.get("/versions").get_json() == {"versions": [two.name]}

    (backend.registry.folder(two) / "adapter.safetensors").unlink()
    assert client.post("/setup", json=setup).get_json() == {"model_version": one.name}
    health = client.get("/health").get_json()
    assert health["model_version"] == one.name
    assert two.name in health["problem"]
    assert "rollback" in health["problem"]

    backend.registry.roll_back()
    assert client.post("/setup", json=setup).get_json() == {"model_version": base}


@pytest.mark.parametrize(
    ("path", "data", "error"),
    [
        ("/predict", b"", "no body"),
        ("/predict", b"{", "not JSON"),
        ("/predict", b"\xff\xfe\x00", "not JSON"),
        ("/predict", b"[" * 100_000, "not JSON"),
        ("/predict", b'{"tasks": [{"id": 7}], "score": NaN}', "NaN"),
        ("/predict", b"[]", "not a JSON object"),
        ("/predict", b"{}", "'tasks'"),
        ("/predict", b'{"tasks": []}', "'tasks'"),
        ("/predict", b'{"tasks": {"id": 7}}', "'tasks'"),
        ("/predict", b'{"tasks": [7], "label_config": "<View/>"}', "tasks[0]"),
        ("/predict", b'{"tasks": [{}], "label_config": 1}', "'label_config'"),
        ("/predict", b'{"tasks": [{}]}', "/setup"),
        ("/predict", b'{"tasks": [{}], "params": 1}', "'params'"),
        ("/predict", b'{"tasks": [{}], "params": {"context": "x"}}', "'params.context'"),
        ("/setup", b"{}", "'project'"),
        ("/setup", b'{"project": {"id": true}}', "'project'"),
        ("/setup", b'{"project": "38", "schema": 5}', "'schema'"),
        ("/setup", b'{"project": "38", "hostname": "\\ud800"}', "not valid Unicode"),
        ("/webhook", b"null", "not a JSON object"),
        ("/webhook", b"{}", "'action'"),
        ("/webhook", b'{"action": 5}', "'action'"),
    ],
)
def test_malformed_bodies_are_refused_in_words(
    client: FlaskClient, path: str, data: bytes, error: str
) -> None:
    answer = client.post(path, data=data, content_type="application/json")
    assert answer.status_code == 400
    body = answer.get_json()
    assert error in body["error"]
    assert body["hint"]


def test_a_body_that_is_too_large_is_refused(client: FlaskClient, backend: Services) -> None:
    answer = client.post("/webhook", json={"action": "A", "filler": "x" * 1_000_001})
    assert answer.status_code == 413
    assert "1 MB" in answer.get_json()["error"]
    assert "SVAC_MAX_BODY_MB" in answer.get_json()["hint"]
    assert backend.events.counts() == {}


def test_unknown_addresses_and_methods_are_answered_in_json(client: FlaskClient) -> None:
    for answer, status in ((client.get("/nothing"), 404), (client.get("/predict"), 405)):
        assert answer.status_code == status
        assert set(answer.get_json()) == {"error", "hint"}


def test_an_unexpected_error_says_little_to_the_caller_and_all_to_the_log(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/broken")
    def broken() -> str:
        raise KeyError("inner detail")

    answer = app.test_client().get("/broken")
    assert answer.status_code == 500
    assert "inner detail" not in answer.get_data(as_text=True)
    assert "inner detail" in caplog.text


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("a b", False), ("x" * 65, False), ("", False)])
def test_an_answer_names_its_request(client: FlaskClient, given: str, kept: bool) -> None:
    named = client.get("/versions", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert (named == given) is kept
    assert re.fullmatch(r"[\w-]{1,64}", named)


@pytest.mark.usefixtures("no_worker")
def test_metrics(client: FlaskClient, backend: Services) -> None:
    client.post("/predict", json=predict_body(task(), task(8, prompt="")))
    client.post("/webhook", json={"action": "A"})
    client.get("/some/path/that/is/not/there")
    backend.workers.beat("w")
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    lines = answer.get_data(as_text=True).splitlines()
    assert 'svac_requests_total{route="/predict",status="200"} 1.0' in lines
    assert 'svac_requests_total{route="(unknown)",status="404"} 1.0' in lines
    assert 'svac_request_seconds_count{route="/webhook"} 1.0' in lines
    assert 'svac_predict_tasks_total{outcome="queued"} 1.0' in lines
    assert 'svac_predict_tasks_total{outcome="rejected"} 1.0' in lines
    assert 'svac_jobs{state="queued"} 1.0' in lines
    assert 'svac_jobs{state="failed"} 1.0' in lines
    assert "svac_workers 1.0" in lines
    assert "svac_events 1.0" in lines
    assert 'svac_lane_jobs{lane="model",state="waiting"} 1.0' in lines
    assert 'svac_lane_jobs{lane="training",state="running"} 0.0' in lines
    assert 'svac_lane_oldest_seconds{lane="training"} 0.0' in lines
    free = next(line for line in lines if line.startswith("svac_disk_free_bytes "))
    assert float(free.split()[1]) > 0


def test_alerts_ask_for_figures_that_there_are(client: FlaskClient) -> None:
    client.get("/versions")
    assert "svac_gpu_memory_bytes{" not in client.get("/metrics").get_data(as_text=True)  # there is no GPU
    backend: Services = client.application.extensions["svac"]
    backend.workers.beat("w", device="cuda:0", gpu=(6e9, 8e9))
    figures = client.get("/metrics").get_data(as_text=True)
    assert 'svac_gpu_memory_bytes{kind="used",worker="w"} 6e+09' in figures
    there = set(re.findall(r"^(svac_\w+)", figures, re.MULTILINE))
    rules = yaml.safe_load((Path(__file__).parents[2] / "scripts" / "alerts.yml").read_text())["groups"][0][
        "rules"
    ]
    asked = {rule["alert"]: set(re.findall(r"svac_\w+", rule["expr"])) for rule in rules}
    assert all(asked.values())
    assert {alert: names - there for alert, names in asked.items() if names - there} == {}
    assert all(rule["annotations"]["summary"] for rule in rules)


def test_neither_bodies_nor_tokens_are_logged(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.post("/setup", json=SETUP, headers={"X-Svac-Token": "header-secret"})
        client.post("/predict?key=query-secret", json=predict_body(task(secret="body-secret")))
        client.post("/webhook", json={"action": "A", "annotation": {"text": "body-secret"}})
        client.post("/webhook", data=b'{"action": "body-secret', content_type="application/json")
        client.post("/webhook", json={"action": "A\nforged line", "project": {"id": "1\nforged line"}})
    assert "POST /predict 200" in caplog.text
    assert "secret" not in caplog.text
    assert "\nforged" not in caplog.text


def test_answers_are_one_item_for_each_task_in_order(client: FlaskClient) -> None:
    answer = client.post("/predict", json=predict_body(task(7), task(8, prompt=""), task(9)))
    assert answer.status_code == 200
    assert json.loads(answer.data) == {"results": [[], [], []]}


def test_a_locked_database_is_said_and_no_crash(
    make: Callable[..., Flask], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svac_backend.store.sqlite.BUSY_TIMEOUT_S", 0.05)
    client = make().test_client()
    with closing(sqlite3.connect(settings.data_dir / "svac.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for path, body in (("/webhook", {"action": "A"}), ("/predict", predict_body(task()))):
            response = client.post(path, json=body)
            assert response.status_code == 503
            assert "locked" in response.get_json()["error"]
            assert "other program" in response.get_json()["hint"]
        assert client.get("/health").status_code == 200
        other.execute("ROLLBACK")
    assert client.post("/webhook", json={"action": "A"}).status_code == 201


@pytest.mark.parametrize(
    ("text", "unfolds"),
    [
        (b"[" + b"255," * 2_000_000 + b"1]", False),
        (b"[" + b"[]," * 5_000_000 + b"1]", True),
        (b"[" + b"{}," * 2_000_000 + b"1]", True),
        (b"[" + b"257," * 9_000_000 + b"1]", True),
        (b'"' + b"a" * 8_000_000 + b'"', False),
    ],
)
def test_what_a_body_becomes_is_known_before_it_is_read(text: bytes, unfolds: bool) -> None:
    assert (unfolded(text) > MAX_UNFOLDED) is unfolds


def test_large_bodies_at_a_time_are_bounded_before_they_are_read(
    make: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, large = make().test_client(), b"[" + b" " * 900_000 + b"]"
    monkeypatch.setattr("svac_backend.server.bodies.PATIENCE_S", 0.1)
    for _ in range(40):  # each gives its part back, also a refused one
        assert client.post("/webhook", data=large, content_type="application/json").status_code == 400
    part = TOGETHER.take(20_000_000)
    assert part == MAX_UNFOLDED
    more = [TOGETHER.take(1_000_000) for _ in range(3)]
    try:
        refused = client.post("/webhook", data=large, content_type="application/json")
        assert (refused.status_code, refused.get_json()["hint"]) == (503, "Send it again in a moment.")
        assert client.post("/webhook", json={"action": "A"}).status_code == 201  # a small one goes by
    finally:
        for one in (part, *more):
            TOGETHER.give_back(one)
    assert client.post("/webhook", data=large, content_type="application/json").status_code == 400


def test_deeply_nested_and_endless_bodies_are_refused(make: Callable[..., Flask]) -> None:
    client = make(max_body_mb=64).test_client()
    for body, error in (
        (b'{"tasks":' + b"[" * 900 + b"]" * 900 + b"}", "nested too deeply"),
        (b'{"tasks":[' + b"[]," * 6_000_000 + b"1]}", "more values than can be read"),
        (
            b'{"project":1,"label_config":"' + b"a" * 1_000_001 + b'","tasks":[{"id":1}]}',
            "1000001 characters",
        ),
        (b'{"project":1,"schema":"' + b"a" * 1_000_001 + b'"}', "1000001 characters"),
    ):
        route = "/setup" if b"schema" in body else "/predict"
        answer = client.post(route, data=body, content_type="application/json")
        assert answer.status_code == 400
        assert error in answer.get_json()["error"]


def test_a_click_on_a_frame_of_400_megapixels_is_refused(client: FlaskClient) -> None:
    """The attack of 750 bytes that took nine gigabytes."""
    large = {"original_width": 20_000, "original_height": 20_000}
    shape = {
        "id": "p",
        "from_name": "mask",
        "to_name": "frames",
        "type": "brushlabels",
        "item_index": 0,
        "value": {"points": [[0, 0], [100, 0], [100, 100]], "closed": True, "brushlabels": ["dog"]},
        **large,
    }
    own = {**task(), "annotations": [{"id": 1, "result": [shape]}]}
    region = {**click(50, 10), **large}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = client.post("/predict", json=predict_body(own, region=region))
    assert answer.get_json()["results"][0]["result"] == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert "larger than any" in client.get("/jobs").get_json()["jobs"][0]["error"]
