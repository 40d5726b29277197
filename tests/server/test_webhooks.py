"""Whom a project belongs to, and the secret of its webhooks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask.testing import FlaskClient

from svac_backend.errors import SvacError
from svac_backend.jobs.services import Services
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.server.security import Forbidden
from svac_backend.server.webhooks import WebhookRegistrar, bind
from svac_backend.settings import Settings
from svac_backend.store.events import ProjectConnection

FIRST = ProjectConnection("38", "http://ls:8080", "token-of-38", "<View/>")


def nobody(*_: str) -> bool:
    return False


@pytest.fixture
def bound(settings: Settings, backend: Services) -> Services:
    bind(settings, backend.connections, FIRST, nobody)
    return backend


def stored(backend: Services) -> tuple[str, str, str]:
    known = backend.connections.get("38")
    assert known is not None
    return known.hostname, known.access_token, known.label_config


@pytest.mark.parametrize(
    ("host", "token"),
    [
        ("http://evil.example", "another"),
        ("http://evil.example", ""),
        ("http://ls:8080", "another"),  # it does not work there
        ("", "another"),
        ("http://ls:8080.evil.example", "another"),
    ],
)
def test_a_second_setup_without_proof_changes_nothing(
    bound: Services, settings: Settings, host: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, ...]] = []

    def works(*what: str) -> bool:
        asked.append(what)
        return False

    told = ProjectConnection("38", host, token, "<View evil=''/>")
    if (host, token) == ("http://evil.example", ""):
        # It knows no token; that of the project goes nowhere.
        told = ProjectConnection("38", host, "wrong", "<View/>")
    with pytest.raises(Forbidden, match="another Label Studio") as caught:
        bind(settings, bound.connections, told, works)
    assert "SVAC_LABEL_STUDIO_URL" in caught.value.hint
    assert "without proof" in caplog.text
    assert stored(bound) == ("http://ls:8080", "token-of-38", "<View/>")
    assert all(
        url == "http://ls:8080" for url, *_ in asked
    )  # no token ever goes to the address that was told


def test_the_token_the_setting_and_label_studio_itself_are_proof(bound: Services, settings: Settings) -> None:
    bind(
        settings,
        bound.connections,
        ProjectConnection("38", "https://ls.example", "token-of-38", "<a/>"),
        nobody,
    )
    assert stored(bound) == ("https://ls.example", "token-of-38", "<a/>")
    moved = Settings(**{**settings.model_dump(), "label_studio_url": "http://new:8080/"})
    bind(moved, bound.connections, ProjectConnection("38", "http://new:8080", "t2", "<b/>"), nobody)
    assert stored(bound) == ("http://new:8080", "t2", "<b/>")
    bind(settings, bound.connections, ProjectConnection("38", "http://new:8080", "t3", ""), lambda *_: True)
    assert stored(bound) == ("http://new:8080", "t3", "<b/>")
    bind(settings, bound.connections, ProjectConnection("38", "", "", "<evil/>"), nobody)
    assert stored(bound) == ("http://new:8080", "t3", "<b/>")


def test_a_setup_from_elsewhere_is_answered_with_what_to_do(client: FlaskClient, backend: Services) -> None:
    first = {"project": "38.1", "hostname": "http://127.0.0.1:1", "access_token": "a", "schema": "<View/>"}
    assert client.post("/setup", json=first).status_code == 200
    for change in ({"hostname": "http://evil.example", "access_token": "b"}, {"access_token": "b"}):
        answer = client.post("/setup", json={**first, **change})
        assert answer.status_code == 403
        assert "SVAC_LABEL_STUDIO_URL" in answer.get_json()["hint"]
    assert stored(backend)[:2] == ("http://127.0.0.1:1", "a")


@dataclass
class Hooks:
    """A Label Studio client's webhooks."""

    hooks: list[dict[str, Any]]
    set: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    def list_webhooks(self, project: int) -> list[dict[str, Any]]:
        assert project == 38
        return self.hooks

    def set_webhook_headers(self, webhook: int, headers: dict[str, str]) -> None:
        self.set.append((webhook, headers))


def test_only_webhooks_to_this_backend_get_the_secret(
    backend: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks(
        [
            {"id": 1, "url": "http://b.internal:9090/webhook", "headers": {"X-Own": "stays"}},
            {"id": 2, "url": "http://b.internal:9091/webhook", "headers": {}},
            {"id": 3, "url": "http://[bad/webhook", "headers": {}},
            {"id": 4, "url": "http://b.internal:9090/other", "headers": None},
            {"id": 5, "url": "http://b.internal:9090/webhook", "headers": {"X-Svac-Token": "s"}},
        ]
    )
    access = LabelStudioAccess(settings, backend.connections)
    monkeypatch.setattr(access, "client", lambda _: hooks)
    assert access.guard_webhooks("38", "B.internal:9090", "X-Svac-Token", "s") == 2
    assert hooks.set == [(1, {"X-Own": "stays", "X-Svac-Token": "s"})]


class Access:
    """Fails, then has no webhook yet, then has one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def guard_webhooks(self, *what: str) -> int:
        self.asked.append(what)
        if len(self.asked) == 1:
            raise SvacError("Label Studio is away.", "Start it.")
        return len(self.asked) - 2


def test_the_secret_is_entered_once_the_webhook_is_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    access = Access()
    registrar = WebhookRegistrar(access, lambda project: f"secret-{project}", (0.0,) * 5)  # type: ignore[arg-type]
    registrar._run("38", "b:9090")
    assert access.asked == [("38", "b:9090", "X-Svac-Token", "secret-38")] * 3
    assert "carries its secret" in caplog.text
    registrar.begin("38", "b:9090")
    registrar.begin("no number", "b:9090")
    assert len(access.asked) == 3


def test_a_secret_that_cannot_be_entered_is_said(caplog: pytest.LogCaptureFixture) -> None:
    WebhookRegistrar(Access(), str, (0.0,))._run("38", "b:9090")  # type: ignore[arg-type]
    assert "Label Studio is away" in caplog.text
