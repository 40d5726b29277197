"""A Label Studio on this machine, for the demo and for tests.

It runs in its own Python environment, on SQLite, listens on 127.0.0.1 only, and accepts a backend on this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient

EXECUTABLE_VARIABLE = "SVAC_LABEL_STUDIO_BIN"
# The part of our environment that Label Studio gets: it reads many short names such as HOST, PORT and DEBUG.
_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
)
_SETTINGS = {
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    # Without both, Label Studio refuses a backend on localhost or a private network.
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
    # Read only at the first start.
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    "LOCAL_FILES_SERVING_ENABLED": "true",
}
_LOG_TAIL = 15
_USERNAME = "admin@example.com"


class LabelStudioServer:
    """A Label Studio server of our own; also a context manager.

    The data folder keeps its database, its log, the login, and, while it runs, `server.json` (process and port). If a
    server already runs on the folder, `start` takes it over, and `stop` stops it.

    Attributes:
        data_dir: folder of this Label Studio; made if absent.
        files_root: folder whose sub-folders it may serve as local files.
        username, password: login of its only user, made once and kept in the data folder.
        token: the user's legacy token.
        port: known once it is started.
        log: file with its output.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        files_root: Path | None = None,
        port: int = 0,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.files_root = (files_root or self.data_dir / "files").resolve()
        self.port = port
        self.log = self.data_dir / "label-studio.log"
        self._process: psutil.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._state = self.data_dir / "server.json"
        login = self._login()
        self.username, self.password, self.token = login["username"], login["password"], login["token"]

    @property
    def url(self) -> str:
        """Address of the server, e.g. `http://127.0.0.1:8080`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        if self._child is not None:
            return self._child.poll() is None
        return self._process is not None and _alive(self._process)

    def start(self, timeout: float = 300.0) -> LabelStudioServer:
        """Start the server and wait until it answers, at most `timeout` seconds; the first start takes a minute.

        Raises:
            SvacError: Label Studio is not installed, the port is taken, it ended, or it did not answer in time.
        """
        self._process = self._take_over()
        if self._process is None:
            self.port = _free_port(self.port)
            self._launch()
        self._wait(timeout)
        return self

    def stop(self, timeout: float = 15.0) -> None:
        """End the server's process group, gently at first; do nothing if it does not run."""
        process = self._process or self._take_over()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if process is None or not _alive(process):
                break
            # It leads a session of its own, so this ends only the server and what it started.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with suppress(psutil.TimeoutExpired, subprocess.TimeoutExpired):
                (self._child or process).wait(timeout)
        self._process = self._child = None
        self._state.unlink(missing_ok=True)

    def client(self, timeout: float = 30.0) -> LabelStudioClient:
        """Return a client for its user."""
        return LabelStudioClient(self.url, self.token, timeout)

    def __enter__(self) -> LabelStudioServer:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _login(self) -> dict[str, str]:
        path = self.data_dir / "login.json"
        if path.exists():
            login: dict[str, str] = json.loads(path.read_text())
            return login
        self.data_dir.mkdir(parents=True, exist_ok=True)
        login = {"username": _USERNAME, "password": secrets.token_urlsafe(12), "token": secrets.token_hex(20)}
        path.touch(mode=0o600)
        path.write_text(json.dumps(login))
        return login

    def _take_over(self) -> psutil.Process | None:
        """Return the server that runs on the data folder, and take its port."""
        if not self._state.exists():
            return None
        state = json.loads(self._state.read_text())
        # After a reboot another process may have the same id, but not the same creation time.
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(state["pid"])
            if abs(process.create_time() - state["created"]) < 1 and _alive(process):
                self.port = int(state["port"])
                return process
        return None

    def _launch(self) -> None:
        executable = find_executable()
        self.files_root.mkdir(parents=True, exist_ok=True)
        arguments = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [str(executable), *arguments],
                # In another folder it would keep its files in `mydata` and report our repository's version.
                cwd=self.data_dir,
                env=self._environment(executable),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._process = psutil.Process(self._child.pid)
        state = {"pid": self._child.pid, "created": self._process.create_time(), "port": self.port}
        self._state.write_text(json.dumps(state))

    def _environment(self, executable: Path) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {
            **inherited,
            **_SETTINGS,
            "PATH": f"{executable.parent}{os.pathsep}{inherited.get('PATH', '')}",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_HOST": self.url,
            "LABEL_STUDIO_USERNAME": self.username,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LOCAL_FILES_DOCUMENT_ROOT": str(self.files_root),
        }

    def _wait(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not self._healthy():
            if not self.running:
                raise self._failure("ended while it started")
            if time.monotonic() > end:
                self.stop()
                raise self._failure(f"did not answer within {timeout:g} s")
            time.sleep(0.25)

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _failure(self, what: str) -> SvacError:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return SvacError("\n".join([f"Label Studio {what}.", *lines[-_LOG_TAIL:]]), f"See {self.log}.")


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def find_executable() -> Path:
    """Return Label Studio's command: SVAC_LABEL_STUDIO_BIN, or from `.venv-label-studio`, or from PATH.

    Raises:
        SvacError: there is none.
    """
    if named := os.environ.get(EXECUTABLE_VARIABLE):
        candidates = [Path(named)]
    else:
        folders = (Path.cwd(), Path(__file__).resolve().parents[2])
        candidates = [folder / ".venv-label-studio/bin/label-studio" for folder in folders]
        candidates += [Path(found)] if (found := shutil.which("label-studio")) else []
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise SvacError(
        f"Label Studio is not installed ({', '.join(map(str, candidates))}).",
        f"Run scripts/setup.sh, or set {EXECUTABLE_VARIABLE} to its command.",
    )


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise SvacError(f"Port {wanted} is taken ({error.strerror}).", "Choose another one.") from error
        return int(probe.getsockname()[1])
