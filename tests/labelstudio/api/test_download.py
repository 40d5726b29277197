"""Downloads: complete or not there, and the token nowhere but at home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.downloads import Download, Source
from svac_backend.labelstudio.api.places import Places

CONTENT = bytes(range(256)) * 40
TOKEN = {"Authorization": "Token secret"}


def download(**options: Any) -> Download:
    settings: dict[str, Any] = {
        "max_bytes": 1 << 20,
        "timeout": 5,
        "retry_delay": 0.01,
        "places": Places(named=("127.0.0.1",)),
    }
    return Download(**{**settings, "authorization": lambda: TOKEN, **options})


def fetch(server: Any, tmp_path: Path, path: str = "/a.mp4", **options: Any) -> bytes:
    target = tmp_path / "cache" / "a.mp4"
    try:
        download(**options).to(target, Source(server.url + path, path, trusted=True))
    finally:
        assert not list(target.parent.glob("partial-*"))
    return target.read_bytes()


def test_file_arrives_and_is_asked_for_with_the_token(server: Any, tmp_path: Path) -> None:
    server.serve("/a.mp4", CONTENT)
    assert fetch(server, tmp_path) == CONTENT
    ((_, headers),) = server.requests
    assert headers["authorization"] == "Token secret"
    assert headers["range"] == "bytes=0-"


def test_server_without_ranges_and_sizes(server: Any, tmp_path: Path) -> None:
    def answer(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(CONTENT)

    server.answers["/a.mp4"] = answer
    assert fetch(server, tmp_path) == CONTENT


def test_broken_transfer_goes_on_where_it_stopped(server: Any, tmp_path: Path) -> None:
    cuts = [100, 5000, None]
    server.answers["/a.mp4"] = lambda request: server.send(request, CONTENT, cut=cuts.pop(0))
    assert fetch(server, tmp_path) == CONTENT
    assert [headers["range"] for _, headers in server.requests] == ["bytes=0-", "bytes=100-", "bytes=5100-"]


def test_broken_transfer_from_a_server_without_ranges_begins_anew(server: Any, tmp_path: Path) -> None:
    cuts = [100, None]
    server.answers["/a.mp4"] = lambda request: server.send(request, CONTENT, ranges=False, cut=cuts.pop(0))
    assert fetch(server, tmp_path) == CONTENT


def test_server_that_sends_parts(server: Any, tmp_path: Path) -> None:
    content, part = CONTENT * 20, 70_000

    def answer(request: Any) -> None:
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        body = content[start : start + part]
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    server.answers["/a.mp4"] = answer
    assert fetch(server, tmp_path, tries=1) == content
    part = 10
    with pytest.raises(SvacError, match=f"10 of {len(content)} bytes came"):
        fetch(server, tmp_path, tries=1)


def test_file_that_changes_on_the_way_is_not_mixed(server: Any, tmp_path: Path) -> None:
    versions = [(b"x" * len(CONTENT), "1", 100), (CONTENT, "2", None), (CONTENT, "2", None)]

    def answer(request: Any) -> None:
        content, etag, cut = versions.pop(0)
        server.send(request, content, headers={"ETag": etag}, cut=cut)

    server.answers["/a.mp4"] = answer
    assert fetch(server, tmp_path) == CONTENT


def test_busy_server_is_asked_again(server: Any, tmp_path: Path) -> None:
    server.status("/a.mp4", 503, 429, 500, then=lambda request: server.send(request, CONTENT))
    assert fetch(server, tmp_path) == CONTENT
    assert len(server.requests) == 4


def test_patience_ends(server: Any, tmp_path: Path) -> None:
    server.status("/a.mp4", 503)
    with pytest.raises(SvacError, match=r"could not be downloaded \(status 503\)"):
        fetch(server, tmp_path)
    assert len(server.requests) == 4


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="could not be downloaded"):
        download(tries=2).to(tmp_path / "a", Source("http://127.0.0.1:1/a.mp4", "a.mp4"))


@pytest.mark.parametrize(
    ("code", "message", "temporary"),
    [
        (401, "may not be read", True),
        (403, "may not be read", True),
        (404, "does not exist", False),
        (400, "was refused", False),
    ],
)
def test_refusals_end_the_download_and_a_barred_job_waits(
    server: Any, tmp_path: Path, code: int, message: str, temporary: bool
) -> None:
    """Label Studio behind a proxy that restarts, or with a token that has just expired, answers 401 or 403."""
    server.status("/a.mp4", code)
    with pytest.raises(SvacError, match=message) as caught:
        download().to(tmp_path / "a.mp4", Source(f"{server.url}/a.mp4", "a.mp4", trusted=True))
    assert caught.value.temporary is temporary
    assert len(server.requests) == 1
    with pytest.raises(SvacError, match=message) as caught:
        # Of another server: its answers look alike to whoever may read jobs.
        download().to(tmp_path / "b.mp4", Source(f"{server.url}/a.mp4", "a.mp4"))
    assert not caught.value.temporary


def test_empty_files_web_pages_and_large_files_are_refused(server: Any, tmp_path: Path) -> None:
    server.serve("/a.mp4", b"")
    with pytest.raises(SvacError, match="is empty"):
        fetch(server, tmp_path)
    server.serve("/a.mp4", b"<html>Log in</html>", content_type="text/html; charset=utf-8")
    with pytest.raises(SvacError, match="web page"):
        fetch(server, tmp_path)
    server.serve("/a.mp4", CONTENT)
    with pytest.raises(SvacError, match="more than"):
        fetch(server, tmp_path, max_bytes=1000)
    assert not list((tmp_path / "cache").iterdir())


def test_size_limit_holds_when_no_size_is_told(server: Any, tmp_path: Path) -> None:
    def answer(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(CONTENT)

    server.answers["/a.mp4"] = answer
    with pytest.raises(SvacError, match="more than"):
        fetch(server, tmp_path, max_bytes=1000)


def test_same_file_is_not_transferred_twice(server: Any, tmp_path: Path) -> None:
    server.serve("/a.mp4", CONTENT, ETag='W/"1"')
    assert fetch(server, tmp_path) == CONTENT
    modified = (tmp_path / "cache" / "a.mp4").stat().st_mtime_ns
    assert fetch(server, tmp_path) == CONTENT
    assert (tmp_path / "cache" / "a.mp4").stat().st_mtime_ns == modified
    server.serve("/a.mp4", CONTENT[::-1], ETag='W/"2"')
    assert fetch(server, tmp_path) == CONTENT[::-1]


def test_damaged_copy_is_replaced(server: Any, tmp_path: Path) -> None:
    server.serve("/a.mp4", CONTENT, ETag='W/"1"')
    fetch(server, tmp_path)
    (tmp_path / "cache" / "a.mp4").write_bytes(b"short")
    assert fetch(server, tmp_path) == CONTENT


def test_without_a_validator_only_an_immutable_file_is_kept(server: Any, tmp_path: Path) -> None:
    target = tmp_path / "a"
    for immutable, expected in ((False, CONTENT[::-1]), (True, CONTENT)):
        source = Source(f"{server.url}/a.mp4", "a", immutable=immutable)
        server.serve("/a.mp4", CONTENT)
        download().to(target, source)
        server.serve("/a.mp4", CONTENT[::-1])
        download().to(target, source)
        assert target.read_bytes() == expected
        target.unlink()


def test_token_stays_at_home_across_redirects(server: Any, other_server: Any, tmp_path: Path) -> None:
    # Out to another host, back, and to the file: the token is sent on the first step only.
    server.redirect("/a.mp4", f"{other_server.url}/away")
    other_server.redirect("/away", f"{server.url}/back")
    server.serve("/back", CONTENT)
    assert fetch(server, tmp_path) == CONTENT
    sent = [(path, headers.get("authorization"), headers.get("cookie")) for path, headers in server.requests]
    assert sent == [("/a.mp4", "Token secret", None), ("/back", None, None)]
    assert "authorization" not in other_server.requests[0][1]
    assert "cookie" not in other_server.requests[0][1]


def test_redirect_within_label_studio_keeps_the_token(server: Any, tmp_path: Path) -> None:
    server.redirect("/a.mp4", "/b.mp4", status=307)
    server.serve("/b.mp4", CONTENT)
    assert fetch(server, tmp_path) == CONTENT
    assert server.requests[1][1]["authorization"] == "Token secret"


def test_foreign_addresses_never_get_the_token(server: Any, tmp_path: Path) -> None:
    server.serve("/a.mp4", CONTENT)
    download().to(tmp_path / "a", Source(f"{server.url}/a.mp4", "a"))
    assert "authorization" not in server.requests[0][1]


@pytest.mark.parametrize(
    ("target", "message"), [("file:///etc/passwd", "not http"), ("/a.mp4", "without an end")]
)
def test_bad_redirects(server: Any, tmp_path: Path, target: str, message: str) -> None:
    server.redirect("/a.mp4", target)
    with pytest.raises(SvacError, match=message):
        fetch(server, tmp_path)


def test_folder_that_cannot_be_written(server: Any, tmp_path: Path) -> None:
    server.serve("/a.mp4", CONTENT)
    (tmp_path / "file").write_text("")
    with pytest.raises(SvacError, match="could not be written"):
        download().to(tmp_path / "file" / "a.mp4", Source(f"{server.url}/a.mp4", "a"))


def test_a_full_disk_is_something_that_time_mends(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    server.serve("/a.mp4", CONTENT)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SvacError, match="could not be written") as caught:
        download().to(tmp_path / "a.mp4", Source(f"{server.url}/a.mp4", "a"))
    assert caught.value.temporary
    assert "Make room" in caught.value.hint
