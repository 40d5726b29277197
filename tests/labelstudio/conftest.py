"""A small HTTP server whose answers a test writes, to try downloads against the real thing: sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers `path` with `answers[path]`; `requests` keeps (path, headers) of what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(
                    (self.path, {key.lower(): value for key, value in self.headers.items()})
                )
                answer = outer.answers.get(self.path.split("?")[0])
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *args: object) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, path: str, content: bytes, **headers: str) -> None:
        """Answer like a good file server: ranges, sizes."""
        self.answers[path] = lambda request: self.send(request, content, headers=headers)

    def redirect(self, path: str, target: str, status: int = 302) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Location", target)
            request.send_header("Set-Cookie", "sessionid=secret; Path=/")
            request.end_headers()

        self.answers[path] = answer

    def status(self, path: str, *codes: int, then: Answer | None = None) -> None:
        """Answer with each status once, the last one for ever, or then with something else."""
        left = list(codes)

        def answer(request: BaseHTTPRequestHandler) -> None:
            if then is not None and not left:
                then(request)
                return
            request.send_error(left.pop(0) if len(left) > 1 or then is not None else left[0])

        self.answers[path] = answer

    @staticmethod
    def send(
        request: BaseHTTPRequestHandler,
        content: bytes,
        *,
        headers: dict[str, str] | None = None,
        ranges: bool = True,
        cut: int | None = None,
    ) -> None:
        """Send a file or the range of it that was asked for; `cut` breaks off after that many bytes."""
        asked = request.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if ranges and asked else 0
        if ranges and asked and start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.end_headers()
            return
        body = content[start:]
        request.send_response(206 if ranges and asked else 200)
        if ranges and asked:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body[:cut])


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture
def other_server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()
