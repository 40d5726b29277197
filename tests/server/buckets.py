"""A stand-in for S3: enough for Label Studio's storage, which checks a bucket, signs links and reads from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

BUCKET = "bucket"


class Bucket(ThreadingHTTPServer):
    """Serves `objects` (key -> content) below /bucket/.

    Attributes:
        requests: (path and query, headers in lower case) of each GET of an object.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Routes)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []


class _Routes(BaseHTTPRequestHandler):
    server: Bucket

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        content = self.server.objects.get(url.path.removeprefix(f"/{BUCKET}/"))
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        self.server.requests.append(
            (self.path, {name.lower(): value for name, value in self.headers.items()})
        )
        signed = "X-Amz-Signature" in parse_qs(url.query) or "Signature" in parse_qs(url.query)
        if not signed and not self.headers.get("Authorization", "").startswith("AWS"):
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        asked = self.headers.get("Range")
        if asked is None:
            self._answer(200, content)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        told = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        self._answer(206, part, {"Content-Range": told})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        own = {
            "Content-Length": str(len(body)),
            "Content-Type": "video/mp4",
            "ETag": '"1"',
            **(headers or {}),
        }
        for name, value in own.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        pass


@contextmanager
def bucket() -> Iterator[Bucket]:
    """Yield a running one."""
    server = Bucket()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
