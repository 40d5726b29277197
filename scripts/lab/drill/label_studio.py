"""A stand-in for Label Studio that misbehaves when it is told to, and keeps what it was sent."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

Mood = Literal["well", "500", "403", "slow", "half"]
# The backend of the drill waits 3 s for an answer.
SLOW_S = 5.0


class StandIn:
    """The few routes of Label Studio that the worker uses, with their real shapes, on a port of its own.

    Attributes:
        mood: how it answers: `500` and `403` always; `slow` does every other thing late and answers later still;
            `half` does what it is asked, and breaks off every other answer.
        predictions: id -> what was posted, of those that were not deleted.
        annotations: task -> its annotations.
        writes: calls that would have changed an annotation.
        on_listed: called after somebody was told a task's predictions.
        clip_of: makes the video of a task; by default all have the same.
    """

    def __init__(self, clip: bytes, config: str = "") -> None:
        self.clip, self.config = clip, config
        self.clip_of: Callable[[int], bytes] = lambda _: clip
        self.mood: Mood = "well"
        self.random = random.Random(0)
        self.predictions: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        self.writes: list[str] = []
        self.on_listed: Callable[[], None] = lambda: None
        self.lock = threading.Lock()
        self._last = 0
        self._port = 0
        self.come_back()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def leave(self) -> None:
        """Refuse connections from now on; what is being answered is answered."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def come_back(self) -> None:
        """Listen again, where it listened before."""
        stand_in = self

        class Bound(_Routes):
            label_studio = stand_in

        self._server = _Server(("127.0.0.1", self._port), Bound)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def add_task(self, data: dict[str, Any]) -> int:
        """Return the number of a new task, which has an annotation of a person."""
        with self.lock:
            task = len(self.tasks) + 1
            self.tasks[task] = data
            self.annotations[task] = [{"id": 1000 + task, "task": task, "result": [{"id": "by-hand"}]}]
        return task

    def store(self, task: int, prediction: dict[str, Any]) -> dict[str, Any]:
        """Keep a prediction, as Label Studio does with one that is posted, and with an answer of /predict."""
        with self.lock:
            self._last += 1
            kept = {**prediction, "id": self._last, "task": task}
            self.predictions[self._last] = kept
        return kept

    def counts(self) -> Counter[int]:
        """Return how many predictions each task has."""
        with self.lock:
            return Counter(int(one["task"]) for one in self.predictions.values())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the drill."""


class _Routes(BaseHTTPRequestHandler):
    label_studio: StandIn
    hit = False  # whether the mood shows in this call

    def do_GET(self) -> None:
        if self._in_a_mood():
            return
        here, url = self.label_studio, urlsplit(self.path)
        query, parts = parse_qs(url.query), url.path.strip("/").split("/")
        if url.path.endswith("/drip.mp4"):
            self._drip()
        elif url.path.startswith("/data/"):
            name = parts[-1].removesuffix(".mp4")
            self._send(200, here.clip_of(int(name)) if name.isdigit() else here.clip, "video/mp4")
        elif parts[:2] == ["api", "predictions"]:
            task = int(query["task"][0])
            with here.lock:
                found = [one for one in here.predictions.values() if one["task"] == task]
            self._answer(found)
            here.on_listed()
        elif parts[:2] == ["api", "tasks"] and len(parts) > 2 and int(parts[2]) in here.tasks:
            task = int(parts[2])
            inner = {"annotations": here.annotations[task], "drafts": []}
            self._answer(inner[parts[3]] if len(parts) > 3 else {"id": task, "data": here.tasks[task]})
        elif parts == ["api", "tasks"]:
            first = query.get("page", ["1"]) == ["1"]
            counts = here.counts()
            tasks = [
                {"id": task, "data": data, "total_predictions": counts[task]}
                for task, data in (here.tasks.items() if first else ())
            ]
            self._answer(
                {"tasks": tasks, "total": len(tasks), "total_annotations": 0, "total_predictions": 0}
            )
        elif parts[:2] == ["api", "projects"]:
            self._answer(
                {"id": 1, "title": "drill", "label_config": here.config, "task_number": len(here.tasks)}
                if len(parts) > 2
                else {"count": 1, "results": [{"id": 1}]}
            )
        elif parts[:2] == ["api", "webhooks"]:
            self._answer([])
        else:
            self._answer({"detail": "Not found."}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._in_a_mood():
            return
        if urlsplit(self.path).path.startswith("/api/predictions"):
            self._answer(self.label_studio.store(int(body["task"]), body), 201)
        else:
            self._change()

    def do_DELETE(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[:2] == ["api", "predictions"]:
            with self.label_studio.lock:
                found = self.label_studio.predictions.pop(int(parts[2]), None)
            self._send(204 if found else 404, b"")
        else:
            self._change()

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._change()

    do_PUT = do_PATCH

    def _change(self) -> None:
        """Record what the drill's tasks give no reason for."""
        self.label_studio.writes.append(f"{self.command} {self.path}")
        self._answer({"detail": "Not in this drill."}, 404)

    def _drip(self) -> None:
        """Send a byte every two seconds, for as long as somebody takes them."""
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(self.label_studio.clip)))
        self.end_headers()
        for byte in self.label_studio.clip:
            self.wfile.write(bytes([byte]))
            time.sleep(2.0)

    def _in_a_mood(self) -> bool:
        """Refuse, or be slow; True when the call is answered by that."""
        mood = self.label_studio.mood
        self.hit = self.label_studio.random.random() < 0.5
        if mood == "slow" and self.hit:
            time.sleep(SLOW_S)
        if mood in ("500", "403"):
            self._answer({"detail": "The drill says no."}, int(mood))
        return mood in ("500", "403")

    def _answer(self, body: Any, status: int = 200) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, data: bytes, kind: str = "application/json") -> None:
        mood = self.label_studio.mood
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if mood == "slow" and self.hit:
            time.sleep(1.0)
        self.wfile.write(data[: len(data) // 2] if mood == "half" and self.hit else data)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Say nothing."""
