"""A PostgreSQL server in place of the file, named by SVAC_DATABASE_URL.

Rows are locked, not the database: read a row that you mean to change `with_for_update`, and name a lock for what must
not happen twice at once, such as looking for a row and adding it (`Database.write`). No password leaves this module:
messages name only the server and the database.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError, ProgrammingError, SQLAlchemyError

from svac_backend.errors import SettingsError, StoreError
from svac_backend.store.copies import copy_in, copy_out
from svac_backend.store.schema import migrate, revision_of

# Seconds: how long to wait for a lock of others; how long a transaction may stand still, as a frozen worker's does,
# before the server ends it and frees its locks; how long connecting may take; how long a dead network goes unnoticed.
LOCK_TIMEOUT_S, IDLE_TIMEOUT_S, CONNECT_TIMEOUT_S, SILENCE_S = 15, 60, 10, 20
# Seconds after which the server's clock is read again.
CLOCK_S = 60.0
_LOCK = "SELECT pg_advisory_xact_lock(:key)"

# What to do, by SQLSTATE or its beginning. In all other cases the server cannot be reached or does not admit us.
_HINTS = {
    "53100": "Free some space on its disk and try again.",
    "53300": "Raise its max_connections, or start fewer processes.",
    "55P03": "Stop the other program that holds a lock in it, and try again.",
    "57014": "Stop the other program that holds it, or raise its statement_timeout.",
    "25006": "It is read-only: name the primary server in SVAC_DATABASE_URL.",
    "42501": "Let its user create and change tables: GRANT ALL ON SCHEMA public.",
    "XX": "Its files are damaged: see its log, and restore a backup: svac-backend restore FILE.",
}
_UNREACHED = "Check that the server runs and that SVAC_DATABASE_URL is right; work resumes once it is back."


class Postgresql:
    """A database on a server. It connects on first use.

    Args:
        url: `postgresql://user:password@host:port/database`, or any other address that libpq takes.
        json_deserializer: reads JSON columns.

    Raises:
        SettingsError: the address cannot be parsed.
    """

    insert = staticmethod(insert)

    def __init__(self, url: str, json_deserializer: Any = None) -> None:
        self.url = _parsed(url)
        self._hidden = [str(word) for word in (self.url.password, self.url.query.get("password")) if word]
        host = self.url.host or self.url.query.get("host") or "this machine"
        self._name = f"{self.url.database or 'of the user'} at {host}:{self.url.port or 5432}"
        self._clock: tuple[float, float] | None = None  # the server's time, and ours that nobody sets
        self.engine: Engine = create_engine(
            self.url,
            hide_parameters=True,
            # Replace a connection that was lost, as after a restart of the server.
            pool_pre_ping=True,
            pool_recycle=3600,
            max_overflow=40,
            json_deserializer=json_deserializer,
            connect_args={
                "application_name": "svac-backend",
                "connect_timeout": CONNECT_TIMEOUT_S,
                "keepalives_idle": SILENCE_S,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 1000 * SILENCE_S,
                "prepare_threshold": None,  # so that a connection pooler may stand in between
            },
        )
        event.listen(self.engine, "connect", self._on_connect)

    def __str__(self) -> str:
        return f"PostgreSQL database {self._name}"

    def time(self) -> float:
        """Return the server's time, since machines that share a database have different clocks.

        Between two readings this process's own monotonic clock counts on, so that setting a clock does no harm.
        """
        if self._clock is None or time.monotonic() - self._clock[1] > CLOCK_S:
            with self.engine.connect() as connection:
                self._look_at_clock(connection.connection.driver_connection)
        assert self._clock is not None
        then, seen = self._clock
        return then + time.monotonic() - seen

    def lock(self, connection: Any, name: str) -> None:
        """Hold a lock until the end of the transaction; whoever else takes it waits."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        connection.execute(text(_LOCK), {"key": int.from_bytes(digest[:8], "big", signed=True)})

    @contextmanager
    def upgrading(self) -> Iterator[Connection]:
        """Yield a connection within a transaction that may change the schema; other upgrades wait."""
        with self.engine.connect() as connection, connection.begin():
            connection.execute(text("SET LOCAL lock_timeout = '1h'"))
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            self.lock(connection, "upgrade")
            yield connection

    @contextmanager
    def moment(self) -> Iterator[Connection]:
        """Yield a connection that sees all tables as they were at one moment."""
        engine = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with engine.connect() as connection, connection.begin():
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield connection

    def copy_to(self, path: Path) -> None:
        """Write all rows, as they are now, into a new SQLite file of the same revision; others may write meanwhile."""
        with self.moment() as source:
            copy_out(source, path, partial(migrate, to=revision_of(source)))

    def copy_from(self, path: Path) -> None:
        """Replace all that is there by what `copy_to` wrote; the revisions must be equal."""
        with self.upgrading() as target:
            copy_in(path, target)

    def others(self) -> int:
        """Return how many connections other processes of ours have open."""
        ours = (
            "datname = current_database() AND application_name = 'svac-backend' AND pid <> pg_backend_pid()"
        )
        self.engine.dispose()
        with self.engine.connect() as connection:
            found = connection.execute(text(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}"))
            return int(found.scalar_one())

    def unusable(self, error: BaseException) -> StoreError:
        """Return the error to raise for an error of the driver."""
        state = str(getattr(error, "sqlstate", None) or "")
        hint = next((hint for code, hint in _HINTS.items() if state.startswith(code)), _UNREACHED)
        said = " ".join(str(error).split()).rstrip(".?")
        for word in self._hidden:
            said = said.replace(word, "***")
        # Anything else that is wrong with a server passes, or an operator mends it.
        temporary = not state.startswith(("XX", "42"))
        return StoreError(f"The {self} cannot be used: {said}.", hint, temporary=temporary)

    def is_mistake(self, error: DBAPIError) -> bool:
        """Whether the code is to blame, not the server, as when a constraint is violated."""
        if isinstance(error, ProgrammingError):
            # Without a state it never reached the server: libpq does not know an option.
            return getattr(error.orig, "sqlstate", None) not in (None, "42501")
        return not (isinstance(error, OperationalError | InternalError) or error.connection_invalidated)

    def _on_connect(self, connection: Any, _: Any) -> None:
        connection.execute(
            f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'; "
            f"SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_S}s'"
        )
        self._look_at_clock(connection)
        connection.commit()

    def _look_at_clock(self, connection: Any) -> None:
        begun = time.monotonic()
        (found,) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        self._clock = (float(found), (begun + time.monotonic()) / 2)


def _parsed(url: str) -> URL:
    hint = "Write it as postgresql://user:password@host:5432/database, with @ and / in a password as %40 and %2F."
    try:
        found = make_url(url.strip())
        made = found.set(drivername="postgresql+psycopg")
        sound = not any("@" in (part or "") for part in (found.host, found.database, found.username))
    except (SQLAlchemyError, ValueError):
        # Not `from error`: that text holds the address with its password.
        raise SettingsError("SVAC_DATABASE_URL is not the address of a database.", hint) from None
    if found.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise SettingsError(
            "SVAC_DATABASE_URL names no PostgreSQL server.", f"{hint} Leave it empty for SQLite."
        )
    if not sound:
        raise SettingsError("SVAC_DATABASE_URL has one @ too many.", hint)
    return made
