from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from svac_backend.errors import SvacError
from svac_backend.quickstart.processes import (
    LOCAL,
    Process,
    choose_port,
    is_free,
    locked,
    tail,
    wait_until_up,
)


def start(tmp_path: Path, code: str) -> Process:
    return Process(
        "the child", [sys.executable, "-c", code], tmp_path / "child.log", dict(os.environ), tmp_path
    )


def test_child_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = start(tmp_path, "print('the reason'); raise SystemExit(3)")
    with pytest.raises(SvacError, match=r"(?s)the child ended with exit status 3.*the reason"):
        wait_until_up(f"http://{LOCAL}:9/health", child, timeout=30)


def test_child_that_does_not_answer_is_reported(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; print('here', flush=True); time.sleep(60)")
    try:
        with pytest.raises(SvacError, match="did not answer"):
            wait_until_up(f"http://{LOCAL}:9/health", child, timeout=0.5)
    finally:
        child.stop()


def test_stop_ends_the_child_and_its_own_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(inner.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    child = start(tmp_path, code)
    end = time.monotonic() + 20
    while not child.log.read_text().strip() and time.monotonic() < end:
        time.sleep(0.05)
    inner = psutil.Process(int(child.log.read_text()))
    child.stop()
    gone, alive = psutil.wait_procs([inner], timeout=5)
    assert [process.pid for process in gone] == [inner.pid]
    assert alive == []
    assert not psutil.pid_exists(child.pid)


def test_child_does_not_see_the_terminals_interrupt(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(60)")
    try:
        assert os.getpgid(child.pid) != os.getpgid(0)
    finally:
        child.stop()


def test_server_that_answers_is_up(tmp_path: Path) -> None:
    port = choose_port(20_000 + os.getpid() % 20_000)
    code = f"import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port={port}, bind='{LOCAL}')"
    child = start(tmp_path, code)
    try:
        wait_until_up(f"http://{LOCAL}:{port}/", child, timeout=20)
        child.check()
    finally:
        child.stop()


def test_ports_in_use_and_spoken_for_are_passed_over() -> None:
    with socket.socket() as server:
        server.bind((LOCAL, 0))
        server.listen()
        used = server.getsockname()[1]
        assert not is_free(used)
        chosen = choose_port(used)
        assert chosen > used
        assert choose_port(used, taken=[chosen]) > chosen


def test_no_free_port_is_an_error() -> None:
    with pytest.raises(SvacError, match="No port from 65536"):
        choose_port(65536)


def test_folder_is_held_by_one_quickstart_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(SvacError, match=f"already runs in .*process {os.getpid()}")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_folder_is_free_again_after_its_holder_was_killed(tmp_path: Path) -> None:
    code = (
        "import time\nfrom pathlib import Path\nfrom svac_backend.quickstart.processes import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    child = start(tmp_path, code)
    end = time.monotonic() + 20
    while "held" not in child.log.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    with pytest.raises(SvacError, match="already runs"), locked(tmp_path):
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.stop()
    with locked(tmp_path):
        pass


def test_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "was not written" in tail(log)
    log.write_text("\n".join(str(n) for n in range(100)))
    assert tail(log).splitlines() == [str(n) for n in range(75, 100)]
