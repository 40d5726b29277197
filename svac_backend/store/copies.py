"""Copies of a PostgreSQL database as SQLite files, and the way back.

Both databases share one backup format: anyone who has a copy can look into it, restore it into either, and so move from
one to the other, without a pg_dump of the server's version. All rows are read within one REPEATABLE READ transaction,
so a copy shows one moment, however long it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, select, text

from svac_backend.store.sqlite import Sqlite
from svac_backend.store.tables import words

PORTION = 50  # rows in memory at once; a row may have megabytes
REVISIONS = "alembic_version"


def copy_out(source: Connection, path: Path, make_tables: Callable[[Connection], None]) -> None:
    """Write all rows that a connection sees into a new SQLite file.

    Args:
        source: a connection within a transaction that sees one moment.
        path: the file to make.
        make_tables: makes the tables of the source's revision through a connection.
    """
    file = Sqlite(path)
    try:
        with file.upgrading() as target:
            make_tables(target)
            _copy(source, target)
        with file.engine.connect() as connection:  # one file, without side files
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
    finally:
        file.engine.dispose()


def copy_in(path: Path, target: Connection) -> None:
    """Replace all rows of a database by those of a SQLite file of the same revision, in one transaction."""
    file = Sqlite(path)
    try:
        with file.engine.connect() as source:
            for table in reversed(_tables(target)):
                target.execute(table.delete())
            _copy(source, target)
        for table in _tables(target):
            for column in table.primary_key:
                sequence = target.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
                if sequence is not None:  # the next id comes after the copied ones
                    last = select(func.coalesce(func.max(column), 0)).scalar_subquery()
                    target.execute(select(func.setval(text(f"'{sequence}'"), last + 1, False)))
    finally:
        file.engine.dispose()


def _copy(source: Connection, target: Connection) -> None:
    twins = {table.name: table for table in _tables(target)}
    for table in _tables(source):
        twin = twins[table.name]
        result = source.execution_options(yield_per=PORTION).execute(select(table))
        for rows in result.mappings().partitions():
            target.execute(twin.insert(), [{name: _value(row[name]) for name in row} for row in rows])


def _value(value: Any) -> Any:
    # SQLite takes NUL in text, PostgreSQL does not.
    return words(value) if isinstance(value, str) else value


def _tables(connection: Connection) -> list[Table]:
    """All tables except the one that holds the revision; tables that others refer to come first."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != REVISIONS]
