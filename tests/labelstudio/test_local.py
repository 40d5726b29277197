"""Starting and stopping a server of our own, with a small stand-in for Label Studio's command."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.local import LabelStudioServer, find_executable

# Answers /health, writes its environment, and has a child that would outlive a careless stop.
STAND_IN = """#!{python}
import http.server, json, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
seen = {{"env": dict(os.environ), "argv": sys.argv[1:], "cwd": os.getcwd(), "child": child.pid}}
json.dump(seen, open("seen.json", "w"))
if {fails}:
    print("the database is on fire")
    sys.exit(child.kill())
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "label-studio"
    path.write_text(STAND_IN.format(python=sys.executable, fails=False))
    path.chmod(0o755)
    monkeypatch.setenv("SVAC_LABEL_STUDIO_BIN", str(path))
    return path


def seen(server: LabelStudioServer) -> Any:
    return json.loads((server.data_dir / "seen.json").read_text())


@pytest.mark.usefixtures("stand_in")
def test_start_stop_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "https://somewhere.else")
    monkeypatch.setenv("LABEL_STUDIO_DATABASE", "someone's")
    monkeypatch.setenv("SVAC_LABEL_STUDIO_API_KEY", "secret")
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with LabelStudioServer(tmp_path / "ls") as server:
            assert server.running
            report = seen(server)
            environment = report["env"]
            assert report["cwd"] == str(server.data_dir)
            assert report["argv"][-2:] == ["--port", str(server.port)]
            assert "127.0.0.1" in report["argv"]
            assert environment["LABEL_STUDIO_HOST"] == server.url
            assert environment["ML_BLOCK_LOCAL_IP"] == environment["SSRF_PROTECTION_ENABLED"] == "false"
            assert environment["LABEL_STUDIO_USER_TOKEN"] == server.token
            assert not {"HOST", "LABEL_STUDIO_DATABASE", "SVAC_LABEL_STUDIO_API_KEY"} & set(environment)
        assert not server.running
        assert gone(report["child"])
        assert bystander.poll() is None
        server.stop()
    finally:
        bystander.kill()
        bystander.wait()


def gone(pid: int) -> bool:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.usefixtures("stand_in")
def test_running_server_is_taken_over_and_login_is_kept(tmp_path: Path) -> None:
    first = LabelStudioServer(tmp_path / "ls").start()
    second = LabelStudioServer(tmp_path / "ls").start()
    assert (second.url, second.token, second.password) == (first.url, first.token, first.password)
    second.stop()
    assert not first.running
    third = LabelStudioServer(tmp_path / "ls")
    assert (third.token, third.running) == (first.token, False)
    assert (tmp_path / "ls" / "login.json").stat().st_mode & 0o077 == 0


def test_process_that_took_the_number_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        server = LabelStudioServer(tmp_path / "ls")
        (tmp_path / "ls" / "server.json").write_text(f'{{"pid": {stranger.pid}, "created": 1.0, "port": 1}}')
        server.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_server_that_ends_shows_its_last_words(tmp_path: Path, stand_in: Path) -> None:
    stand_in.write_text(STAND_IN.format(python=sys.executable, fails=True))
    with pytest.raises(SvacError, match=r"ended while it started(.|\n)*the database is on fire"):
        LabelStudioServer(tmp_path / "ls").start()


def test_server_that_does_not_answer_is_stopped(tmp_path: Path, stand_in: Path) -> None:
    stand_in.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    server = LabelStudioServer(tmp_path / "ls")
    with pytest.raises(SvacError, match=r"did not answer within 1\.3 s"):
        server.start(timeout=1.3)
    assert not server.running


@pytest.mark.usefixtures("stand_in")
def test_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SvacError, match=f"Port {port} is taken"):
            LabelStudioServer(tmp_path / "ls", port=port).start()


def test_command_is_found_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Path) -> None:
    assert find_executable() == stand_in
    monkeypatch.setenv("SVAC_LABEL_STUDIO_BIN", str(tmp_path / "missing"))
    with pytest.raises(SvacError, match="is not installed") as caught:
        find_executable()
    assert "setup.sh" in caught.value.hint
    assert os.fspath(tmp_path / "missing") in caught.value.message
