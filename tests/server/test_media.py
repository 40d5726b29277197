"""GET /media: signed, expiring, readable by Label Studio's pages, and nothing but the files that are served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from svac_backend.jobs.services import Services
from svac_backend.store.links import DAY_S, MediaLinks

LABEL_STUDIO = "http://localhost:8080"
JPEG = b"\xff\xd8" + bytes(range(256)) * 4 + b"\xff\xd9"


@pytest.fixture
def links(backend: Services) -> MediaLinks:
    return MediaLinks.from_settings(backend.settings)


@pytest.fixture
def frame(links: MediaLinks) -> Path:
    path = links.root / "project-38" / "task-7" / "00003.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(JPEG)
    (path.parent / "manifest.json").write_text("{}")
    return path


def get(client: FlaskClient, url: str, origin: str | None = LABEL_STUDIO, **headers: str) -> TestResponse:
    parts = urlsplit(url)
    own = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(
        f"{parts.path}?{parts.query}", headers=own | ({} if origin is None else {"Origin": origin})
    )


def test_a_signed_link_gives_the_frame(client: FlaskClient, links: MediaLinks, frame: Path) -> None:
    answer = get(client, links.url(frame))
    assert (answer.status_code, answer.data, answer.mimetype) == (200, JPEG, "image/jpeg")
    assert answer.headers["Access-Control-Allow-Origin"] == LABEL_STUDIO
    assert answer.headers["Vary"] == "Origin"
    assert answer.headers["Cache-Control"] == "private, max-age=3600"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    again = get(client, links.url(frame), If_None_Match=answer.headers["ETag"])
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Access-Control-Allow-Origin"] == LABEL_STUDIO
    head = client.head(urlsplit(links.url(frame)).path + "?" + urlsplit(links.url(frame)).query)
    assert (head.status_code, head.content_length, head.data) == (200, len(JPEG), b"")


@pytest.mark.parametrize(
    ("asked", "status", "part", "told"),
    [
        ("bytes=0-9", 206, slice(0, 10), "bytes 0-9/1028"),
        ("bytes=1000-", 206, slice(1000, None), "bytes 1000-1027/1028"),
        ("bytes=-28", 206, slice(-28, None), "bytes 1000-1027/1028"),
        ("bytes=9999-", 416, None, "bytes */1028"),
    ],
)
def test_ranges(
    client: FlaskClient,
    links: MediaLinks,
    frame: Path,
    asked: str,
    status: int,
    part: slice | None,
    told: str,
) -> None:
    answer = get(client, links.url(frame), Range=asked)
    assert (answer.status_code, answer.headers["Content-Range"]) == (status, told)
    if part is not None:
        assert answer.data == JPEG[part]
        assert "Content-Range" in answer.headers["Access-Control-Expose-Headers"]


def test_links_that_are_refused(client: FlaskClient, links: MediaLinks, frame: Path) -> None:
    good = links.url(frame)
    other = links.url(frame.with_name("00004.jpg"))
    token = other.partition("?")[2]
    for url in (
        good.partition("?")[0],
        good + "x",
        f"{good.partition('?')[0]}?{token}",
        good.replace("00003", "../task-7/00003"),
        "/media/../svac.db?signature=x.y",
        "/media/%2e%2e/svac.db?signature=x.y",
        "/media/project-38/task-7/manifest.json?" + token,
    ):
        answer = get(client, url)
        assert answer.status_code == 403, url
        assert answer.get_json()["error"] == "This link is not valid."
        assert answer.headers["Access-Control-Allow-Origin"] == LABEL_STUDIO, "the page may read why"
    assert client.get("/media/").status_code == 404, "there is no list"
    assert client.get("/media/project-38/task-7/").status_code == 403
    late = replace(links, clock=lambda: links.clock() - 31 * DAY_S)
    expired = get(client, late.url(frame))
    assert (expired.status_code, expired.get_json()["error"]) == (403, "This link has expired.")


def test_the_browsers_copy_does_not_outlive_the_link(
    client: FlaskClient, links: MediaLinks, frame: Path
) -> None:
    nearly = replace(links, clock=lambda: links.clock() - 30 * DAY_S + 100)
    age = get(client, nearly.url(frame)).cache_control.max_age
    assert age is not None
    assert 90 <= age <= 100


@pytest.mark.parametrize("name", ["00009.jpg", "manifest.json", "../../../svac.db", "folder.jpg"])
def test_a_signed_name_that_is_no_medium(
    client: FlaskClient, links: MediaLinks, frame: Path, name: str
) -> None:
    (frame.parent / "folder.jpg").mkdir()
    answer = get(client, links.url(frame.parent / name))
    assert answer.status_code == 404
    assert answer.get_json()["error"] == "This frame is gone."


@pytest.mark.parametrize(
    ("told", "origin", "allowed"),
    [
        ("", "http://localhost:8080", True),
        ("", "http://127.0.0.1:8080", True),
        ("", "http://localhost:8081", False),
        ("", "https://localhost:8080", False),
        ("", "https://labels.example", True),  # by /setup
        ("", "https://labels.example.evil", False),
        ("", "null", False),
        ("", "http://[", False),
        ("https://a.example, https://b.example:444/", "https://a.example", True),
        ("https://a.example, https://b.example:444/", "https://b.example:444", True),
        ("https://a.example, https://b.example:444/", "http://localhost:8080", False),
        ("https://a.example, https://b.example:444/", "https://labels.example", False),
        ("*", "https://any.example", True),
    ],
)
def test_whose_pages_may_read(
    make: Callable[..., Flask], told: str, origin: str, allowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(media_origins=told)
    backend: Services = app.extensions["svac"]
    backend.connections.put("38", "https://labels.example:443/", "", "")
    links = MediaLinks.from_settings(backend.settings)
    links.root.mkdir()
    (links.root / "a.png").write_bytes(b"png")
    client = app.test_client()
    for _ in range(2):
        answer = get(client, links.url(links.root / "a.png"), origin)
        assert (answer.status_code, answer.mimetype) == (200, "image/png")
        found = answer.headers.get("Access-Control-Allow-Origin")
        assert found == ((origin if told != "*" else "*") if allowed else None)
    assert caplog.text.count("SVAC_MEDIA_ORIGINS") == (0 if allowed else 1), "told once"


def test_a_label_studio_that_connects_later_may_read_soon(
    client: FlaskClient, backend: Services, links: MediaLinks, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = "https://new.example"
    assert "Access-Control-Allow-Origin" not in get(client, links.url(frame), origin).headers
    backend.connections.put("39", origin, "", "")
    monkeypatch.setattr("svac_backend.server.media.REFRESH_S", 0.0)
    assert get(client, links.url(frame), origin).headers["Access-Control-Allow-Origin"] == origin


def test_the_question_before_a_request_is_answered(
    client: FlaskClient, links: MediaLinks, frame: Path
) -> None:
    answer = client.options(urlsplit(links.url(frame)).path, headers={"Origin": LABEL_STUDIO})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == LABEL_STUDIO
    assert answer.headers["Access-Control-Allow-Headers"] == "Range"


def test_without_a_password_although_the_backend_has_one(make: Callable[..., Flask]) -> None:
    """Browsers send none for the pictures of a page from elsewhere; the link is what counts."""
    from pydantic import SecretStr

    app = make(basic_auth_user="me", basic_auth_password=SecretStr("a password"))
    links = MediaLinks.from_settings(app.extensions["svac"].settings)
    links.root.mkdir()
    (links.root / "clip.mp4").write_bytes(b"video")
    assert app.test_client().get("/jobs").status_code == 401
    answer = get(app.test_client(), links.url(links.root / "clip.mp4"))
    assert (answer.status_code, answer.mimetype) == (200, "video/mp4")
