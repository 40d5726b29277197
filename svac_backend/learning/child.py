"""A child process that a job runs in: it reports in lines of JSON, and ends when its parent does. Free of torch.

The child reads one line of JSON on its standard input, then waits for it to close: the parent closes it to stop the
child, or has died. On its standard output it writes lines of JSON: `progress` and `message`, and at its end `result`,
or `error` and `hint`.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from svac_backend.errors import SvacError, lacks_room, no_room

# Seconds in which a child that was asked to stop may end its step and save its state; then it is killed.
STOP_S = 60.0
# Seconds between two checks whether the parent itself should stop.
POLL_S = 0.5


class ChildDied(Exception):
    """The child ended without a result: it was killed, or crashed."""

    def __init__(self, code: int) -> None:
        super().__init__(f"signal {-code}" if code < 0 else f"status {code}")
        self.code = code


class Child:
    """The parent's side.

    Args:
        command: what to run.
        config: the line that it reads.
        log: file for its standard error.
    """

    def __init__(self, command: Sequence[str], config: Any, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        with suppress(BrokenPipeError):  # it has died; `follow` says so
            _pipe(self._process.stdin).write(json.dumps(config).encode() + b"\n")
            _pipe(self._process.stdin).flush()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def follow(self, tell: Callable[[float, str], None]) -> dict[str, Any]:
        """Wait for the child's result.

        Args:
            tell: called with each report, and at least every half second with the last one; it may raise to stop.

        Raises:
            SvacError: the error that the child reports.
            ChildDied: it ended without a result.
        """
        last: tuple[float, str] = (0.0, "Starting")
        found: dict[str, Any] | None = None
        while True:
            try:
                line = self._lines.get(timeout=POLL_S)
            except queue.Empty:
                tell(*last)
                continue
            if line is None:
                break
            said = json.loads(line)
            if "progress" in said:
                last = (float(said["progress"]), str(said["message"]))
                tell(*last)
            else:
                found = said
        code = self._process.wait()
        if found is None:
            raise ChildDied(code)
        if "error" in found:
            raise SvacError(found["error"], found["hint"], temporary=bool(found.get("temporary")))
        return dict(found["result"])

    def stop(self, grace_s: float) -> None:
        """Ask the child to stop, and kill it if it has not after `grace_s` seconds. It may have ended already."""
        with suppress(BrokenPipeError):  # it may have died with its line unread
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        for line in _pipe(self._process.stdout):
            self._lines.put(line)
        self._lines.put(None)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    """Return a pipe that `Popen` was asked to open."""
    if pipe is None:
        raise RuntimeError("the process was started without pipes")
    return pipe


class Parent:
    """The child's side: its configuration, its reports, and whether it should stop.

    Whatever the child's libraries print goes to its standard error.
    """

    def __init__(self) -> None:
        self.config = json.loads(sys.stdin.readline())
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._stopping = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def should_stop(self) -> bool:
        """Whether the parent has closed its side, or has died."""
        return self._stopping.is_set()

    def progress(self, fraction: float, message: str) -> None:
        """Report the progress of the work, 0..1."""
        self._say({"progress": fraction, "message": message})

    def run(self, work: Callable[[], dict[str, Any]]) -> int:
        """Do the work and report its result or error; return the process's exit status."""
        try:
            try:
                self._say({"result": work()})
            except Exception as error:
                if isinstance(error, SvacError) or not lacks_room(error):
                    raise
                raise no_room(error) from error
        except SvacError as error:
            self._say({"error": error.message, "hint": error.hint, "temporary": error.temporary})
        return 0

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._out.write(json.dumps(message) + "\n")
        except BrokenPipeError:
            self._stopping.set()

    def _listen(self) -> None:
        while sys.stdin.read(1):
            pass
        self._stopping.set()
        # A step of a large model can take long, and nobody waits for it any more.
        timer = threading.Timer(STOP_S, lambda: os._exit(1))
        timer.daemon = True
        timer.start()
