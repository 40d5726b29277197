"""Where media may come from: checked after the name was looked up and after each redirect, slow servers given up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from svac_backend.errors import JobCancelled, SvacError
from svac_backend.labelstudio.api import places as places_module
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.downloads import Download, Source
from svac_backend.labelstudio.api.media import MediaFetcher
from svac_backend.labelstudio.api.places import Pace, Places, Refused, TooSlow, origin
from svac_backend.settings import Settings

CONTENT = bytes(range(256)) * 40
HERE = Places(named=("127.0.0.1",))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "localhost",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fc00::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)
def test_private_addresses_are_refused_however_they_are_written(host: str) -> None:
    with pytest.raises(Refused, match="may not come from this host") as caught:
        Places().addresses(f"http://{host}/v.mp4")
    assert "SVAC_MEDIA_HOSTS" in caught.value.hint


def test_a_name_counts_as_what_it_leads_to() -> None:
    for found in (["10.0.0.1"], ["93.184.216.34", "127.0.0.1"]):
        with pytest.raises(Refused):
            Places(lookup=lambda *_, found=found: found).addresses("http://rebound.example/v.mp4")
    public = Places(lookup=lambda *_: ["93.184.216.34", "2606:2800:220:1::1"])
    assert len(public.addresses("https://videos.example/v.mp4")) == 2


@pytest.mark.parametrize(
    ("named", "url", "good"),
    [
        ("", "http://videos.example/", False),
        ("videos.example", "http://videos.example/", True),
        ("videos.example", "http://VIDEOS.example.:8080/", True),
        ("videos.example:8080", "http://videos.example/", False),
        ("videos.example:8080", "http://videos.example:8080/", True),
        ("*.example", "http://a.videos.example/", True),
        ("*.example", "http://evilexample/", False),
        ("videos.example", "http://videos.example.evil/", False),
    ],
)
def test_only_what_is_named(named: str, url: str, good: bool) -> None:
    places = Places(named=Places.of(named, []).named, lookup=lambda *_: ["93.184.216.34"])
    if good:
        assert places.addresses(url)
    else:
        with pytest.raises(Refused):
            places.addresses(url)


def test_private_hosts_must_be_named_in_full_and_label_studio_is_allowed() -> None:
    inside = {"lookup": lambda *_: ["10.0.0.7"]}
    assert Places(named=("minio.internal",), **inside).addresses("http://minio.internal:9000/b")
    with pytest.raises(Refused):
        Places(named=("*.internal",), **inside).addresses("http://minio.internal:9000/b")
    own = Places(own=(origin("http://ls.internal:8080"),), named=(), **inside)
    assert own.addresses("http://LS.internal:8080/data/upload/v.mp4") == ["10.0.0.7"]
    for other in ("http://ls.internal:8081/", "https://ls.internal:8080/"):
        with pytest.raises(Refused):
            own.addresses(other)


def test_buckets_are_named_too() -> None:
    Places().check_bucket("s3://any/v.mp4")
    named = Places(named=("s3://videos",))
    named.check_bucket("s3://videos/a/v.mp4")
    for other in ("s3://videos2/v.mp4", "gs://videos/v.mp4"):
        with pytest.raises(Refused):
            named.check_bucket(other)


def test_the_connection_goes_to_the_address_that_was_checked(server: Any, tmp_path: Path) -> None:
    """A name is looked up once: what it leads to a moment later does not count."""
    server.serve("/v.mp4", CONTENT)
    answers = [["127.0.0.1"], ["10.255.255.1"]]
    places = Places(named=("rebound.example",), lookup=lambda *_: answers.pop(0))
    port = server.url.rpartition(":")[2]
    Download(1 << 20, 5, places=places).to(
        tmp_path / "v", Source(f"http://rebound.example:{port}/v.mp4", "v")
    )
    assert (tmp_path / "v").read_bytes() == CONTENT
    assert len(answers) == 1


def test_each_redirect_is_checked(server: Any, other_server: Any, tmp_path: Path) -> None:
    other_server.serve("/secret", CONTENT)
    port = server.url.rpartition(":")[2]
    first = Places(named=("start.example",), lookup=lambda host, _: ["127.0.0.1"] if "." in host else [host])
    for target in (other_server.url + "/secret", "http://169.254.169.254/latest", "http://[::1]/"):
        server.redirect("/v.mp4", target)
        with pytest.raises(SvacError, match="may not come from this host"):
            Download(1 << 20, 5, tries=1, places=first).to(
                tmp_path / "v", Source(f"http://start.example:{port}/v.mp4", "v")
            )
    assert other_server.requests == []


def test_label_studios_redirect_into_the_private_network_is_refused(
    server: Any, other_server: Any, tmp_path: Path
) -> None:
    server.redirect("/data/upload/v.mp4", f"{other_server.url}/v.mp4")
    settings = Settings(_env_file=None, data_dir=tmp_path, label_studio_url=server.url)
    fetcher = MediaFetcher.from_settings(settings, LabelStudioClient(server.url, "secret"))
    with pytest.raises(SvacError, match="cannot be read from here"):
        fetcher.fetch("/data/upload/v.mp4")
    assert other_server.requests == []


def test_refused_forbidden_missing_and_dead_look_alike(
    server: Any, other_server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may add tasks and read jobs must not be able to look around in the network."""
    client = LabelStudioClient(server.url, "secret")
    settings = Settings(_env_file=None, data_dir=tmp_path, label_studio_url=server.url)
    strict = MediaFetcher.from_settings(settings, client)
    loose = MediaFetcher.from_settings(settings.model_copy(update={"media_hosts": "127.0.0.1"}), client)
    other_server.status("/403", 403)
    other_server.status("/404", 404)
    other_server.serve("/page", b"<html>", content_type="text/html")
    said = []
    for fetcher, url in (
        (strict, f"{other_server.url}/v"),
        (strict, "http://169.254.169.254/v"),
        (loose, f"{other_server.url}/403"),
        (loose, f"{other_server.url}/404"),
        (loose, f"{other_server.url}/page"),
        (loose, "http://127.0.0.1:1/v"),
    ):
        with pytest.raises(SvacError) as caught:
            fetcher.fetch(url, task=7)
        said.append(str(caught.value).replace(url, "URL"))
        assert caught.value.__cause__ is None
        assert caught.value.temporary  # it may be away, and nobody learns whether
    assert len(set(said)) == 1
    for detail in ("(403)", "(404)", "web page", "could not be downloaded", "SVAC_MEDIA_HOSTS"):
        assert detail in caplog.text


