"""Whether every webhook is stored, and how fast it is answered, while training takes all the cores.

Label Studio waits one second for a webhook's answer, and its user with it. `run()` starts `svac-backend serve` and on
each core a process that computes without a pause at the niceness of fine-tuning, and sends annotations at a fixed rate:
whoever is late sends at once, so that a slow answer delays no later one. At the end every annotation must be found in
the database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.table import Table

from lab.benchmarks.server import COMMAND, Answers, free_port, post, process, wait_for
from svac_backend.jobs.worker import NICENESS as WORKER_NICENESS
from svac_backend.learning.process import NICENESS as FINETUNE_NICENESS
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore

# Every so many annotations one is large: 100 brush masks, 1.3 MB.
LARGE_EVERY = 25
BURN = """
import os, sys
import numpy as np
os.nice(int(sys.argv[1]))
matrix = np.random.default_rng(0).random((600, 600))
while True:
    matrix = matrix @ matrix / 300
"""


@dataclass
class WebhookReport:
    """What was measured.

    Attributes:
        answers: small annotations, large ones.
        sent, stored: how many were sent, and found in the database.
        seconds: how long it took.
        late: most seconds that a webhook was sent after its time.
        burners: processes that computed meanwhile.
    """

    answers: tuple[Answers, Answers]
    sent: int
    stored: int
    seconds: float
    late: float
    burners: int


def run(*, seconds: float = 60.0, rate: float = 50.0, senders: int = 16, burners: int = 0) -> WebhookReport:
    """Measure webhooks under load.

    Args:
        seconds: how long to send.
        rate: webhooks per second, all senders together.
        senders: threads that send; as many can wait for an answer.
        burners: processes that compute; 0: one for each core.

    Raises:
        SvacError: the web process did not start.
    """
    burners = burners or os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="svac-benchmark-") as folder:
        root = Path(folder)
        settings = Settings(_env_file=None, data_dir=root / "data", port=free_port())
        url = f"http://127.0.0.1:{settings.port}"
        with process([*COMMAND, "serve"], settings, root):
            wait_for(
                lambda: httpx.get(f"{url}/health", timeout=2).status_code == 200, "the web process", root
            )
            with _burning(burners):
                answers, sent, took, late = _send((settings.host, settings.port), seconds, rate, senders)
        return WebhookReport(answers, sent, _stored(settings), took, late, burners)


def table(report: WebhookReport) -> Table:
    """Return the report as a table."""
    found = Table(
        title=f"Webhooks answered in milliseconds: {report.sent} in {report.seconds:.0f} s, {report.stored} stored\n"
        f"{report.burners} processes computed meanwhile; sent {1000 * report.late:.0f} ms late at most"
    )
    for column in ("annotation", "answers", "wrong", "p50", "p95", "p99", "max"):
        found.add_column(column, justify="left" if column == "annotation" else "right")
    for answers in report.answers:
        figures = [answers.percentile(50), answers.percentile(95), answers.percentile(99), max(answers.ms)]
        found.add_row(
            answers.name, str(len(answers.ms)), str(answers.errors), *(f"{ms:.1f}" for ms in figures)
        )
    return found


def _send(
    address: tuple[str, int], seconds: float, rate: float, senders: int
) -> tuple[tuple[Answers, Answers], int, float, float]:
    small, large = Answers("16 masks, 70 kB"), Answers("100 masks, 1.3 MB")
    regions = {False: _regions(16, 900), True: _regions(100, 2600)}
    count, lock = int(seconds * rate), threading.Lock()
    turns = iter(range(count))
    late = 0.0
    begun = time.monotonic()

    def send() -> None:
        nonlocal late
        while True:
            with lock:
                number = next(turns, None)
            if number is None:
                return
            is_large = number % LARGE_EVERY == 0
            body = f'{{"action":"ANNOTATION_CREATED","project":{{"id":1}},"annotation":{{"id":{number},'
            data = body.encode() + b'"result":' + regions[is_large] + b"}}"
            wait = begun + number / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            took, status = post(address, "/webhook", data)
            answers = large if is_large else small
            with lock:
                late = max(late, -wait)
                answers.ms.append(took * 1000)
                answers.errors += status != 201

    threads = [threading.Thread(target=send) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (small, large), count, time.monotonic() - begun, late


def _stored(settings: Settings) -> int:
    """Return how many annotations are in the database, each counted once."""
    database = Database.from_settings(settings)
    store, found, last = EventStore(database), set(), 0
    while events := store.find(after=last, limit=50):
        found |= {event.body["annotation"]["id"] for event in events}
        last = events[-1].id
    database.close()
    return len(found)


def _regions(frames: int, length: int) -> bytes:
    """Masks as the editor sends them, of so many bytes of run lengths each."""
    value = {"format": "rle", "rle": [200 + i % 50 for i in range(length)], "brushlabels": ["object"]}
    regions = [{"id": f"obj1-f{i:05d}", "item_index": i, "value": value} for i in range(frames)]
    return json.dumps(regions).encode()


@contextmanager
def _burning(count: int) -> Iterator[None]:
    """Compute at the niceness of the process that fine-tunes."""
    niceness = str(WORKER_NICENESS + FINETUNE_NICENESS)
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started = [subprocess.Popen([sys.executable, "-c", BURN, niceness], env=one_thread) for _ in range(count)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()
