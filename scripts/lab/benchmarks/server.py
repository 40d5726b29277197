"""How fast the web process answers while the worker is busy: the real processes, load from this one.

`run()` starts `svac-backend serve` and a worker on an empty data folder, keeps the worker segmenting a clip, and
meanwhile sends `/predict` and `/webhook` at a fixed rate. Without the embedded weights a process that only burns
CPU stands in for the worker, and the report says so.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from rich.table import Table

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobState
from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.tasks import task_prompts
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.jobs import JobStore
from svac_backend.store.predictions import Prediction, PredictionStore
from svac_backend.svac.files.weights import model_version

WIDTH, HEIGHT, FRAMES, FPS = 640, 360, 120, 25
CONFIG = """<View>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="object"/></BrushLabels>
  <Video name="video" value="$video" framerate="$fps"/>
</View>"""
VIDEO = "/data/local-files/?d=clip.mp4"
CACHED_FRAMES = 60
STAND_IN = "CPU burner (a stand-in: there are no embedded weights)"

COMMAND = [sys.executable, "-c", "from svac_backend.cli.app import app; app()"]
# Does "jobs" by multiplying matrices, on as many threads as numpy takes: what a model does to the machine.
BURNER = """
import numpy as np, os, time
from svac_backend.jobs.engine import JobEngine
from svac_backend.jobs.process import WorkerProcess
from svac_backend.settings import get_settings
from svac_backend.store.database import Database
def burn(context):
    matrix, end = np.random.default_rng(0).random((600, 600)), time.monotonic() + 5
    while time.monotonic() < end:
        context.progress(1 - (end - time.monotonic()) / 5, "burning")
        matrix = matrix @ matrix / 300
    return {}
