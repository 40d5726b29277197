"""The database file: SQLite, shared by the web process and the workers."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from svac_backend.errors import SvacError
from svac_backend.store.tables import OLDEST_SCHEMA, SCHEMA_VERSION, Base

FILE_NAME = "svac.db"
BUSY_TIMEOUT_S = 15.0


class StoreError(SvacError):
    """The database cannot be used now: it is locked for long, its disk is full, or its file is damaged."""


class Database:
    """The state in `<data_dir>/svac.db`. Safe to use from several threads and processes at once.

    Write-ahead logging lets readers go on while another process writes. A transaction that writes takes the
    write lock at its start (BEGIN IMMEDIATE), because SQLite refuses at once, without waiting, to turn a read
    into a write when another process wrote in between.

    Args:
        data_dir: folder of the file; it is made if absent.

    Raises:
        SvacError: the folder cannot be written, or the file is no database of this version.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE_NAME
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            # It holds Label Studio's tokens; SQLite gives its side files the same mode.
            self.path.touch(mode=0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        # hide_parameters: an error's text must not carry tokens or task data into the log.
        self.engine: Engine = create_engine(
            f"sqlite:///{self.path}", hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S}
        )
        event.listen(self.engine, "connect", _on_connect)
        event.listen(self.engine, "begin", _on_begin)
        self._writer = self.engine.execution_options(svac_write=True)
        try:
            self._prepare()
        except DatabaseError as error:
            raise _unusable(self.path, error.orig or error) from error

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a session that only reads.

        Raises:
            StoreError: the database cannot be used now.
        """
        with self._translated(), Session(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yield a session that holds the write lock; commits at the end, rolls back on an exception.

        Raises:
            StoreError: the database cannot be used now; nothing was changed.
        """
        with self._translated(), Session(self._writer) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            # Of the other kinds, such as a constraint that is violated, the code is to blame, not the file.
            if type(error) not in (DatabaseError, OperationalError):
                raise
            raise _unusable(self.path, error.orig or error) from error

    def _prepare(self) -> None:
        with Session(self._writer) as session, session.begin():
            connection = session.connection()
            found = connection.execute(text("PRAGMA user_version")).scalar_one()
            if found == 0 or OLDEST_SCHEMA <= found < SCHEMA_VERSION:
                Base.metadata.create_all(connection)  # only the tables that are not there
                connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))
            elif found != SCHEMA_VERSION:
                raise SvacError(
                    f"{self.path} was written by another version of svac-backend (schema {found}, "
                    f"this one has {SCHEMA_VERSION}).",
                    "Use that version, or set SVAC_DATA_DIR to a new folder.",
                )


def pack(data: Any) -> bytes:
    """Return JSON, compressed. Level 1: a body of a megabyte must not hold up a webhook's answer."""
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 1)


def unpack(blob: bytes) -> Any:
    """Read what `pack` wrote."""
    return json.loads(zlib.decompress(blob))


def _unusable(path: Path, error: BaseException) -> StoreError:
    hint = "Set SVAC_DATA_DIR to a folder on a local disk that this user may write to."
    if "locked" in str(error):
        hint = "End the other program that holds it, such as a database browser or a backup, and try again."
    elif "full" in str(error):
        hint = "Make room on its disk, and try again."
    return StoreError(f"The database {path} cannot be used: {error}.", hint)


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
