"""The database file: SQLite, shared by the web process and the workers, and how an older one is brought up to date.

A new file gets the tables as they are in `store/tables.py`. A file of an older version is upgraded in place by the
migrations in `store/migrations/`, forward only, after a backup beside it. To change a table: change it in `tables.py`,
write `NNNN_what.py` as the next migration, and set `HEAD`; the tests compare both ways to the same schema.
"""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from svac_backend.atomic import atomic_path
from svac_backend.errors import SvacError
from svac_backend.store.tables import Base

FILE_NAME = "svac.db"
BUSY_TIMEOUT_S = 15.0
# An upgrade of a large file, and its backup, take longer; other processes wait for it when they open the file.
UPGRADE_TIMEOUT_S = 3600.0

MIGRATIONS = Path(__file__).with_name("migrations")
HEAD = "0004"  # the last of them
# Versions before the migrations kept the number of their tables in SQLite's user_version, up to 3. The next number
# keeps them from opening a file that was upgraded.
USER_VERSION = 4

# In place of what a JSON column holds where that is damaged.
UNREADABLE = "unreadable"

log = logging.getLogger(__name__)


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
        SvacError: the folder cannot be written, or the file is no database or one of a newer version.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE_NAME
        try:
            _make_private(data_dir)
            # It holds Label Studio's tokens; SQLite gives its side files the same mode.
            self.path.touch(mode=0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        # hide_parameters: an error's text must not carry tokens or task data into the log.
        self.engine: Engine = create_engine(
            f"sqlite:///{self.path}",
            hide_parameters=True,
            connect_args={"timeout": BUSY_TIMEOUT_S},
            json_deserializer=_from_json,
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

    def look(self, query: str) -> list[Any]:
        """Return the first column of what a query in SQL finds: for polling, at a tenth of the cost of `read`.

        Raises:
            StoreError: the database cannot be used now.
        """
        with self._translated(), closing(self.engine.raw_connection()) as connection:
            raw: Any = connection.driver_connection
            try:
                return [row[0] for row in raw.execute(query)]
            except sqlite3.Error as error:
                raise _unusable(self.path, error) from error

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
        with (
            self.engine.connect() as connection
        ):  # without the write lock: nearly always there is nothing to do
            if not self._behind(connection):
                return
        with self._writer.connect() as connection:
            raw: Any = connection.connection.driver_connection
            # A migration that copies a table drops the old one, which would delete what refers to it.
            raw.execute("PRAGMA foreign_keys = OFF")
            raw.execute(f"PRAGMA busy_timeout = {int(1000 * UPGRADE_TIMEOUT_S)}")
            try:
                with connection.begin():
                    if self._behind(connection):  # still: another process may have been faster
                        self._upgrade(connection)
            finally:
                connection.invalidate()  # the next one has the usual settings again

    def _behind(self, connection: Connection) -> bool:
        """Whether the file is empty or of an older version."""
        revision = _revision(connection)
        if revision > HEAD:
            raise SvacError(
                f"{self.path} was written by a newer version of svac-backend (schema {revision}; "
                f"this version knows {HEAD}).",
                "Update svac-backend, for all processes that use this folder.",
            )
        return revision < HEAD

    def _upgrade(self, connection: Connection) -> None:
        """Make the tables, or bring them up to date; the connection holds the write lock."""
        if inspect(connection).has_table("jobs"):
            backup = self._back_up()
            log.warning("the database %s is upgraded to schema %s; %s is its backup", self.path, HEAD, backup)
            _migrate(connection)
            lost = len(connection.execute(text("PRAGMA foreign_key_check")).all())
            if lost:
                raise SvacError(
                    f"{self.path} cannot be upgraded: {lost} rows refer to rows that are not there.",
                    "The file is as it was. Use the version of svac-backend that wrote it, and report this.",
                )
        else:
            Base.metadata.create_all(connection)
            _stamp(connection)
        connection.execute(text(f"PRAGMA user_version = {USER_VERSION}"))

    def _back_up(self) -> Path:
        """Copy the file as it was last committed, private like itself; return the copy's path."""
        path = self.path.with_name(f"{FILE_NAME}.before-{HEAD}")
        try:
            with atomic_path(path, durable=True) as part:
                self.copy_to(part)
        except OSError as error:
            raise _unusable(path, error) from error
        return path


def _revision(connection: Connection) -> str:
    """Return the number of the last migration that a file has seen; it is empty before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _migrate(connection: Connection) -> None:
    """Take the steps from the file's revision to `HEAD`, within the transaction of the connection."""
    # Here, since it takes as long as all other imports of the store, and is needed once in the life of a file.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for script in reversed(list(scripts.iterate_revisions(HEAD, _revision(connection) or "base"))):
            script.module.upgrade()
    context.stamp(scripts, HEAD)


def _stamp(connection: Connection) -> None:
    """Mark new tables as up to date, as alembic does, without its import."""
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": HEAD})


def pack(data: Any) -> bytes:
    """Return JSON, compressed. Level 1: a body of a megabyte must not hold up a webhook's answer."""
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 1)


def unpack(blob: bytes) -> Any:
    """Read what `pack` wrote."""
    return json.loads(zlib.decompress(blob))


def _from_json(text: str) -> Any:
    """Read a JSON column. A damaged one must not keep the other rows from being read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return {UNREADABLE: str(error)}


def _make_private(folder: Path) -> None:
    """Make the data folder, or close it for all others: it holds tokens and what people drew.

    A folder that is not only ours, which holds other things before there is a database in it, stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = folder.stat().st_mode
    ours = (folder / FILE_NAME).exists() or not any(folder.iterdir())
    if mode & 0o077 and not mode & stat.S_ISVTX and ours:
        with suppress(PermissionError):  # of another user, who decides
            folder.chmod(0o700)


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
