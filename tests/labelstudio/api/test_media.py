"""Addresses of media: where they are read, and where the token goes."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.media import MediaFetcher
from svac_backend.labelstudio.api.places import Places
from svac_backend.settings import Settings


@pytest.fixture
def fetcher(server: Any, tmp_path: Path) -> MediaFetcher:
    root = tmp_path / "files"
    (root / "a b").mkdir(parents=True)
    (root / "a b" / "v.mp4").write_bytes(b"local")
    client = LabelStudioClient(server.url, "secret")
    return MediaFetcher(
        tmp_path / "cache",
        client,
        root,
        label_studio_hosts=["http://labels.example:8080/ls/"],
        places=Places(named=("*", "127.0.0.1")),
    )


def test_visible_files_are_read_in_place(server: Any, fetcher: MediaFetcher, tmp_path: Path) -> None:
    expected = tmp_path / "files" / "a b" / "v.mp4"
    for value in (
        "/data/local-files/?d=a%20b/v.mp4",
        "/data/local-files?d=a%20b%2Fv.mp4",
        f" {server.url}/data/local-files/?d=a%20b/v.mp4 ",
        "http://labels.example:8080/ls/data/local-files/?d=/a%20b/v.mp4",
        str(expected),
    ):
        assert fetcher.fetch(value) == expected
    assert server.requests == []


@pytest.mark.parametrize(
    "host", ["", "{server}", "http://labels.example:8080/ls", "HTTP://LABELS.example:8080/ls"]
)
def test_label_studios_media_are_asked_of_the_configured_address(
    server: Any, fetcher: MediaFetcher, host: str
) -> None:
    server.serve("/data/upload/1/x-v.MP4", b"uploaded")
    path = fetcher.fetch(host.format(server=server.url) + "/data/upload/1/x-v.MP4")
    assert (path.read_bytes(), path.suffix) == (b"uploaded", ".mp4")
    assert server.requests[0][1]["authorization"] == "Token secret"


@pytest.mark.parametrize(
    "name",
    [
        "Rec 3.05\u202fPM.mp4",
        "Sn\xedmek\xa0v 13.mp4",
        "\u52d5\u753b\u3000.mp4",
        "\U0001f468\u200d\U0001f469.mp4",
    ],
)
def test_names_with_any_space(server: Any, fetcher: MediaFetcher, tmp_path: Path, name: str) -> None:
    (tmp_path / "files" / name).write_bytes(b"local")
    assert fetcher.fetch(str(tmp_path / "files" / name)).read_bytes() == b"local"
    server.serve("/data/upload/1/" + quote(name), b"uploaded")
    assert fetcher.fetch("/data/upload/1/" + name).read_bytes() == b"uploaded"


def test_label_studio_below_a_path(server: Any, fetcher: MediaFetcher, tmp_path: Path) -> None:
    server.serve("/data/upload/1/v.mp4", b"uploaded")
    assert fetcher.fetch("/ls/data/upload/1/v.mp4").read_bytes() == b"uploaded"
    assert fetcher.fetch("/ls/data/local-files/?d=a%20b/v.mp4") == tmp_path / "files" / "a b" / "v.mp4"
    with pytest.raises(SvacError, match="neither a web address"):
        fetcher.fetch("/lsx/data/upload/1/v.mp4")
    with pytest.raises(SvacError, match="below the root"):
        fetcher.fetch("/ls/data/local-files/?d=../secret")


def test_local_file_that_is_not_visible_is_asked_for(
    server: Any, fetcher: MediaFetcher, tmp_path: Path
) -> None:
    server.serve("/data/local-files/", b"remote")
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"outside the root")
    (tmp_path / "files" / "link.mp4").symlink_to(outside)
    for name in ("missing.mp4", "link.mp4"):
        assert fetcher.fetch(f"/data/local-files/?d={name}").read_bytes() == b"remote"
    assert [path for path, _ in server.requests] == [
        "/data/local-files/?d=missing.mp4",
        "/data/local-files/?d=link.mp4",
    ]


def test_other_hosts_do_not_get_the_token(server: Any, other_server: Any, fetcher: MediaFetcher) -> None:
    other_server.serve("/data/upload/v.mp4", b"foreign")
    assert fetcher.fetch(f"{other_server.url}/data/upload/v.mp4?signature=x").read_bytes() == b"foreign"
    ((path, headers),) = other_server.requests
    assert path.endswith("?signature=x")
    assert "authorization" not in headers
    assert server.requests == []


@pytest.mark.parametrize("suffix", ["@evil.example", ".evil.example", "1"])
def test_addresses_that_begin_like_label_studio_are_foreign(
    server: Any, fetcher: MediaFetcher, suffix: str
) -> None:
    _, source = fetcher._source(f"{server.url}{suffix}/data/upload/v.mp4", None)
    assert not source.trusted


def test_cloud_addresses_are_resolved_for_their_task(
    server: Any, other_server: Any, fetcher: MediaFetcher
) -> None:
    server.redirect("/tasks/7/resolve/", f"{other_server.url}/bucket/v.mp4?X-Signature=s", status=303)
    other_server.serve("/bucket/v.mp4", b"cloud", ETag="1")
    path = fetcher.fetch("s3://bucket/v.mp4", task=7)
    assert (path.read_bytes(), path.suffix) == (b"cloud", ".mp4")
    encoded = server.requests[0][0].split("fileuri=")[1].replace("%3D", "=")
    assert base64.urlsafe_b64decode(encoded) == b"s3://bucket/v.mp4"
    assert server.requests[0][1]["authorization"] == "Token secret"
    assert "authorization" not in other_server.requests[0][1]
    # The signature changes with every call; the copy is still found.
    server.redirect("/tasks/7/resolve/", f"{other_server.url}/bucket/v.mp4?X-Signature=t", status=303)
    assert fetcher.fetch("s3://bucket/v.mp4", task=7) == path
    assert len(list(path.parent.glob("*.mp4"))) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "no media address"),
        (7, "no media address"),
        (" ", "no media address"),
        ("x" * 5000, "is not an address"),
        ("/data/upload/a\n.mp4", "is not an address"),
        ("http://[host/x.mp4", "is not an address"),
        ("http://host:port/x.mp4", "is not an address"),
        ("/etc/passwd", "neither a web address"),
        ("file:///etc/passwd", "neither a web address"),
        ("ftp://host/v.mp4", "neither a web address"),
        ("data:video/mp4;base64,AAAA", "neither a web address"),
        ("v.mp4", "neither a web address"),
        ("/" + "x" * 300, "cannot be read|neither a web address"),
        ("/data/local-files/?d=../../etc/passwd", "names no file below the root"),
        ("/data/local-files/?d=%2e%2e/x", "names no file below the root"),
        ("s3://bucket/v.mp4", "only be read through its task"),
        ("/data/upload/1/missing.mp4", "does not exist"),
    ],
)
def test_what_is_no_medium_is_refused(fetcher: MediaFetcher, value: Any, message: str) -> None:
    with pytest.raises(SvacError, match=message):
        fetcher.fetch(value)


def test_without_a_client_only_label_studios_own_media_are_missing(server: Any, tmp_path: Path) -> None:
    fetcher = MediaFetcher(tmp_path, None, places=Places(named=("127.0.0.1",)))
    with pytest.raises(SvacError, match="no token for it is set"):
        fetcher.fetch("/data/upload/1/v.mp4")
    server.serve("/v.mp4", b"foreign")
    assert fetcher.fetch(f"{server.url}/v.mp4").read_bytes() == b"foreign"


def test_settings_decide_cache_root_and_limit(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, label_studio_files_root=tmp_path / "files", max_video_mb=3)
    fetcher = MediaFetcher.from_settings(settings, None)
    assert (fetcher.cache_dir, fetcher.files_root) == (tmp_path / "media", tmp_path / "files")
    assert fetcher.max_bytes == 3 * 1024 * 1024


def test_no_message_tells_a_password_or_a_signature(
    fetcher: MediaFetcher, caplog: pytest.LogCaptureFixture
) -> None:
    for value in (
        "http://u:secret@127.0.0.1:1/v.mp4?sig=secret",
        "s3://u:secret@bucket/v.mp4?sig=secret",
        "ftp://u:secret@host/v.mp4?sig=secret",
        "/data/upload/1/missing.mp4?sig=secret",
    ):
        with pytest.raises(SvacError) as caught:
            fetcher.fetch(value)
        assert "secret" not in str(caught.value)
    assert "secret" not in caplog.text
