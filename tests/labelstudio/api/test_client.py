"""The client's failures, and that its token stays at home. What it does is tested against a real Label Studio."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.connection import token_kind
from svac_backend.labelstudio.api.errors import ApiRefusal, refusal
from svac_backend.settings import Settings

LEGACY = "0123456789abcdef" * 2 + "01234567"


def personal(expires_in: float = 3600, kind: str = "refresh") -> str:
    return jwt.encode({"token_type": kind, "exp": time.time() + expires_in}, "k" * 32, algorithm="HS256")


def json_answer(status: int, body: Any) -> Callable[[Any], None]:
    def answer(request: Any) -> None:
        content = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.send_header("Set-Cookie", "sessionid=cookie-secret; Path=/")
        request.end_headers()
        request.wfile.write(content)

    return answer


def test_kinds_of_token() -> None:
    assert token_kind(LEGACY) == "legacy"
    assert token_kind(personal()) == "personal"
    for wrong in ("", "two words", "x" * 41, "ä" * 10):
        with pytest.raises(SvacError, match="neither a personal access token nor a legacy token") as caught:
            token_kind(wrong)
        assert not wrong or wrong not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://host", "http://", "/path", "http://[broken", "http://host:abc"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(SvacError, match="is not the address of a Label Studio"):
        LabelStudioClient(url, LEGACY)


def test_no_token_is_set() -> None:
    with pytest.raises(SvacError, match="No Label Studio token is set"):
        LabelStudioClient.from_settings(Settings(label_studio_api_key=None, _env_file=None))


def test_expired_personal_token_is_said_at_once() -> None:
    with pytest.raises(SvacError, match=r"does not accept the personal access token .*expired"):
        LabelStudioClient("http://127.0.0.1:1", personal(expires_in=-5))


def test_nobody_there() -> None:
    client = LabelStudioClient("http://127.0.0.1:1/", LEGACY)
    with pytest.raises(SvacError, match=r"at http://127\.0\.0\.1:1 cannot be reached") as caught:
        client.create_task(1, {})
    assert "SVAC_LABEL_STUDIO_URL" in caught.value.hint


def test_somebody_who_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = LabelStudioClient(f"http://127.0.0.1:{silent.getsockname()[1]}", LEGACY, timeout=0.2)
        with pytest.raises(SvacError, match=r"did not answer within 0\.2 s \(tried to read project 1\)"):
            client.get_project(1)


def test_somebody_else(server: Any) -> None:
    server.answers["/api/version/"] = json_answer(200, {"name": "another service"})
    server.serve("/api/projects/1/", b"<html>Welcome</html>", content_type="text/html")
    client = LabelStudioClient(server.url, LEGACY)
    for call in (client.version, lambda: client.get_project(1), lambda: client.get_project(2)):
        with pytest.raises(SvacError, match="is not Label Studio"):
            call()


def test_redirects_are_not_followed(server: Any, other_server: Any) -> None:
    server.redirect("/api/projects/1/", f"{other_server.url}/api/projects/1/", status=307)
    with pytest.raises(ApiRefusal, match=f"redirects to {other_server.url}") as caught:
        LabelStudioClient(server.url, LEGACY).get_project(1)
    assert "final address" in caught.value.hint
    assert other_server.requests == []


def test_path_of_the_address_and_kind_of_token_are_kept(server: Any) -> None:
    access = personal(300, "access")
    asked = []

    def refresh(request: Any) -> None:
        asked.append(json.loads(request.rfile.read(int(request.headers["Content-Length"]))))
        json_answer(200, {"access": access})(request)

    server.answers["/ls/api/token/refresh/"] = refresh
    server.answers["/ls/api/projects/1/"] = json_answer(200, {"id": 1})
    token = personal()
    client = LabelStudioClient(f"{server.url}/ls/", token)
    assert client.get_project(1)["id"] == 1
    assert client.get_project(1)["id"] == 1
    assert asked == [{"refresh": token}]
    sent = [(path, headers.get("authorization"), headers.get("cookie")) for path, headers in server.requests]
    assert sent[1:] == [("/ls/api/projects/1/", f"Bearer {access}", None)] * 2


def test_neither_token_nor_cookie_is_logged_or_shown(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.answers["/api/projects/1/"] = json_answer(401, {"detail": "Invalid token."})
    client = LabelStudioClient(server.url, LEGACY)
    with pytest.raises(ApiRefusal) as caught:
        client.get_project(1)
    seen = caplog.text + repr(caught.getrepr(chain=True)) + str(caught.getrepr(chain=True)) + repr(client)
    for secret in (LEGACY, "cookie-secret"):
        assert secret not in seen


@pytest.mark.parametrize(
    ("status", "body", "message", "hint"),
    [
        (401, {"detail": "Invalid token."}, r"legacy token \(401: Invalid token\)", "off by default"),
        (403, {"detail": "No."}, r"may not do it \(403: No\)", "member"),
        (404, {"detail": "x"}, "could not do it: it does not exist", "number"),
        (413, "<html>nginx</html>", "too large", "polygons"),
        (
            403,
            {"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"},
            "local or private network",
            "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false",
        ),
        (
            400,
            {"validation_errors": {"url": ["The provided URL was not allowed. URLs must use http://"]}},
            "local or private network",
            "ML_BLOCK_LOCAL_IP",
        ),
        (
            400,
            {
                "detail": "Validation error",
                "validation_errors": {"title": ["Too short."], "non_field_errors": ["<b>X</b>"]},
            },
            r"refused to do it \(400: title: Too short\. X\)",
            "Correct",
        ),
        (500, "<html>Server Error</html>", r"failed to do it \(500\)", "log"),
        (502, "x" * 1000, r"\(502: x{300}\.\.\.\)", "log"),
        (302, {}, "redirects to another page", "final address"),
        (404, {"error": "Not Found.", "hint": "as our own backend says it"}, "is not Label Studio", "URL"),
    ],
)
def test_refusals_in_words(status: int, body: Any, message: str, hint: str) -> None:
    error = refusal(status, body, "http://ls", "do it", "legacy")
    assert error.status == status
    with pytest.raises(ApiRefusal, match=message):
        raise error
    assert hint in error.hint


def test_backend_that_was_refused_halfway_is_taken_away(server: Any) -> None:
    backends: list[dict[str, Any]] = []
    deleted = []
    refused = {"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}

    def answer(request: Any) -> None:
        if request.command == "GET":
            json_answer(200, backends)(request)
            return
        request.rfile.read(int(request.headers["Content-Length"]))
        backends.append({"id": 5, "url": "http://10.0.0.1:9090/"})
        json_answer(403, refused)(request)

    def delete(request: Any) -> None:
        deleted.append(request.command)
        request.send_response(204)
        request.end_headers()

    server.answers["/api/ml/"] = answer
    server.answers["/api/ml/5/"] = server.answers["/api/ml/5"] = delete
    with pytest.raises(ApiRefusal, match="local or private network"):
        LabelStudioClient(server.url, LEGACY).connect_ml_backend(1, "http://10.0.0.1:9090")
    assert deleted == ["DELETE"]


def test_the_whole_part_is_free_of_torch() -> None:
    code = (
        "import sys, svac_backend.labelstudio.local, svac_backend.labelstudio.api.media, "
        "svac_backend.labelstudio.regions.written; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("status", "temporary"), [(401, True), (403, True), (404, False), (400, False), (429, True), (502, True)]
)
def test_what_label_studio_may_answer_otherwise_later(server: Any, status: int, temporary: bool) -> None:
    server.answers["/api/projects/1/"] = json_answer(status, {"detail": "No."})
    with pytest.raises(ApiRefusal) as caught:
        LabelStudioClient(server.url, LEGACY).get_project(1)
    assert caught.value.temporary is temporary
    assert caught.value.hint
