"""The quickstart's processes, its ports, and the lock on its folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from svac_backend.errors import SvacError

LOCAL = "127.0.0.1"
_STOP_S = 20.0
_TAIL_LINES = 25


def tail(log: Path) -> str:
    """Return the last lines of a log file, or a note that there is none."""
    if not log.is_file():
        return f"({log} was not written)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


class Process:
    """A child process in its own session, so that Ctrl-C in the terminal reaches only us.

    Args:
        name: for messages.
        command: program and arguments.
        log: file for its output; overwritten.
        env: its whole environment.
        cwd: the folder that it runs in.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def check(self) -> None:
        """Raise `SvacError`, with the end of the log, if the process has ended."""
        code = self._popen.poll()
        if code is not None:
            raise SvacError(
                f"{self.name} ended with exit status {code}. The end of its log:\n{tail(self.log)}\n",
                f"All of it is in {self.log}.",
            )

    def stop(self) -> None:
        """Ask the process and its children to end; kill those that have not ended after 20 s."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        try:
            self._popen.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()


def wait_until_up(url: str, process: Process, timeout: float) -> None:
    """Wait until `url` answers with 200.

    Raises:
        SvacError: the process ended, or did not answer within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        process.check()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        time.sleep(0.25)
    raise SvacError(
        f"{process.name} did not answer at {url} within {timeout:.0f} s. The end of its log:\n{tail(process.log)}\n",
        f"Look into {process.log}.",
    )


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCAL, port))
        except OSError:
            return False
    # On some systems the bind above succeeds although another program listens on all addresses.
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOCAL, port)) != 0


def choose_port(wanted: int, taken: Sequence[int] = ()) -> int:
    """Return `wanted`, or the next free port after it.

    Args:
        wanted: first port to try.
        taken: ports that are reserved, although nothing listens on them yet.

    Raises:
        SvacError: none of 100 ports is free.
    """
    for port in range(wanted, min(wanted + 100, 65536)):
        if port not in taken and is_free(port):
            return port
    raise SvacError(f"No port from {wanted} on is free.", "Name another with --port or --backend-port.")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone: two Label Studios on one database damage it.

    Raises:
        SvacError: another quickstart holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise SvacError(
                f"A quickstart already runs in {folder} (process {holder}).",
                "Stop it with Ctrl-C where it runs, or use another folder: --data DIR.",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
