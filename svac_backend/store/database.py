"""The database: a SQLite file in the data folder, or a PostgreSQL server; and how an older database is upgraded.

A new database gets the tables of `store/tables.py`. An older one is upgraded in place by the migrations in
`store/migrations/`, forward only, after a backup in the data folder. To change a table: change it in `tables.py`, write
the next migration `NNNN_what.py` for both databases, and set `schema.HEAD`; tests check that both ways lead to the same
schema.
"""

from __future__ import annotations

import errno
import json
import logging
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from svac_backend.atomic import atomic_path
from svac_backend.errors import StoreError, SvacError
from svac_backend.settings import Settings
from svac_backend.store.postgresql import Postgresql
from svac_backend.store.schema import HEAD, make_tables, migrate, revision_of
from svac_backend.store.sqlite import Sqlite
from svac_backend.store.tables import Base

FILE_NAME = "svac.db"
# Stands in for the value of a JSON column that is damaged.
UNREADABLE = "unreadable"
# Files that show that a data folder is ours.
_OURS = (FILE_NAME, "workers", "media.key")

log = logging.getLogger(__name__)


class DatabaseSystem(Protocol):
    """What SQLite and PostgreSQL do differently; see `store.sqlite` and `store.postgresql`."""

    engine: Engine
    insert: Callable[..., Any]

    def time(self) -> float: ...
    def lock(self, connection: Any, name: str) -> None: ...
    def upgrading(self) -> AbstractContextManager[Connection]: ...
    def copy_to(self, path: Path) -> None: ...
    def unusable(self, error: BaseException) -> StoreError: ...
    def is_mistake(self, error: DBAPIError) -> bool: ...


