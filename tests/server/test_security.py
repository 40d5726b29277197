"""Who may call what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from svac_backend.errors import SvacError
from svac_backend.server.app import create_app
from svac_backend.server.security import Gate, webhook_secret
from svac_backend.settings import Settings
from svac_backend.store.links import MediaLinks
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


def test_ready_tells_everybody_whether_and_only_callers_why_not(guarded: FlaskClient) -> None:
    """A load balancer's probe carries no password."""
    answer = guarded.get("/ready")
    assert (answer.status_code, answer.get_json()) == (503, {"ready": False})
    assert guarded.get("/ready", auth=RIGHT).get_json()["reasons"]


def test_a_bearer_token_is_not_basic_auth(guarded: FlaskClient) -> None:
    assert guarded.get("/health", headers={"Authorization": "Bearer pass"}).status_code == 401
    assert guarded.get("/health", headers={"Authorization": "Basic not-base64"}).status_code == 401


def test_looking_at_settings_makes_no_folder(settings: Settings, tmp_path: Path) -> None:
    Gate(settings.model_copy(update={"data_dir": tmp_path / "not here"}))
    assert not (tmp_path / "not here").exists()


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


def test_with_a_password_only_webhooks_need_the_projects_secret(make: Callable[..., Flask]) -> None:
    """Label Studio sends no password with them."""
    app = make(**BASIC)
    client, of_38 = app.test_client(), {**EVENT, "project": {"id": 38}}
    key = MediaLinks.from_settings(app.extensions["svac"].settings).key
    secret = {"X-Svac-Token": webhook_secret(key, "38")}
    assert client.post("/webhook", json=of_38).status_code == 401
    assert client.post("/webhook", json=of_38, headers=secret).status_code == 201
    assert client.post("/webhook", json={**EVENT, "project": {"id": 39}}, headers=secret).status_code == 401
    assert client.post("/webhook", json=TRAIN).status_code == 401


def test_without_a_password_a_wrong_secret_is_refused_all_the_same(client: FlaskClient) -> None:
    assert client.post("/webhook", json=EVENT).status_code == 201
    assert client.post("/webhook", json=EVENT, headers={"X-Svac-Token": "wrong"}).status_code == 401


OTHER = "http://evil.example"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": OTHER}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[x"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:9090"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[x"}, 403),
        ({"Host": "127.0.0.1:9090"}, 200),
        ({"Host": "192.168.1.5"}, 200),
        ({"Host": "[::1]:9090"}, 200),
        ({"Host": "LOCALHOST:9090", "Origin": "http://localhost:9090"}, 200),
    ],
)
def test_pages_of_other_sites_change_nothing(
    client: FlaskClient, headers: dict[str, str], status: int
) -> None:
    """CSRF, and DNS rebinding: the page's own name leads to this machine."""
    assert client.post("/setup", json={"project": "38"}, headers=headers).status_code == status
    if "Origin" not in headers and "Sec-Fetch-Site" not in headers:
        assert client.get("/jobs", headers=headers).status_code == status


@pytest.mark.parametrize(("name", "status"), [("box", 200), ("box.example.org", 403)])
def test_the_machine_may_be_called_by_its_name_unless_a_page_can_have_it(
    make: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, name: str, status: int
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    client = make().test_client()
    assert client.get("/health", headers={"Host": f"{name}:9090"}).status_code == status


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_body_that_a_form_can_send_is_refused(client: FlaskClient, kind: str) -> None:
    body = b'{"action": "START_TRAINING", "project": {"id": 38}}'
    for path in ("/webhook", "/setup", "/predict", "/jobs/x/cancel"):
        answer = client.post(path, data=body, content_type=kind)
        assert answer.status_code == 415
        assert "Content-Type" in answer.get_json()["hint"]
    assert client.application.extensions["svac"].events.counts() == {}
    good = "application/json; charset=utf-8"
    assert client.post("/webhook", data=b'{"action": "X"}', content_type=good).status_code == 201


def test_names_can_be_added_and_a_password_makes_them_needless(make: Callable[..., Flask]) -> None:
    host = {"Host": "backend.internal:9090"}
    assert make().test_client().get("/health", headers=host).status_code == 403
    assert (
        make(allowed_hosts="a.b, Backend.internal").test_client().get("/health", headers=host).status_code
        == 200
    )
    assert make(allowed_hosts="*").test_client().get("/health", headers=host).status_code == 200
    shown = make(media_url="https://backend.internal").test_client()
    assert shown.get("/health", headers=host).status_code == 200
    guarded = make(**BASIC).test_client()
    assert guarded.get("/health", headers=host, auth=RIGHT).status_code == 200
    crossed = {**host, "Origin": OTHER}
    assert guarded.post("/setup", json={"project": "1"}, headers=crossed, auth=RIGHT).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "backend.internal"])
def test_without_a_password_only_this_machine_is_listened_to(settings: Settings, host: str) -> None:
    open_ = settings.model_copy(update={"host": host})
    with pytest.raises(SvacError, match="without a password") as caught:
        Gate(open_)
    assert "SVAC_ALLOW_OPEN" in caught.value.hint
    Gate(open_.model_copy(update=BASIC))
    Gate(open_.model_copy(update={"allow_open": True}))
    for loopback in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        Gate(settings.model_copy(update={"host": loopback}))


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


def test_a_caller_that_asks_too_often_waits_and_others_do_not(make: Callable[..., Flask]) -> None:
    client = make(rate_limit="5/minute").test_client()
    answers = [client.get("/health").status_code for _ in range(7)]
    assert answers == [200] * 5 + [429] * 2
    other = {"REMOTE_ADDR": "10.0.0.9"}
    assert client.get("/health", environ_base=other).status_code == 200
    unlimited = make(rate_limit="").test_client()
    assert {unlimited.get("/versions").status_code for _ in range(20)} == {200}


def test_passwords_are_not_guessed_by_trying(guarded: FlaskClient) -> None:
    answers = [guarded.get("/health", auth=("ls", f"guess {number}")).status_code for number in range(61)]
    assert answers == [401] * 60 + [429]
    assert guarded.get("/health", auth=RIGHT).status_code == 429
    assert guarded.get("/health", auth=RIGHT, environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 200


def test_a_rate_that_is_none_is_refused_at_the_start(settings: Settings) -> None:
    with pytest.raises(SvacError, match="not a rate"):
        create_app(settings.model_copy(update={"rate_limit": "often"}))
