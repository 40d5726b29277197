"""The quickstart from an empty folder, its check, and a second start on what the first one left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.quickstart.processes import choose_port, is_free

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "svac_backend.quickstart"]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    first = choose_port(21_000 + os.getpid() % 10_000)
    return first, choose_port(first + 1)


def arguments(data: Path, ports: tuple[int, int]) -> list[str]:
    return [*COMMAND, "--data", str(data), "--port", str(ports[0]), "--backend-port", str(ports[1])]


def processes_of(data: Path) -> list[str]:
    """Return the command lines of the processes that run in a folder or below."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if str(process.info["cwd"] or "").startswith(str(data)):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def test_check_passes_from_nothing_and_stops_what_it_started(data: Path, ports: tuple[int, int]) -> None:
    done = subprocess.run(
        [*arguments(data, ports), "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[quickstart] tasks: 3" in done.stdout
    found = re.search(r"frames with a mask: (\d+) of (\d+)", done.stdout)
    assert found is not None
    assert int(found[1]) >= 0.9 * int(found[2])
    iou = re.search(r"mean IoU, color expressions: (\d\.\d+)", done.stdout)
    assert iou is not None
    assert float(iou[1]) >= 0.65
    live = re.search(r"live prediction: (\d+) masks", done.stdout)
    assert live is not None
    assert int(live[1]) > 0
    assert processes_of(data) == []
    assert all(is_free(port) for port in ports)


def test_second_start_keeps_the_tasks_and_ctrl_c_stops_all(data: Path, ports: tuple[int, int]) -> None:
    log = data / "second.log"
    with log.open("wb") as stream:
        running = subprocess.Popen(arguments(data, ports), stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        end = time.monotonic() + 240
        while "Ctrl-C here stops everything" not in log.read_text() and time.monotonic() < end:
            assert running.poll() is None, log.read_text()
            time.sleep(0.5)
        text = log.read_text()
        server = LabelStudioServer(data / "label-studio", port=ports[0])
        assert f"{server.url}/projects/" in text
        assert server.username in text
        assert server.password in text
        assert "pre-label" not in text
        client = server.client()
        (project,) = client.list_projects()
        assert len(list(client.list_tasks(int(project["id"])))) == 3
        assert [backend["state"] for backend in client.list_ml_backends(int(project["id"]))] == ["CO"]
        # The folder belongs to the one that runs.
        other = subprocess.run(arguments(data, ports), capture_output=True, text=True, cwd=ROOT, check=False)
        assert other.returncode == 1
        assert f"already runs in {data}" in other.stderr
    finally:
        running.send_signal(signal.SIGINT)
        status = running.wait(60)
    assert status == 0
    assert processes_of(data) == []
    assert all(is_free(port) for port in ports)
