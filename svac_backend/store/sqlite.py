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
# Upgrading a large file takes longer, and so does its backup; other processes wait for it when they open the file.
UPGRADE_TIMEOUT_S = 3600.0
# Versions before the migrations kept the number of their schema in SQLite's user_version, up to 3. The next number
# keeps them from opening an upgraded file.
USER_VERSION = 4


class Sqlite:
    """A database file. It is made if absent, readable only by its owner: it holds Label Studio's tokens.

    Args:
        path: the file; SQLite gives its side files the same mode.
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
        """Return this machine's time: all processes that share the file have the same clock."""
        return time.time()

    def lock(self, connection: Any, name: str) -> None:
        """Do nothing: a writer has locked the whole file already."""

    @contextmanager
    def upgrading(self) -> Iterator[Connection]:
        """Yield a connection within a transaction that may change the schema; others wait."""
        with self.engine.execution_options(svac_write=True).connect() as connection:
            raw: Any = connection.connection.driver_connection
            # A migration that copies a table drops the old one, which would delete the rows that refer to it.
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
                connection.invalidate()  # so that the next connection has the usual settings

    def copy_to(self, path: Path) -> None:
        """Copy all that is committed to a file that is private, too; others may write meanwhile.

        Raises:
            StoreError: the file is damaged, or the disk is full.
        """
        try:
            path.touch(mode=0o600)
            with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(path)) as target:
                source.backup(target)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error

    def unusable(self, error: BaseException) -> StoreError:
        """Return the error to raise for an error of the driver or the disk."""
        return _unusable(self.path, error)

    def is_mistake(self, error: DBAPIError) -> bool:
        """Whether the code is to blame, not the file, as when a constraint is violated."""
        return type(error) not in (DatabaseError, OperationalError)


def _unusable(path: Path, error: BaseException) -> StoreError:
    code = str(getattr(error, "sqlite_errorname", ""))
    hint = "Set SVAC_DATA_DIR to a folder on a local disk that this user may write to."
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        hint = "Stop the other program that holds it, such as a database browser or a backup, and try again."
    elif code == "SQLITE_FULL" or getattr(error, "errno", None) == errno.ENOSPC:
        hint = "Free some space on its disk and try again."
    elif code.startswith("SQLITE_READONLY"):
        hint = f"Let this user write to {path} and to its folder."
    elif code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        hint = "The file is damaged: stop all processes, and restore a backup: svac-backend restore FILE."
    temporary = code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"))
    return StoreError(f"The database {path} cannot be used: {error}.", hint, temporary=temporary)


def _on_connect(connection: sqlite3.Connection, _: Any) -> None:
    # None leaves transactions to the `begin` listeners; those of the driver are always deferred.
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
