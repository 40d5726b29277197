"""Makes the tables of a database and upgrades them; see `store.database` for when, and by whom."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from svac_backend.store.tables import Base

MIGRATIONS = Path(__file__).with_name("migrations")
HEAD = "0007"  # the last migration


def revision_of(connection: Connection) -> str:
    """Return the number of the last migration that a database has been through; empty before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def make_tables(connection: Connection) -> None:
    """Make all tables in an empty database, as they are now."""
    Base.metadata.create_all(connection)
    # As alembic does, without importing it.
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": HEAD})


def migrate(connection: Connection, to: str = HEAD) -> None:
    """Migrate a database to another revision, within the transaction of the connection."""
    # Imported here: it takes as long as all other imports of the store, and is needed once in the life of a database.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for script in reversed(list(scripts.iterate_revisions(to, revision_of(connection) or "base"))):
            script.module.upgrade()
    context.stamp(scripts, to)
