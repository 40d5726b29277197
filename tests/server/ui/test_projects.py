"""The pages of projects and of their tasks."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Flask
from flask.testing import FlaskClient

from svac_backend.jobs.engine import BULK
from svac_backend.jobs.services import Services
from svac_backend.masks.tracks import Track
from svac_backend.server.ui.frame import ROWS
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.tasks import PredictedTask
from tests.server.bodies import SQUARE, predict_body, prediction, task
from tests.server.ui.forms import press


def put(backend: Services, scores: dict[str, float]) -> None:
    backend.tasks.put(
        [PredictedTask("38", name, f"key {name}", "v1", score) for name, score in scores.items()]
    )


def annotate(backend: Services, name: str, drawn: frozenset[int]) -> None:
    about = Annotation("38", f"a{name}", 1, name, AnnotationState.USED if drawn else AnnotationState.EMPTY)
    track = Track("obj1", "dog", "the dog", {0: SQUARE}, {0: 1.0})
    made = [Correction(about, track, drawn, frozenset())] if drawn else []
    CorrectionStore(backend.database).put(about, made)


def figures(html: str) -> dict[str, int]:
    found = re.findall(r"<dt>(\w+)</dt><dd>(\d+)", html)
    return {name: int(value) for name, value in found}


def test_the_tasks_of_a_project_are_pre_labelled_at_the_press_of_a_button(
    client: FlaskClient, backend: Services
) -> None:
    put(backend, {"1": 0.2})
    assert client.post("/ui/projects/38/prelabel").status_code == 403
    answer = press(client, "/ui/projects/38/prelabel", on="/ui/projects/38")
    (job,) = backend.engine.find(kind="bulk")
    assert (job.key, job.payload["project_id"], job.priority) == ("bulk:38", "38", BULK)
    assert f"/ui/jobs/{job.id}" in answer.location
    assert "Pre-label a project" in client.get(answer.location).text
    press(client, "/ui/projects/38/prelabel", on="/ui/projects/38")
    assert len(backend.engine.find(kind="bulk")) == 1


def test_a_project_is_counted(client: FlaskClient, backend: Services) -> None:
    backend.connections.put("38", "http://ls.example", "", "<View/>")
    put(backend, {"1": 0.2, "2": 0.3, "3": 0.9, "4": 0.1})
    annotate(backend, "1", frozenset({0, 1}))
    annotate(backend, "3", frozenset())
    html = client.get("/ui/").text
    assert figures(html) == {"predicted": 4, "submitted": 2, "corrected": 1, "doubtful": 2}


def tasks_on(html: str) -> list[str]:
    return re.findall(r'href="/ui/projects/38/tasks/(\d+)"', html)


def test_tasks_come_worst_first_and_by_what_people_did(client: FlaskClient, backend: Services) -> None:
    put(backend, {"1": 0.2, "2": 0.3, "3": 0.9, "4": 0.1})
    annotate(backend, "1", frozenset({0, 1}))
    annotate(backend, "3", frozenset())
    page = "/ui/projects/38"
    assert tasks_on(client.get(page).text) == ["4", "1", "2", "3"]
    assert tasks_on(client.get(f"{page}?show=doubtful").text) == ["4", "2"]
    assert tasks_on(client.get(f"{page}?show=submitted").text) == ["1", "3"]
    assert "corrected on 2 frames" in client.get(page).text
    assert client.get(f"{page}?show=other").status_code == 400


def test_thousands_of_tasks_are_paged(client: FlaskClient, backend: Services) -> None:
    put(backend, {str(number): (number % 7) / 10 for number in range(3_000)})
    seen: list[str] = []
    path: str | None = "/ui/projects/38"
    for _ in range(4):
        assert path is not None
        html = client.get(path).text
        seen += tasks_on(html)
        following = re.findall(r'href="(/ui/projects/38\?[^"]+)" rel="next"', html)
        path = following[0].replace("&amp;", "&") if following else None
    assert len(seen) == len(set(seen)) == 4 * ROWS
    assert {int(name) % 7 for name in seen} == {0}


def test_a_task_is_known_once_label_studio_was_answered(client: FlaskClient, backend: Services) -> None:
    from svac_backend.jobs.payloads import PrelabelPayload

    client.post("/predict", json=predict_body(task()))
    assert backend.tasks.get("38", "7") is None
    [job] = backend.engine.find()
    payload = PrelabelPayload.from_json(job.payload)
    backend.predictions.put(prediction(payload, backend.model_version))
    backend.engine.cancel(job.id)
    client.post("/predict", json=predict_body(task()))
    known = backend.tasks.get("38", "7")
    assert known is not None
    assert known.prediction == payload.cache_key(backend.model_version)
    assert 0.5 <= known.score <= 0.75


def test_label_studio_is_linked_where_it_has_an_address(
    make: Callable[..., Flask],
) -> None:
    app = make(label_studio_url="http://inside:8080")
    backend, client = app.extensions["svac"], app.test_client()
    put(backend, {"7": 0.5})
    assert 'href="http://inside:8080/projects/38/data?task=7"' in client.get("/ui/projects/38/tasks/7").text
    backend.connections.put("38", "https://ls.example/below/", "", "<View/>")
    assert 'href="https://ls.example/below/projects/38/data"' in client.get("/ui/projects/38").text
