"""A real S3 server on this machine, and a proxy before it that breaks what passes."""

from __future__ import annotations

import http.client
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from svac_backend.storage import bucket, published

KEY, SECRET = "AKIAQQQQQQQQQQQQTEST", "never-to-be-seen-secret-0123456789"
NAME = "masks"


class FaultyProxy:
    """Passes requests on to an S3 server; `fault`, called with (method, path), may name what goes wrong with one.

    `503`, `403`: answered so; `cut`: half of the body comes, then the connection ends; `lost`: it ends at once;
    `flip`: a byte of the body is another; `slow`: it comes late; None: nothing is wrong.
    """

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        path = call.path.split("?")[0]
        self.seen.append((call.command, path))
        fault = self.fault(call.command, path)
        body = call.rfile.read(int(call.headers.get("Content-Length") or 0))
        if fault == "lost":
            call.close_connection = True
            return
        if fault == "slow":
            time.sleep(0.5)
        if fault in ("503", "403"):
            code = "ServiceUnavailable" if fault == "503" else "AccessDenied"
            text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self._send(call, int(fault), [("Content-Type", "application/xml")], text)
            return
        onward = http.client.HTTPConnection(self.target)
        onward.request(call.command, call.path, body or None, dict(call.headers))
        found = onward.getresponse()
        text = found.read()
        headers = [
            one for one in found.getheaders() if one[0].lower() not in ("connection", "content-length")
        ]
        if fault == "flip" and text:
            text = bytes([text[0] ^ 1]) + text[1:]
            headers = [one for one in headers if "checksum" not in one[0].lower()]
        length = found.getheader("Content-Length") if call.command == "HEAD" else None
        self._send(call, found.status, headers, text, length=length, cut=fault == "cut")
        onward.close()

    def _send(
        self,
        call: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        text: bytes,
        *,
        length: str | None = None,
        cut: bool = False,
    ) -> None:
        call.send_response_only(status)
        for name, value in headers:
            call.send_header(name, value)
        call.send_header("Content-Length", length or str(len(text)))
        call.end_headers()
        if call.command != "HEAD":
            call.wfile.write(text[: len(text) // 2] if cut else text)
        if cut:
            call.close_connection = True

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class VideoHost:
    """A host of one video, which knows it by an ETag."""

    def __init__(self, content: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("ETag", '"one"')
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with suppress(OSError):  # who has it already does not read on
                    self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v.mp4"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server; without a bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """An S3 server with the empty bucket `masks`, and the credentials for it in the environment."""
    proxy = FaultyProxy(s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    http.client.HTTPConnection(urlsplit(s3_server).netloc).request("POST", "/moto-api/reset")
    forget()
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(NAME)
    yield proxy
    proxy.stop()
    forget()


def forget() -> None:
    """Have the next storage of this process begin anew, with the environment as it is."""
    published._opened.clear()
    bucket._filesystem.cache_clear()
