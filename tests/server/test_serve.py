"""The real web process: waitress, started as `svac-backend serve` starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from flask import Flask

from svac_backend.errors import SvacError
from svac_backend.server.app import Server, _listener, serve
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.workers import WorkerStore
from tests.server.bodies import predict_body, task

SERVE = """
from svac_backend.server.app import Server, _listener, serve
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


def notices(answer: httpx.Response) -> int:
    """Return how many tasks were told that their masks are not there yet; nothing else may be answered."""
    results = answer.json()["results"]
    told = [region for result in results for region in result["result"]]
    assert all(region["type"] == "textarea" for region in told)
    return sum("waits for other work" in region["value"]["text"][-1] for region in told)


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
    # Without a worker nobody waits.
    WorkerStore(Database.from_settings(settings)).beat("stand-in", device="none")
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
        assert [notices(call.result()) for call in waiting] == [1, 1]
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


def test_slow_clients_hold_no_thread(server: tuple[subprocess.Popen[bytes], str]) -> None:
    """A hundred half-sent requests beside /health; eight of them once stopped everything."""
    _, url = server
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    head = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n"
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address)) for _ in range(100)]
        for number, one in enumerate(slow):
            one.sendall(head + b'\r\n{"action": "A' if number % 2 else head)
        times = []
        with httpx.Client(base_url=url, timeout=10) as client:
            for number in range(30):
                begun = time.monotonic()
                assert client.get("/health").status_code == 200
                times.append(time.monotonic() - begun)
                slow[number].sendall(b"x")
        assert sorted(times)[-2] < 1.0
        # They are still there, and are answered when they have sent all.
        slow[99].sendall(b'"' + b" " * 885 + b"}")
        slow[99].settimeout(10)
        assert slow[99].recv(100).startswith(b"HTTP/1.1 201")


def test_a_request_that_never_ends_is_cut_off(make: Callable[..., Flask], settings: Settings) -> None:
    with _listener("127.0.0.1", 0) as listener:
        server = Server(make(), listener, settings, arrival_s=1.0)
        thread = threading.Thread(target=server.run)
        thread.start()
        begun = time.monotonic()
        with socket.create_connection(listener.getsockname()) as one:
            one.settimeout(0.1)
            closed = False
            while not closed and time.monotonic() - begun < 10:
                try:
                    one.sendall(b"G")
                    closed = one.recv(10) == b""
                except TimeoutError:
                    continue
                except OSError:
                    closed = True
        server.stop()
        thread.join(15)
    assert closed
    assert time.monotonic() - begun < 8
    assert not thread.is_alive()


def test_what_has_begun_ends_after_sigterm(server: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = server
    with httpx.Client(base_url=url, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.post, "/predict", json=predict_body(task(1), text="x"))
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert notices(call.result()) == 1
    process.communicate(timeout=20)
    assert process.returncode == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health", timeout=2)


def test_a_body_that_is_too_large_is_refused_before_it_comes(
    server: tuple[subprocess.Popen[bytes], str],
) -> None:
    _, url = server
    head = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as one:
        one.settimeout(10)
        one.sendall(head)
        assert b" 413 " in one.recv(100)
