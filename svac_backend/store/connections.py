"""What each project's /setup told: where its Label Studio is, and with which token and config."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sqlalchemy import select

from svac_backend.store.database import Database
from svac_backend.store.tables import ConnectionRow


@dataclass(frozen=True)
class ProjectConnection:
    """A connected project. The token stays out of `repr`, so that it cannot reach a log."""

    project_id: str
    hostname: str
    access_token: str = field(repr=False)
    label_config: str = field(repr=False)
    updated: float = 0.0


class ConnectionStore:
    """Connections in the database, one for each project."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, project_id: str, hostname: str, access_token: str, label_config: str) -> None:
        """Store what a project's /setup told, in place of what it told before."""
        row = ConnectionRow(
            project_id=project_id,
            hostname=hostname,
            access_token=access_token,
            label_config=label_config,
            updated=time.time(),
        )
        with self.database.write() as session:
            session.merge(row)

    def get(self, project_id: str) -> ProjectConnection | None:
        """Return a project's connection, or None."""
        with self.database.read() as session:
            row = session.get(ConnectionRow, project_id)
            return None if row is None else _connection(row)

    def all(self) -> list[ProjectConnection]:
        """Return every connection, the latest first."""
        with self.database.read() as session:
            rows = session.scalars(select(ConnectionRow).order_by(ConnectionRow.updated.desc()))
            return [_connection(row) for row in rows]


def _connection(row: ConnectionRow) -> ProjectConnection:
    return ProjectConnection(row.project_id, row.hostname, row.access_token, row.label_config, row.updated)
