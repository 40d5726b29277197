"""A hub on 127.0.0.1 that answers huggingface_hub's own client: repositories, revisions, trees, ranges, gates."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


class FakeHub:
    """Repositories: name -> revision (branch or tag) -> files. A commit's hash is that of its files."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.about: dict[
            str, dict[str, Any]
        ] = {}  # what else the hub says of a repository: safetensors, cardData
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.cut_after: int | None = None  # bytes of a weight file after which the connection breaks
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, name: str, folder: Path, revision: str = "main") -> str:
        """Publish a folder's files as a revision; returns its commit."""
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        self.repositories.setdefault(name, {})[revision] = files
        return self.commit(files)

    @staticmethod
    def commit(files: dict[str, bytes]) -> str:
        digest = hashlib.sha1()
        for name, data in sorted(files.items()):
            digest.update(name.encode() + hashlib.sha256(data).digest())
        return digest.hexdigest()

    @staticmethod
    def etag(name: str, data: bytes) -> str:
        if name.endswith((".safetensors", ".bin", ".model")):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()

    def asked(self, method: str) -> list[str]:
        """Return the names of the files that were asked for."""
        return [
            path.rpartition("/")[2] for m, path, _ in self.requests if m == method and "/resolve/" in path
        ]

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(to.path).path)
        self.requests.append((to.command, path, dict(to.headers)))
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        name, rest = "/".join(parts[:2]), parts[2:]
        revisions = self.repositories.get(name)
        if revisions is None:
            return self.refuse(to, 404, "RepoNotFound")
        if name in self.gated and to.headers.get("Authorization") != "Bearer hf_friend":
            return self.refuse(to, 401, "GatedRepo")
        wanted = rest[1] if len(rest) > 1 else "main"
        files = revisions.get(wanted) or next(
            (f for f in revisions.values() if self.commit(f) == wanted), None
        )
        if files is None:
            return self.refuse(to, 404, "RevisionNotFound")
        if not api:
            return self.send_file(to, files, "/".join(rest[2:]))
        if rest and rest[0] == "tree":
            return self.send(to, json.dumps([self.entry(n, data) for n, data in files.items()]).encode(), {})
        info = {
            "id": name,
            "sha": self.commit(files),
            "siblings": [{"rfilename": n, "size": len(data)} for n, data in files.items()],
            **self.about.get(name, {}),
        }
        return self.send(to, json.dumps(info).encode(), {})

    def entry(self, name: str, data: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "file",
            "path": name,
            "size": len(data),
            "oid": self.etag(name, data)[:40],
        }
        if len(self.etag(name, data)) == 64:
            found["lfs"] = {"oid": self.etag(name, data), "size": len(data), "pointerSize": 134}
        return found

    def send_file(self, to: BaseHTTPRequestHandler, files: dict[str, bytes], name: str) -> None:
        data = files[name]
        start = 0
        if given := to.headers.get("Range"):
            start = int(given.removeprefix("bytes=").split("-")[0])
        headers = {
            "ETag": f'"{self.etag(name, data)}"',
            "X-Repo-Commit": self.commit(files),
            "X-Linked-Size": str(len(data)),
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send(to, data[start:], headers, 206 if start else 200)

    def send(
        self, to: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str], status: int = 200
    ) -> None:
        to.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            to.send_header(key, value)
        to.end_headers()
        if to.command == "HEAD":
            return
        if self.cut_after is not None and "safetensors" in to.path and len(body) > self.cut_after:
            to.wfile.write(body[: self.cut_after])
            to.close_connection = True
            return
        to.wfile.write(body)

    def refuse(self, to: BaseHTTPRequestHandler, status: int, code: str) -> None:
        self.send(to, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, status)


@contextmanager
def fake_hub(cache: Path) -> Iterator[FakeHub]:
    """Let huggingface_hub talk to a fake hub and keep its files in `cache`, as HF_ENDPOINT and HF_HUB_CACHE would."""
    hub = FakeHub()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
                patch.delenv(name, raising=False)
            patch.setattr(constants, "ENDPOINT", hub.url)
            patch.setattr(
                constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
            )
            patch.setattr(constants, "HF_HUB_CACHE", str(cache))
            patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
            yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
