"""Who may call what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from svac_backend.errors import SvacError
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from tests.server.bodies import predict_body, task

BASIC = {"basic_auth_user": "ls", "basic_auth_password": SecretStr("pass:word")}
TOKEN = {"webhook_token": SecretStr("token")}
RIGHT = ("ls", "pass:word")
EVENT = {"action": "ANNOTATION_CREATED"}
TRAIN = {"action": "START_TRAINING"}
HEADER = {"X-Svac-Token": "token"}


@pytest.fixture
def guarded(make: Callable[..., Flask]) -> FlaskClient:
    return make(**BASIC, **TOKEN).test_client()


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/health", None),
    ("POST", "/setup", {"project": "38"}),
    ("POST", "/predict", predict_body(task())),
    ("GET", "/versions", None),
    ("GET", "/metrics", None),
    ("GET", "/jobs", None),
    ("GET", "/jobs/x", None),
    ("POST", "/jobs/x/cancel", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_every_route_but_the_webhook_needs_user_and_password(
    guarded: FlaskClient, method: str, path: str, body: Any
) -> None:
    for auth in (None, ("ls", "wrong"), ("other", "pass:word"), ("", "")):
        answer = guarded.open(path, method=method, json=body, auth=auth)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert "SVAC_BASIC_AUTH_USER" in answer.get_json()["hint"]
    assert guarded.open(path, method=method, json=body, headers=HEADER).status_code == 401
    assert guarded.open(path, method=method, json=body, auth=RIGHT).status_code in (200, 404)


def test_a_bearer_token_is_not_basic_auth(guarded: FlaskClient) -> None:
    assert guarded.get("/health", headers={"Authorization": "Bearer pass"}).status_code == 401
    assert guarded.get("/health", headers={"Authorization": "Basic not-base64"}).status_code == 401


def test_an_annotation_webhook_needs_the_token(guarded: FlaskClient) -> None:
    assert guarded.post("/webhook", json=EVENT).status_code == 401
    assert guarded.post("/webhook", json=EVENT, headers={"X-Svac-Token": "wrong"}).status_code == 401
    assert "X-Svac-Token" in guarded.post("/webhook", json=EVENT).get_json()["hint"]
    assert guarded.post("/webhook", json=EVENT, headers=HEADER).status_code == 201
    # An address such as http://ls:password@backend/webhook carries them too.
    assert guarded.post("/webhook", json=EVENT, auth=RIGHT).status_code == 201


def test_start_training_needs_user_and_password(guarded: FlaskClient) -> None:
    assert guarded.post("/webhook", json=TRAIN).status_code == 401
    assert guarded.post("/webhook", json=TRAIN, auth=RIGHT).status_code == 201
    assert guarded.post("/webhook", json=TRAIN, headers=HEADER).status_code == 201


def test_with_a_password_only_annotation_webhooks_still_come(make: Callable[..., Flask]) -> None:
    """Label Studio sends no password with them."""
    client = make(**BASIC).test_client()
    assert client.post("/webhook", json=EVENT).status_code == 201
    assert client.post("/webhook", json=TRAIN).status_code == 401


def test_with_a_token_only_the_rest_is_open(make: Callable[..., Flask]) -> None:
    client = make(**TOKEN).test_client()
    assert client.get("/health").status_code == 200
    assert client.post("/webhook", json=EVENT).status_code == 401
    assert client.post("/webhook", json=EVENT, auth=RIGHT).status_code == 401
    assert client.post("/webhook", json=TRAIN).status_code == 201


def test_a_refused_webhook_is_not_recorded(guarded: FlaskClient) -> None:
    guarded.post("/webhook", json=EVENT)
    assert guarded.application.extensions["svac"].events.counts() == {}


@pytest.mark.parametrize(
    "half",
    [
        {"basic_auth_user": "ls"},
        {"basic_auth_password": SecretStr("p")},
        {"basic_auth_user": "ls", "basic_auth_password": SecretStr("")},
    ],
)
def test_half_a_password_is_refused_at_the_start(settings: Settings, half: dict[str, Any]) -> None:
    with pytest.raises(SvacError, match="Only one of"):
        create_app(settings.model_copy(update=half))


@pytest.mark.parametrize(
    "secret",
    [
        {"basic_auth_user": "lü", "basic_auth_password": SecretStr("p")},
        {"basic_auth_user": "ls", "basic_auth_password": SecretStr("pä")},
        {"webhook_token": SecretStr("tö")},
    ],
)
def test_secrets_that_headers_cannot_carry_are_refused_at_the_start(
    settings: Settings, secret: dict[str, Any]
) -> None:
    with pytest.raises(SvacError, match="ASCII"):
        create_app(settings.model_copy(update=secret))


def test_other_characters_in_a_header_are_just_wrong(guarded: FlaskClient) -> None:
    assert guarded.post("/webhook", json=EVENT, headers={"X-Svac-Token": "tök"}).status_code == 401
    assert guarded.get("/health", auth=("lü", "pä")).status_code == 401
