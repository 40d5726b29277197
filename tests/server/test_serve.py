"""The real web process: gunicorn with threads, started as `svac-backend serve` starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from svac_backend.errors import SvacError
from svac_backend.server.app import serve
from svac_backend.settings import Settings
from tests.server.bodies import predict_body, task

SERVE = """
from svac_backend.server.app import serve
from svac_backend.settings import Settings
serve(Settings(_env_file=None))
"""


def environment(settings: Settings, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "SVAC_MODEL": settings.model,
        "SVAC_DATA_DIR": str(settings.data_dir),
        "SVAC_PORT": str(port),
        "SVAC_PREDICT_WAIT_S": "2",
        "SVAC_SERVER_THREADS": "4",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], env=environment(settings, port), stderr=subprocess.PIPE
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{url}/health", timeout=2).raise_for_status()
            break
        except httpx.TransportError:
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield process, url
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=20)


def test_serves_waits_and_ends_in_order(server: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = server
    with httpx.Client(base_url=url, timeout=20) as client, ThreadPoolExecutor(2) as pool:
        assert client.post("/setup", json={"project": "38.1"}).json().keys() == {"model_version"}
        # Two interactive calls wait for their budget; webhooks are answered at once meanwhile.
        waiting = [pool.submit(client.post, "/predict", json=predict_body(task(n), text="x")) for n in (1, 2)]
        time.sleep(0.3)
        begun = time.monotonic()
        assert client.post("/webhook", json={"action": "TASKS_CREATED"}).status_code == 201
        assert time.monotonic() - begun < 1.0
        assert not any(call.done() for call in waiting)
        assert [json.loads(call.result().content) for call in waiting] == [{"results": [[]]}] * 2
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"POST /predict 200" in errors
    assert b"Traceback" not in errors


def test_bad_settings_are_said_before_anything_starts(settings: Settings) -> None:
    environment_ = {**environment(settings, 1), "SVAC_BASIC_AUTH_USER": "only the user"}
    done = subprocess.run(
        [sys.executable, "-c", SERVE], env=environment_, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert b"SettingsError: Only one of" in done.stderr
    assert b"Listening" not in done.stderr


def test_an_address_that_is_taken_or_not_ours_is_said(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(SvacError, match=f"127.0.0.1:{taken} cannot be listened on") as caught:
            serve(settings.model_copy(update={"port": taken}))
    assert "SVAC_PORT" in caught.value.hint
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(SvacError, match="cannot be listened on") as caught:
            serve(settings.model_copy(update={"host": host, "allow_open": True}))
        assert "SVAC_HOST" in caught.value.hint