@contextmanager
def dripping(before: bytes, drop: bytes, pause: float) -> Iterator[str]:
    """A server that sends something, and then a drop now and then."""
    stop = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                with closing(connection):
                    try:
                        connection.recv(4096)
                        connection.sendall(before)
                        while not stop.wait(pause):
                            connection.sendall(drop)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()
    thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


@pytest.mark.parametrize(
    ("before", "drop", "pause"),
    [(HEAD, b"x", 0.1), (HEAD, b"x", 60), (b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.1), (b"", b"", 60)],
)
def test_a_download_is_cancelled_within_two_seconds(
    tmp_path: Path, before: bytes, drop: bytes, pause: float
) -> None:
    begun = time.monotonic()

    def check() -> None:
        if time.monotonic() - begun > 0.5:
            raise JobCancelled

    with dripping(before, drop, pause) as url, pytest.raises(JobCancelled):
        Download(1 << 20, 30, places=HERE, check=check).to(tmp_path / "v", Source(f"{url}/v", "v"))
    assert time.monotonic() - begun < 2.5
    assert not list(tmp_path.iterdir())


def test_the_pause_before_another_try_is_cancelled_too(tmp_path: Path) -> None:
    begun = time.monotonic()

    def check() -> None:
        if time.monotonic() - begun > 0.3:
            raise JobCancelled

    how = Download(1 << 20, 30, retry_delay=60, places=HERE, check=check)
    with pytest.raises(JobCancelled):
        how.to(tmp_path / "v", Source("http://127.0.0.1:1/v", "v"))
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("options", "said", "temporary"),
    [
        ({"least_bps": 1000.0}, "KB/s only", True),  # its server may only be busy now
        ({"deadline_s": 0.5, "least_bps": 0.0}, "took more than", False),
    ],
)
def test_a_byte_now_and_then_is_no_download(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, float],
    said: str,
    temporary: bool,
) -> None:
    monkeypatch.setattr(places_module, "WINDOW_S", 0.6)
    begun = time.monotonic()
    with dripping(HEAD, b"x", 0.05) as url, pytest.raises(SvacError, match=said) as raised:
        Download(1 << 20, 30, places=HERE, **options).to(
            tmp_path / "v", Source(f"{url}/v", "v", trusted=True)
        )
    assert raised.value.temporary == temporary
    assert time.monotonic() - begun < 5


def test_pace() -> None:
    now = [0.0]
    pace = Pace(100, 10, clock=lambda: now[0])
    for second in range(0, 60, 10):
        now[0] = float(second)
        pace.look(120)
    now[0] = 95.0
    with pytest.raises(TooSlow, match="KB/s"):
        pace.look()
    now[0] = 101.0
    with pytest.raises(TooSlow, match="more than 100 s"):
        pace.look(10**9)


def test_a_proxy_of_the_environment_is_used_and_private_addresses_refused(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.serve("http://videos.example/v.mp4", CONTENT)
    Download(1 << 20, 5, places=Places(lookup=lambda *_: ["93.184.216.34"])).to(
        tmp_path / "v", Source("http://videos.example/v.mp4", "v")
    )
    assert (tmp_path / "v").read_bytes() == CONTENT
    with pytest.raises(SvacError, match="may not come from this host"):
        Download(1 << 20, 5, tries=1).to(tmp_path / "w", Source("http://10.0.0.1/v.mp4", "v"))