class Database:
    """The state of the backend. Safe to use from several threads and processes at once.

    Args:
        data_dir: folder of the SQLite file `svac.db` and of the files that go with a database; it is made if absent.
        url: a PostgreSQL server; empty: the file.

    Raises:
        SvacError: the folder cannot be written, the server cannot be reached, or what is there is not our database or
            belongs to a newer version.
    """

    def __init__(self, data_dir: Path, url: str = "") -> None:
        self.data_dir = data_dir
        try:
            _make_private(data_dir)
        except OSError as error:
            raise _no_folder(data_dir, error) from error
        self.system = _system(data_dir, url)
        self.engine = self.system.engine
        self._writer = self.engine.execution_options(svac_write=True)
        with self._translated():
            self._prepare()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the database that the settings name."""
        url = settings.database_url
        return cls(settings.data_dir, url.get_secret_value() if url is not None else "")

    def __str__(self) -> str:
        """Return its name in messages, without any password."""
        return str(self.system)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a session that only reads.

        Raises:
            StoreError: the database cannot be used now.
        """
        with self._translated(), Session(self.engine) as session:
            yield session

    @contextmanager
    def write(self, *locks: str) -> Iterator[Session]:
        """Yield a session that commits at the end, and rolls back on an exception.

        In SQLite it holds the write lock. In PostgreSQL others write meanwhile: read rows that you mean to change
        `with_for_update`, and name a lock for what must not happen twice at once. Name one, too, for changes to several
        rows: two transactions that lock the same rows in different orders would wait for each other.

        Args:
            locks: held until the end of the transaction; several are taken in the order of their names.

        Raises:
            StoreError: the database cannot be used now; nothing was changed.
        """
        with self._translated(), Session(self._writer) as session, session.begin():
            for lock in sorted(locks):
                self.system.lock(session, lock)
            yield session

    def insert(self, table: type[Base]) -> Any:
        """Return an insert that knows `on_conflict_do_update` and `on_conflict_do_nothing`."""
        return self.system.insert(table)

    def time(self) -> float:
        """Return the seconds since the epoch by the one clock that all users of the database share.

        Raises:
            StoreError: the database cannot be used now.
        """
        with self._translated():
            return self.system.time()

    def look(self, query: str) -> list[Any]:
        """Return the first column of an SQL query's rows: for polling, at a tenth of the cost of `read`.

        Raises:
            StoreError: the database cannot be used now.
        """
        with self._translated():
            try:
                with closing(self.engine.raw_connection()) as connection:
                    raw: Any = connection.driver_connection
                    return [row[0] for row in raw.execute(query)]
            except (
                self.engine.dialect.loaded_dbapi.Error
            ) as error:  # the driver's own, not wrapped by sqlalchemy
                raise self.system.unusable(error) from error

    def size(self) -> int | None:
        """Return the size in bytes of a PostgreSQL database on its server; None for a file in the data folder.

        Raises:
            StoreError: the database cannot be used now.
        """
        if not isinstance(self.system, Postgresql):
            return None
        with self.read() as session:
            return session.scalar(text("SELECT pg_database_size(current_database())"))

    def copy_to(self, path: Path) -> None:
        """Write all that is committed into a SQLite file that only its owner can read; others may write meanwhile.

        Raises:
            StoreError: the database is damaged, or the disk is full.
        """
        with self._translated():
            self.system.copy_to(path)

    def copy_from(self, path: Path) -> None:
        """Replace all that a PostgreSQL database holds by what `copy_to` wrote at the same revision.

        Raises:
            StoreError: the database cannot be used now; nothing was changed.
        """
        assert isinstance(self.system, Postgresql)
        with self._translated():
            self.system.copy_from(path)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if self.system.is_mistake(error):
                raise
            raise self.system.unusable(error.orig or error) from error

    def _prepare(self) -> None:
        with self.engine.connect() as connection:  # without a lock: there is nearly always nothing to do
            if not self._behind(connection):
                return
        with self.system.upgrading() as connection:
            if self._behind(connection):  # look again: another process may have been faster
                self._upgrade(connection)

    def _behind(self, connection: Connection) -> bool:
        """Whether the database is empty or has an older schema."""
        revision = revision_of(connection)
        if revision > HEAD:
            raise SvacError(
                f"{self} was written by a newer version of svac-backend (schema {revision}; "
                f"this version knows {HEAD}).",
                "Update svac-backend for all processes that use it.",
            )
        return revision < HEAD

    def _upgrade(self, connection: Connection) -> None:
        """Make the tables, or bring them up to date; the connection holds the lock."""
        if inspect(connection).has_table("jobs"):
            backup = self._back_up()
            log.warning("the database %s is upgraded to schema %s; %s is its backup", self, HEAD, backup)
            migrate(connection)
        else:
            make_tables(connection)

    def _back_up(self) -> Path:
        """Copy all that is committed; return the copy's path."""
        path = self.data_dir / f"{FILE_NAME}.before-{HEAD}"
        try:
            with atomic_path(path, durable=True) as part:
                self.copy_to(part)
        except OSError as error:
            raise _no_folder(path, error) from error
        return path


def pack(data: Any) -> bytes:
    """Return compressed JSON. Level 1: a body of a megabyte must not hold up the answer to a webhook."""
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 1)


def unpack(blob: bytes) -> Any:
    """Read what `pack` wrote."""
    return json.loads(zlib.decompress(blob))


def _from_json(text: str | bytes) -> Any:
    """Read a JSON column. A damaged one must not keep the other rows from being read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return {UNREADABLE: str(error)}


def is_there(settings: Settings) -> bool:
    """Whether there is a database, as far as one can tell without making it."""
    return settings.database_url is not None or (settings.data_dir / FILE_NAME).is_file()


def _system(data_dir: Path, url: str) -> DatabaseSystem:
    return Postgresql(url, _from_json) if url else Sqlite(data_dir / FILE_NAME, _from_json)


def _make_private(folder: Path) -> None:
    """Make the data folder, or close it to other users: it holds tokens and what people drew.

    A folder that holds other things and no database yet is not ours alone, and keeps its mode.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = folder.stat().st_mode
    ours = any((folder / name).exists() for name in _OURS) or not any(folder.iterdir())
    if mode & 0o077 and not mode & stat.S_ISVTX and ours:
        with suppress(PermissionError):  # it belongs to another user, who decides
            folder.chmod(0o700)


def _no_folder(path: Path, error: OSError) -> StoreError:
    full = error.errno == errno.ENOSPC
    hint = "Set SVAC_DATA_DIR to a folder on a local disk that this user may write to."
    return StoreError(
        f"{path} cannot be used: {error}.", "Free some space on its disk and try again." if full else hint
    )
