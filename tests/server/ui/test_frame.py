"""Who sees the pages, what their forms need, and that nothing a stranger wrote is more than text on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from svac_backend.jobs.engine import JobState
from svac_backend.jobs.services import Services
from svac_backend.store.tasks import PredictedTask
from tests.server.bodies import predict_body, task
from tests.server.ui.forms import press

BASIC = {"basic_auth_user": "ls", "basic_auth_password": SecretStr("pass:word")}
RIGHT = ("ls", "pass:word")
PAGES = ["/ui/", "/ui/jobs", "/ui/projects/38", "/ui/projects/38/tasks/7", "/ui/static/live.js"]
HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "javascript:alert(1)//",
    "{{ 'q' * 9 }}{% raw %}",
    "\u202egnp.exe \u2067 \x07",
]


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def fill(backend: Services, text: str = "the dog") -> None:
    backend.tasks.put([PredictedTask("38", "7", "key", text, 0.25)])


@pytest.mark.parametrize("path", PAGES)
def test_only_who_may_call_the_api_sees_a_page(make: Callable[..., Flask], path: str) -> None:
    app = make(**BASIC)
    fill(app.extensions["svac"])
    client = app.test_client()
    for auth in (None, ("ls", "wrong"), ("", "")):
        answer = client.get(path, auth=auth)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert "dog" not in answer.text
        assert "Set-Cookie" not in answer.headers
    assert client.get(path, auth=RIGHT).status_code == 200


def test_nobody_guesses_the_password_at_the_pages(make: Callable[..., Flask]) -> None:
    client = make(**BASIC).test_client()
    for _ in range(60):
        assert client.get("/ui/").status_code == 401
    assert client.get("/ui/", auth=RIGHT).status_code == 429


def test_without_a_password_only_our_own_names_are_answered_to(client: FlaskClient) -> None:
    """DNS rebinding: another site's name leads to this machine."""
    assert client.get("/ui/", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/ui/", headers={"Host": "127.0.0.1:9090"}).status_code == 200


@pytest.mark.parametrize("path", ["/ui/", "/ui/jobs", "/ui/nothing", "/ui/projects/9", "/ui/static/ui.css"])
def test_a_page_loads_nothing_from_elsewhere(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if answer.mimetype != "text/html":
        return
    assert answer.headers["Cache-Control"] == "no-store"
    for tag, attributes in Tags(answer.text).found:
        assert tag != "style"
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "/").startswith(("/ui", "#", "/")), attributes
        assert tag != "script" or attributes.get("src"), "a script within the page"


def waiting_job(client: FlaskClient, backend: Services) -> str:
    client.post("/predict", json=predict_body(task()))
    return backend.engine.find()[0].id


def test_a_form_needs_its_token(client: FlaskClient, backend: Services) -> None:
    job = waiting_job(client, backend)
    path = f"/ui/jobs/{job}/stop"
    token = re.findall(r'name="token" value="([^"]+)"', client.get("/ui/jobs").text)[0]
    for form in ({}, {"token": ""}, {"token": "x"}, {"token": token[:-2] + "xx"}):
        assert client.post(path, data=form).status_code == 403
    assert client.post(path, json={"token": token}).status_code == 403
    assert backend.engine.get(job).state is JobState.QUEUED
    answer = client.post(path, data={"token": token})
    assert (answer.status_code, backend.engine.get(job).state) == (303, JobState.CANCELLED)


def test_a_token_is_of_one_browser(app: Flask, backend: Services) -> None:
    """Who has a browser of their own can get a token; another person's browser must not take it."""
    mine, theirs = app.test_client(), app.test_client()
    job = waiting_job(mine, backend)
    token = re.findall(r'name="token" value="([^"]+)"', mine.get("/ui/jobs").text)[0]
    theirs.get("/ui/jobs")
    assert theirs.post(f"/ui/jobs/{job}/stop", data={"token": token}).status_code == 403
    assert app.test_client().post(f"/ui/jobs/{job}/stop", data={"token": token}).status_code == 403


def test_a_form_of_another_site_is_refused(client: FlaskClient, backend: Services) -> None:
    job = waiting_job(client, backend)
    token = re.findall(r'name="token" value="([^"]+)"', client.get("/ui/jobs").text)[0]
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.post(f"/ui/jobs/{job}/stop", data={"token": token}, headers=headers)
        assert answer.status_code == 403
    same = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"/ui/jobs/{job}/stop", data={"token": token}, headers=same).status_code == 303


def test_forms_are_taken_by_the_pages_only(client: FlaskClient) -> None:
    assert client.post("/setup", data={"project": "38"}).status_code == 415


def test_the_cookie_is_for_the_pages_alone(client: FlaskClient) -> None:
    cookie = client.get("/ui/").headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/ui"} <= {part.strip() for part in cookie.split(";")}


def test_what_a_button_did_is_told_once_and_cannot_be_made_up(client: FlaskClient, backend: Services) -> None:
    job = waiting_job(client, backend)
    answer = press(client, f"/ui/jobs/{job}/stop", on="/ui/jobs")
    assert "The job stops." in client.get(answer.location).text
    assert "made up" not in client.get(f"/ui/jobs/{job}?told=made+up").text


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_shown_is_text(client: FlaskClient, backend: Services, text: str) -> None:
    fill(backend, text)
    backend.connections.put("38", text, "token", f"<View>{text}</View>")
    named: dict[str, Any] = {"project_id": "38", "task_id": text}
    backend.engine.submit("prelabel", {**named, "prompts": [{"label": text, "expression": text}]}, "k")
    backend.engine.reject(text[:30], named, f"{text}:rejected", text, text)
    backend.tasks.put([PredictedTask(text[:30], text[:30], "key", text, 0.1)])
    [job, _] = backend.engine.find()
    for path in ("/ui/", "/ui/jobs", f"/ui/jobs/{job.id}", "/ui/projects/38", "/ui/projects/38/tasks/7"):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        tags = Tags(answer.text).found
        assert {tag for tag, _ in tags} & {"img", "iframe"} == set()
        scripts = [attributes.get("src") or "" for tag, attributes in tags if tag == "script"]
        assert all(re.fullmatch(r"/ui/static/(live|player)\.js", source) for source in scripts)
        for _, attributes in tags:
            assert not any(name.startswith("on") for name in attributes)
            assert not (attributes.get("href") or "").lower().startswith("javascript")
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x07]", answer.text)
        assert "q" * 9 not in answer.text, "a template within a text"
    assert client.get(f"/ui/projects/{text[:30]}").status_code in (200, 404)


def test_who_opens_the_address_in_a_browser_gets_to_the_pages(client: FlaskClient) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    answer = client.get("/", headers=browser)
    assert (answer.status_code, answer.location) == (302, "/ui/")
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        health = client.get("/", headers=headers).get_json()
        assert (health["status"], health["pages"]) == ("UP", "/ui/")


def test_errors_are_pages(client: FlaskClient) -> None:
    for path, status in (("/ui/nothing", 404), ("/ui/jobs/x", 404), ("/ui/jobs?state=lost", 400)):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert client.get("/nothing").mimetype == "application/json"


@pytest.mark.usefixtures("no_worker")
def test_what_keeps_the_backend_from_work_stands_on_every_page(client: FlaskClient) -> None:
    assert "No worker is running" in client.get("/ui/jobs").text
