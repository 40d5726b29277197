"""Where the drill takes place: `svac-backend serve` and `worker` on a data folder of their own, and the stand-in."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psycopg

from lab.benchmarks.server import COMMAND, free_port
from lab.drill.label_studio import StandIn
from lab.drill.outcome import Database
from lab.postgresql import PostgresServer
from svac_backend.errors import SvacError
from svac_backend.store.database import FILE_NAME

WIDTH, HEIGHT, FRAMES, FPS = 96, 64, 8, 10
CONFIG = """<View>
  <TextArea name="prompt" toName="frames" smart="true"/>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="object"/></BrushLabels>
  <PolygonLabels name="outline" toName="frames"><Label value="object"/></PolygonLabels>
  <KeyPointLabels name="click" toName="frames" smart="true"><Label value="positive"/></KeyPointLabels>
  <Video name="video" value="$video" framerate="$fps"/>
</View>"""
FINAL = frozenset({"done", "failed", "cancelled"})
START_S = 480.0  # on a busy machine Ray takes minutes, and several tries
_ENDED = (httpx.HTTPError, OSError)


class Stage:
    """The processes of one drill. As a context manager it starts them, and ends them.

    Args:
        root: an empty folder; logs and the data folder lie in it.
        environment: settings and more for both processes.
        database: `sqlite`, or `postgresql` for a server of its own.
        worker: whether there is one.
        seed: of every choice.
    """

    def __init__(
        self,
        root: Path,
        *,
        environment: Mapping[str, str] = {},
        database: Database = "sqlite",
        worker: bool = True,
        seed: int = 0,
    ) -> None:
        self.root, self.data = root, root / "data"
        self.postgresql = PostgresServer(durable=True) if database == "postgresql" else None
        self.database_url = self.postgresql.new_database() if self.postgresql is not None else ""
        self.random = random.Random(seed)
        self.label_studio = StandIn(clip(), CONFIG)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SVAC_")},
            "OMP_NUM_THREADS": "1",
            "SVAC_DATA_DIR": str(self.data),
            "SVAC_DATABASE_URL": self.database_url,
            "SVAC_PORT": str(self.port),
            "SVAC_LABEL_STUDIO_URL": self.label_studio.url,
            "SVAC_LABEL_STUDIO_API_KEY": "0" * 40,
            "SVAC_LABEL_STUDIO_TIMEOUT_S": "3",
            "SVAC_PREDICT_WAIT_S": "0",
            **environment,
        }
        self._with_worker = worker

    def __enter__(self) -> Stage:
        try:
            self.start("serve")
            if self._with_worker:
                self.start("worker")
                self.until(lambda: bool(self.get("/health")["workers"]), "the worker")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs."""
        for name in self.processes:
            self.kill(name, signal.SIGTERM)
        self.label_studio.leave()
        if self.postgresql is not None:
            self.postgresql.close()

    def start(self, command: str, name: str = "") -> None:
        """Start `serve` or `worker`, as a supervisor would; of `serve` also wait until it answers."""
        with (self.root / f"{name or command}.log").open("ab") as log:
            self.processes[name or command] = subprocess.Popen(
                [*COMMAND, command],
                env=self.environment,
                cwd=self.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if command == "serve":
            self.until(lambda: self.get("/health")["status"] == "UP", "the web process")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one with all its children; with SIGKILL at once, else in order if that takes less than 15 s."""
        process = self.processes[name]
        for one in (number, signal.SIGKILL):
            try:
                os.killpg(process.pid, one)
                process.wait(15)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def pause(self, name: str, number: signal.Signals) -> None:
        """Freeze (SIGSTOP) or thaw (SIGCONT) one."""
        os.killpg(self.processes[name].pid, number)

    def log(self, name: str) -> str:
        """What one has printed."""
        path = self.root / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def until(self, ready: Callable[[], bool], what: str, timeout: float = START_S) -> float:
        """Wait until something is so; return the seconds.

        Raises:
            SvacError: it did not become so.
        """
        begun = time.monotonic()
        while time.monotonic() - begun < timeout:
            try:
                if ready():
                    return time.monotonic() - begun
            except _ENDED:
                pass
            time.sleep(0.1)
        tail = "\n".join(f"{name}: {self.log(name)[-1500:]}" for name in self.processes)
        raise SvacError(f"{what} did not come within {timeout:.0f} s.", f"Their logs end with: {tail}")

    def get(self, path: str) -> Any:
        """Return the JSON of a route. Raises httpx's errors."""
        return httpx.get(self.url + path, timeout=20).raise_for_status().json()

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Post JSON."""
        data = json.dumps(body).encode()
        return httpx.post(
            self.url + path, content=data, headers={"Content-Type": "application/json", **headers}, timeout=60
        )

    def submit(self, count: int) -> list[int]:
        """Have new tasks predicted, as Label Studio and the person before it do: an error is asked again."""
        numbers = [self.label_studio.add_task({}) for _ in range(count)]
        for number in numbers:
            self.label_studio.tasks[number].update(task(number)["data"])
        body = predict_body([task(number) for number in numbers])

        def accepted() -> bool:
            answer = self.post("/predict", body)
            if answer.status_code != 200:
                return False
            for number, found in zip(numbers, answer.json()["results"], strict=True):
                if found:
                    self.label_studio.store(number, found if isinstance(found, dict) else found[0])
            return True

        self.until(accepted, "an answer to /predict", 300)
        return numbers

    def jobs(self, numbers: list[int] | None = None) -> list[dict[str, Any]]:
        """Return the jobs of some tasks, or all, the newest first."""
        found = self.get("/jobs?limit=1000")["jobs"]
        wanted = None if numbers is None else {str(number) for number in numbers}
        return [job for job in found if wanted is None or job.get("task_id") in wanted]

    def at_work(self, numbers: list[int]) -> None:
        """Wait until one of some tasks is being worked on, or has been."""
        self.until(lambda: any(job["state"] != "queued" for job in self.jobs(numbers)), "work", 90)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Ask the database itself."""
        if self.database_url:
            with psycopg.connect(self.database_url) as server:
                return server.execute(text).fetchall()
        with closing(sqlite3.connect(self.data / FILE_NAME, timeout=30)) as connection:
            return connection.execute(text).fetchall()

    def change(self, *texts: str) -> None:
        """Change the database itself."""
        if self.database_url:
            with psycopg.connect(self.database_url) as server:
                for text in texts:
                    server.execute(text)
            return
        with closing(sqlite3.connect(self.data / FILE_NAME, timeout=60)) as connection:
            for text in texts:
                connection.execute(text)
            connection.commit()

    def database_mb(self) -> float:
        """Return the megabytes that the database takes."""
        if self.database_url:
            return float(self.query("SELECT pg_database_size(current_database())")[0][0]) / 1e6
        return sum(path.stat().st_size for path in self.data.glob(f"{FILE_NAME}*")) / 1e6

    def behind(self) -> int:
        """Return how many webhooks the worker has not dealt with."""
        last = self.query("SELECT coalesce(max(id), 0) FROM events")[0][0]
        return int(last) - int(self.query("SELECT coalesce(max(value), 0) FROM cursors")[0][0])

    def memory(self, name: str, field: str = "VmRSS") -> float:
        """Return megabytes of the largest process of one; `VmHWM` for the most that it ever had."""
        return max((_status(pid, field) for pid in self._members(name)), default=0.0)

    def forget_peak(self) -> None:
        """Count the most memory of each from now on."""
        for name in self.processes:
            for pid in self._members(name):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _members(self, name: str) -> list[int]:
        return members(self.processes[name].pid)


def members(leader: int) -> list[int]:
    """Return the living processes of the session that one began, which itself may have ended."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and os.getsid(int(path.name)) == leader:
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return found


def _status(pid: int, field: str) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(field)), 0.0)


def clip(number: int = 0, frames: int = FRAMES) -> bytes:
    """Return a video of a red square that moves over grey; its way and the grey depend on the number."""
    grey, top, left = 90 + number % 60, 8 + number * 7 % 28, 4 + number * 11 % 20
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(frames):
            picture = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
            picture[top : top + 24, left + 4 * i : left + 24 + 4 * i] = (220, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def task(number: int, **data: Any) -> dict[str, Any]:
    """A task as Label Studio sends it; each has a video of its own, so that no work is shared."""
    own = {
        "video": f"/data/upload/1/{number}.mp4",
        "frames": [f"/data/upload/1/{number}-{i}.jpg" for i in range(FRAMES)],
        "fps": FPS,
        "prompt": "the red square",
        **data,
    }
    return {"id": number, "data": own, "annotations": [], "predictions": []}


def predict_body(tasks: list[dict[str, Any]], context: Any = None) -> dict[str, Any]:
    """A /predict body as Label Studio 1.23.2 sends it."""
    return {
        "tasks": tasks,
        "project": "1.1795331614",
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": context},
    }
