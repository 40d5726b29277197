"""The doctor's look at the frames that the backend serves itself: as it should be, and broken in every way it names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from svac_backend.cli.doctor.finding import Finding, Status
from svac_backend.cli.doctor.label_studio import check_media
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.links import MediaLinks

Serve = Callable[[Any], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves WSGI apps on free ports, and returns their addresses."""
    servers = []

    def start(app: Any) -> str:
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def look(settings: Settings, database: Database | None = None, **changes: Any) -> Finding:
    (found,) = check_media(settings.model_copy(update=changes), database)
    assert found.status is Status.OK or found.fix
    return found


def test_nothing_is_looked_at_where_it_is_not_used(settings: Settings) -> None:
    assert list(check_media(settings, None)) == []
    found = look(settings, frames_via="backend")
    assert found.status is Status.FAILURE
    assert "SVAC_MEDIA_URL is not set" in found.detail


def test_frames_reach_label_studios_pages(settings: Settings, serve: Serve) -> None:
    known = settings.model_copy(update={"label_studio_url": "http://localhost:8080/"})
    url = serve(create_app(known))
    found = look(known, media_url=url)
    assert found.status is Status.OK
    assert found.detail == f"{url} gives frames to pages of http://localhost:8080; a link lives 30 days"
    assert list(MediaLinks.from_settings(settings).root.iterdir()) == [], "nothing is left behind"


def test_pages_of_another_label_studio_may_not_read_them(settings: Settings, serve: Serve) -> None:
    url = serve(create_app(settings.model_copy(update={"media_origins": "https://labels.example"})))
    found = look(settings, media_url=url, label_studio_url="http://localhost:8080")
    assert found.status is Status.FAILURE
    assert "pages of http://localhost:8080 may not read them" in found.detail
    assert "SVAC_MEDIA_ORIGINS" in found.fix


def test_what_label_studio_calls_itself_is_the_page(settings: Settings, serve: Serve) -> None:
    database = Database.from_settings(settings)
    ConnectionStore(database).put("38", "http://labels.example:8080/", "", "")
    url = serve(create_app(settings))
    found = look(settings, database, media_url=url)
    assert found.status is Status.WARNING
    assert "only browsers on this machine" in found.detail
    ConnectionStore(database).put("38", "https://labels.example", "", "")
    mixed = look(settings, database, media_url="http://masks.example:9090")
    assert mixed.status is Status.FAILURE
    assert "behind https" in mixed.fix
    database.close()


def test_a_web_process_with_other_data(settings: Settings, serve: Serve, tmp_path: Path) -> None:
    url = serve(create_app(settings.model_copy(update={"data_dir": tmp_path / "other"})))
    found = look(settings, media_url=url)
    assert found.status is Status.FAILURE
    assert "SVAC_DATA_DIR" in found.fix


def test_another_server_and_none(settings: Settings, serve: Serve) -> None:
    for app in (
        Response("hello"),
        Response("hello", status=404),
        Response(status=302, headers={"Location": "/x"}),
    ):
        found = look(settings, media_url=serve(app))
        assert found.status is Status.FAILURE
        assert "is not a frame" in found.detail
        assert "must pass /media on" in found.fix
    assert look(settings, media_url="http://127.0.0.1:9").status is Status.FAILURE
    container = look(settings, media_url="http://127.0.0.1:9", host="0.0.0.0")
    assert container.status is Status.WARNING
    assert "in a browser" in container.fix


def test_a_damaged_key_is_said(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "media.key").write_text("x")
    assert "is not a key" in look(settings, media_url="http://127.0.0.1:9").detail
