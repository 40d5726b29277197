"""Webhooks as they came, every one of them, in order."""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from svac_backend.store.database import Database, unpack
from svac_backend.store.tables import EventRow


@dataclass(frozen=True)
class Event:
    """A webhook: its action, e.g. `ANNOTATION_CREATED`, its project if it names one, and its body."""

    id: int
    action: str
    project_id: str
    received: float
    body: dict[str, Any] = field(repr=False)


class EventStore:
    """Events in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, action: str, project_id: str, body: bytes) -> int:
        """Store an event; return its id, which grows with time.

        Args:
            action: e.g. `ANNOTATION_CREATED`.
            project_id: "" where the body names none.
            body: the JSON text as it came: to write it anew would take longer than all the rest.
        """
        blob = zlib.compress(body, 1)  # before the write lock is taken
        row = EventRow(action=action, project_id=project_id, body=blob, received=time.time())
        with self.database.write() as session:
            session.add(row)
            session.flush()
            return row.id

    def find(self, *, after: int = 0, action: str | None = None, limit: int = 100) -> list[Event]:
        """Return events with an id above `after`, the oldest first."""
        query = select(EventRow).where(EventRow.id > after).order_by(EventRow.id).limit(limit)
        if action is not None:
            query = query.where(EventRow.action == action)
        with self.database.read() as session:
            return [
                Event(row.id, row.action, row.project_id, row.received, unpack(row.body))
                for row in session.scalars(query)
            ]

    def latest(self, actions: Collection[str]) -> int:
        """Return the id of the last event of some actions, 0 when there is none."""
        query = select(func.max(EventRow.id)).where(EventRow.action.in_(actions))
        with self.database.read() as session:
            return session.scalar(query) or 0

    def counts(self) -> dict[str, int]:
        """Return how many events there are of each action."""
        query = select(EventRow.action, func.count()).group_by(EventRow.action)
        with self.database.read() as session:
            return {row[0]: row[1] for row in session.execute(query)}
