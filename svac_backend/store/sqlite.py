"""The default database: a SQLite file in the data folder.

Write-ahead logging lets readers go on while another process writes. A transaction that writes takes the write lock at
its start (BEGIN IMMEDIATE), because SQLite refuses at once, without waiting, to turn a read into a write when another
process wrote in between.
"""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from svac_backend.errors import StoreError, SvacError

BUSY_TIMEOUT_S = 15.0
# An upgrade of a large file, and its backup, take longer; other processes wait for it when they open the file.
UPGRADE_TIMEOUT_S = 3600.0
# Versions before the migrations kept the number of their tables in SQLite's user_version, up to 3. The next number
# keeps them from opening a file that was upgraded.
USER_VERSION = 4


class Sqlite:
    """A file; it is made if absent, readable by its owner only: it holds Label Studio's tokens.

    Args:
        path: where; SQLite gives its side files the same mode.
        json_deserializer: reads JSON columns.
    """

    insert = staticmethod(insert)

    def __init__(self, path: Path, json_deserializer: Any = None) -> None:
        self.path = path
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise self.unusable(error) from error
        # hide_parameters: an error's text must not carry tokens or task data into the log.
        self.engine: Engine = create_engine(
            f"sqlite:///{path}",
            hide_parameters=True,
            connect_args={"timeout": BUSY_TIMEOUT_S},
            json_deserializer=json_deserializer,
        )
        event.listen(self.engine, "connect", _on_connect)
        event.listen(self.engine, "begin", _on_begin)

    def __str__(self) -> str:
        return str(self.path.absolute())

    def time(self) -> float:
        """Return the time: all who have the file open have one clock."""
        return time.time()

    def lock(self, connection: Any, name: str) -> None:
        """Do nothing: who writes has locked the whole file."""

    @contextmanager
    def upgrading(self) -> Iterator[Connection]:
        """Yield a connection within a transaction that may change the schema; others wait."""
        with self.engine.execution_options(svac_write=True).connect() as connection:
            raw: Any = connection.connection.driver_connection
            # A migration that copies a table drops the old one, which would delete what refers to it.
            raw.execute("PRAGMA foreign_keys = OFF")
            raw.execute(f"PRAGMA busy_timeout = {int(1000 * UPGRADE_TIMEOUT_S)}")
            try:
                with connection.begin():
                    yield connection
                    lost = len(connection.execute(text("PRAGMA foreign_key_check")).all())
                    if lost:
                        raise SvacError(
                            f"{self} cannot be upgraded: {lost} rows refer to rows that are not there.",
                            "The file is as it was. Use the version of svac-backend that wrote it, and report this.",
                        )
                    connection.execute(text(f"PRAGMA user_version = {USER_VERSION}"))
            finally:
                connection.invalidate()  # the next one has the usual settings again

    def copy_to(self, path: Path) -> None:
        """Copy the file as it was last committed, private like itself; others may write meanwhile.

        Raises:
            StoreError: the file is damaged, or there is no room.
        """
        try:
            path.touch(mode=0o600)
            with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(path)) as target:
                source.backup(target)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error

    def unusable(self, error: BaseException) -> StoreError:
        """Return what is said of an error of the driver or the disk."""
        return _unusable(self.path, error)

    def is_mistake(self, error: DBAPIError) -> bool:
        """Whether the code is to blame, not the file, as for a constraint that is violated."""
        return type(error) not in (DatabaseError, OperationalError)


def _unusable(path: Path, error: BaseException) -> StoreError:
    code = str(getattr(error, "sqlite_errorname", ""))
    hint = "Set SVAC_DATA_DIR to a folder on a local disk that this user may write to."
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        hint = "End the other program that holds it, such as a database browser or a backup, and try again."
    elif code == "SQLITE_FULL" or getattr(error, "errno", None) == errno.ENOSPC:
        hint = "Make room on its disk, and try again."
    elif code.startswith("SQLITE_READONLY"):
        hint = f"Let this user write to {path} and to its folder."
    elif code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        hint = "Its file is damaged: stop all processes, and bring a backup back: svac-backend restore FILE."
    temporary = code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"))
    return StoreError(f"The database {path} cannot be used: {error}.", hint, temporary=temporary)


def _on_connect(connection: sqlite3.Connection, _: Any) -> None:
    # None hands the transactions to the `begin` listeners; the driver's own are always deferred.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL with WAL survives a killed process; only a power cut may lose the last commits.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("svac_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
