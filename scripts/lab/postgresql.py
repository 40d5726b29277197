"""A PostgreSQL server of one's own, for tests and the drill: in a folder, on a free port of this machine only."""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg

from lab.benchmarks.server import free_port
from svac_backend.errors import SvacError

USER = "svac"
# As small as tests need it. Without fsync a power cut would cost the data, which nobody misses.
OPTIONS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=200",
    "listen_addresses=127.0.0.1",
    "logging_collector=off",
)


class PostgresServer:
    """A server that runs as a user without rights; root itself may not run one.

    Args:
        durable: with fsync, so that what was committed outlives a kill of the whole machine, too.

    Raises:
        SvacError: PostgreSQL is not installed, or does not start.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.password = f"secret-{secrets.token_hex(8)}"
        self.port = free_port()
        self._options = [f"port={self.port}", *OPTIONS[3 if durable else 0 :]]
        self._folder = Path(tempfile.mkdtemp(prefix="svac-postgresql-", dir="/tmp"))
        self._as: dict[str, int] = {}
        if os.geteuid() == 0:
            known = {one.pw_name for one in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in known else "nobody")
            self._as = {"user": user.pw_uid, "group": user.pw_gid}
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self._data, self._made = self._folder / "data", 0
        self._process: subprocess.Popen[bytes] | None = None
        word = self._folder / "password"
        word.write_text(self.password)
        word.chmod(0o644)
        try:
            command = ["--auth=scram-sha-256", f"--pwfile={word}", "--no-sync", "--no-instructions"]
            self._run("initdb", "-D", str(self._data), "-U", USER, "-E", "UTF8", "--locale=C", *command)
            self.start()
        except BaseException:
            self.close()
            raise

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database, for SVAC_DATABASE_URL."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self, like: str = "") -> str:
        """Make an empty database, or a copy of another that nobody uses; return its address."""
        self._made += 1
        name = f"svac_{self._made}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            # Copied as files: quicker than by the log where nothing is synchronised.
            template = f"TEMPLATE {like.rpartition('/')[2]}" if like else ""
            connection.execute(f"CREATE DATABASE {name} {template} STRATEGY file_copy")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Delete a database, whoever still uses it."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [_program("postgres"), "-D", str(self._data), "-k", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *(part for option in self._options for part in ("-c", option))],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                **self._as,
            )
        self._until(self._answers, "PostgreSQL did not start")

    def kill(self) -> None:
        """End the server and all its children at once, as a crash does."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it in order, whoever is connected."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def close(self) -> None:
        """End it, and delete all that it had."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise SvacError("PostgreSQL did not start.", (self._folder / "log").read_text()[-2000:])
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _until(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if time.monotonic() > deadline:
                raise SvacError(f"{what}.", (self._folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [_program(name), *arguments], capture_output=True, cwd=self._folder, check=False, **self._as
        )
        if done.returncode:
            raise SvacError(f"{name} failed.", done.stderr.decode(errors="replace")[-2000:])


def _end_with_parent() -> None:
    """Have the server end when who started it does, however: a test run that was killed must leave nothing behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


def _program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs; Debian keeps the server's out of the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    for folder in (*reversed(folders), Path("/usr/lib/postgresql/bin")):
        if (folder / name).is_file():
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise SvacError("PostgreSQL is not installed.", "On Debian: sudo apt-get install postgresql")
    return found
