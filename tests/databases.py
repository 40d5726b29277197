"""Both databases for tests: the SQLite file, and a real PostgreSQL that the tests start themselves.

Without PostgreSQL on the machine its tests fail, and say what to install: a broken installation must not look like a
good one. `PARAMETERS` has a test, or a fixture, run on both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from lab.postgresql import PostgresServer

from svac_backend.store.database import Database

PARAMETERS = ("sqlite", "postgresql")


class OpenDatabase:
    """Opens the database of a folder; each folder has one of its own, as with SQLite's file.

    Args:
        server: where the databases are; None for SQLite.
    """

    def __init__(self, server: PostgresServer | None = None) -> None:
        self._server = server
        self._urls: dict[Path, str] = {}
        self._opened: list[Database] = []

    def __call__(self, folder: Path) -> Database:
        self._opened.append(Database(folder, self.url(folder)))
        return self._opened[-1]

    def url(self, folder: Path) -> str:
        """Return SVAC_DATABASE_URL of a folder, empty for SQLite."""
        if self._server is None:
            return ""
        if folder not in self._urls:
            self._urls[folder] = self._server.new_database(_template())
        return self._urls[folder]

    def close(self) -> None:
        """Close and delete all."""
        for database in self._opened:
            database.close()
        for url in self._urls.values():
            assert self._server is not None
            self._server.drop(url)


@lru_cache(maxsize=1)
def _server() -> PostgresServer:
    return PostgresServer()


@lru_cache(maxsize=1)
def _template() -> str:
    """A database with the tables: it takes a tenth of the time to copy them."""
    url = _server().new_database()
    with tempfile.TemporaryDirectory() as folder:
        Database(Path(folder), url).close()
    return url


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """A running PostgreSQL, one for the whole session."""
    server = _server()
    yield server
    server.close()


@pytest.fixture(params=PARAMETERS)
def open_database(request: pytest.FixtureRequest) -> Iterator[OpenDatabase]:
    """Runs its test on both."""
    of_server = request.param == "postgresql"
    opener = OpenDatabase(request.getfixturevalue("postgresql") if of_server else None)
    yield opener
    opener.close()