os.nice(10)  # as the worker does
settings = get_settings()
WorkerProcess(JobEngine(Database.from_settings(settings)), {"prelabel": burn}).run()
"""


@dataclass
class Answers:
    """One kind of request: milliseconds of each answer, in the order they came, and how many were wrong."""

    name: str
    ms: list[float] = field(default_factory=list)
    errors: int = 0

    def percentile(self, percent: int) -> float:
        """Return the milliseconds within which `percent` of the answers came."""
        return statistics.quantiles(self.ms, n=100, method="inclusive")[percent - 1]


@dataclass
class ServerReport:
    """What was measured.

    Attributes:
        answers: one for each kind of request.
        worker: what kept the machine busy.
        busy: share of the time during which a job was running, 0..1.
        seconds: how long was measured.
    """

    answers: list[Answers]
    worker: str
    busy: float
    seconds: float


def run(*, seconds: float = 10.0, threads: int = 3, rate: float = 8.0) -> ServerReport:
    """Measure the web process under load.

    Args:
        seconds: how long to measure.
        threads: how many threads send.
        rate: requests per second of each thread.

    Raises:
        SvacError: a process did not start.
    """
    with tempfile.TemporaryDirectory(prefix="svac-benchmark-") as folder:
        root = Path(folder)
        _write_clip(root / "clip.mp4")
        settings = Settings(
            _env_file=None, data_dir=root / "data", port=free_port(), label_studio_files_root=root
        )
        try:
            version = model_version(settings.model)
            worker, command = f"svac-backend worker with {version}", [*COMMAND, "worker"]
        except SvacError:
            settings = settings.model_copy(update={"model": str(_fake_model(root / "model"))})
            version = model_version(settings.model)
            worker, command = STAND_IN, [sys.executable, "-c", BURNER]
        database = Database.from_settings(settings)
        PredictionStore(database).put(_cached_prediction(version))
        jobs = JobStore(database)
        url = f"http://127.0.0.1:{settings.port}"
        with process([*COMMAND, "serve"], settings, root), process(command, settings, root):
            wait_for(
                lambda: httpx.get(f"{url}/health", timeout=2).status_code == 200, "the web process", root
            )
            httpx.post(
                f"{url}/predict",
                json=_predict([_task(0, "keeps the worker busy from the start")]),
                timeout=30,
            )
            wait_for(lambda: jobs.counts()[JobState.RUNNING] > 0, "the worker", root)
            report = _measure((settings.host, settings.port), jobs, seconds, threads, rate)
        report.worker = worker
        database.close()
        return report


def table(report: ServerReport) -> Table:
    """Return the report as a table."""
    found = Table(
        title=f"Answers in milliseconds during {report.seconds:.0f} s, a job running {report.busy:.0%} of the time\n"
        f"Worker: {report.worker}"
    )
    for column in ("request", "answers", "wrong", "p50", "p95", "p99", "max"):
        found.add_column(column, justify="left" if column == "request" else "right")
    for answers in report.answers:
        figures = [answers.percentile(50), answers.percentile(95), answers.percentile(99), max(answers.ms)]
        found.add_row(
            answers.name, str(len(answers.ms)), str(answers.errors), *(f"{ms:.1f}" for ms in figures)
        )
    return found


def _measure(
    address: tuple[str, int], jobs: JobStore, seconds: float, threads: int, rate: float
) -> ServerReport:
    kinds = [
        Answers("/predict, a new task (queued)"),
        Answers(f"/predict, cached ({CACHED_FRAMES} brush masks)"),
        Answers("/predict, 20 new tasks at once"),
        Answers("/webhook, small"),
        Answers("/webhook, an annotation of 1.3 MB"),
    ]
    lock = threading.Lock()
    numbers = iter(range(1, 1_000_000))
    fixed = {
        1: json.dumps(_predict([_task(1, "what is in the cache")])).encode(),
        3: json.dumps({"action": "TASKS_CREATED", "project": {"id": 1}}).encode(),
        4: json.dumps(
            {"action": "ANNOTATION_UPDATED", "project": {"id": 1}, "annotation": _annotation()}
        ).encode(),
    }
    end = time.monotonic() + seconds

    def body(kind: int) -> bytes:
        if kind in fixed:
            return fixed[kind]
        with lock:
            tasks = [_task(next(numbers)) for _ in range(20 if kind == 2 else 1)]
        return json.dumps(_predict(tasks)).encode()

    def send(thread: int) -> None:
        turn = thread
        while (begun := time.monotonic()) < end:
            answers = kinds[turn % len(kinds)]
            took, status = post(address, answers.name.split(",")[0], body(turn % len(kinds)))
            with lock:
                answers.ms.append(took * 1000)
                answers.errors += status not in (200, 201)
            turn += 1
            time.sleep(max(0.0, 1 / rate - (time.monotonic() - begun)))

    senders = [threading.Thread(target=send, args=(n,)) for n in range(threads)]
    begun = time.monotonic()
    for sender in senders:
        sender.start()
    looks, busy = 0, 0
    while any(sender.is_alive() for sender in senders):
        looks, busy = looks + 1, busy + (jobs.counts()[JobState.RUNNING] > 0)
        time.sleep(0.2)
    return ServerReport(kinds, "", busy / max(1, looks), time.monotonic() - begun)


def post(address: tuple[str, int], path: str, body: bytes) -> tuple[float, int]:
    """Return the seconds until a whole answer was read, and its status.

    On a connection of its own, as Label Studio sends; and not by httpx, which takes longer than the answer.
    """
    begun = time.perf_counter()
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    connection.close()
    return time.perf_counter() - begun, response.status


def _task(number: int, prompt: str | None = None) -> dict[str, Any]:
    prompt = prompt or f"the object number {number}"
    frames = [f"/data/local-files/?d=frames/{i:05d}.jpg" for i in range(FRAMES)]
    return {
        "id": number,
        "data": {"video": VIDEO, "frames": frames, "fps": FPS, "prompt": prompt},
        "annotations": [],
        "predictions": [],
    }


def _predict(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    params = {"login": None, "password": None, "context": None}
    return {"tasks": tasks, "project": "1.1795331614", "label_config": CONFIG, "params": params}


def _annotation() -> dict[str, Any]:
    """An annotation as large as that of 100 brush masks."""
    value = {"format": "rle", "rle": [200] * 2600, "brushlabels": ["object"]}
    return {"id": 1, "result": [{"id": f"obj1-f{i:05d}", "value": value} for i in range(100)]}


def _cached_prediction(version: str) -> Prediction:
    data = _task(1, "what is in the cache")["data"]
    prompts = tuple(task_prompts(data, parse_config(CONFIG), max_chars=500))
    # What the web process makes of it when no /setup came before.
    hostname = Settings.model_fields["label_studio_url"].default
    payload = PrelabelPayload("1", "1", data, prompts, CONFIG, hostname, VIDEO, push=True)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    masks = {
        i: to_coco((rows - 180) ** 2 + (columns - 100 - 5 * i) ** 2 < 80**2) for i in range(CACHED_FRAMES)
    }
    tracks = [Track(p.object_id, p.label, p.expression, masks, dict.fromkeys(masks, 0.9)) for p in prompts]
    return Prediction(payload.cache_key(version), version, "1", "1", tracks, WIDTH, HEIGHT, FPS, FRAMES, 0.9)


def _write_clip(path: Path) -> None:
    """A clip with a disc that moves over noise."""
    noise = np.random.default_rng(0).integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            picture = noise.copy()
            picture[(rows - 180) ** 2 + (columns - 100 - 3 * i) ** 2 < 60**2] = (220, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))


def _fake_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"preset": "none"}')
    (folder / "none.safetensors").write_bytes(b"none")
    return folder


@contextmanager
def process(command: list[str], settings: Settings, root: Path) -> Iterator[None]:
    """Run a command with these settings, its output in `<root>/processes.log`."""
    environment = {
        **os.environ,
        "SVAC_MODEL": settings.model,
        "SVAC_DATA_DIR": str(settings.data_dir),
        "SVAC_PORT": str(settings.port),
        "SVAC_LABEL_STUDIO_FILES_ROOT": str(root),
        "SVAC_LABEL_STUDIO_API_KEY": "0" * 40,
        "SVAC_LABEL_STUDIO_URL": "http://127.0.0.1:9",  # nothing listens there: pushing fails at once
    }
    with (root / "processes.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=root, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(ready: Any, what: str, root: Path, timeout: float = 120) -> None:
    """Wait until `ready()` is true. Raises `SvacError` with the end of the log when it does not become so."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    tail = (root / "processes.log").read_text(errors="replace")[-2000:]
    raise SvacError(f"{what} did not start within {timeout:.0f} s.", f"Its log ends with: {tail}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
