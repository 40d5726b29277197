"""What Label Studio tells this backend: each project's /setup, and every webhook as it came.

Webhooks are kept in order. An inbox knows which of them its reader has dealt with, and which must be tried again.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, select, update

from svac_backend.errors import SvacError
from svac_backend.store.database import Database, unpack
from svac_backend.store.tables import ConnectionRow, CursorRow, EventRow, UncollectedRow


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
        """Store what a project's /setup said, in place of what it said before."""
        row = ConnectionRow(
            project_id=project_id,
            hostname=hostname,
            access_token=access_token,
            label_config=label_config,
            updated=self.database.time(),
        )
        with self.database.write(f"connection {project_id}") as session:
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


@dataclass(frozen=True)
class Event:
    """A webhook: its action, e.g. `ANNOTATION_CREATED`, its project if it names one, and its body, packed."""

    id: int
    action: str
    project_id: str
    received: float
    packed: bytes = field(repr=False)

    @property
    def body(self) -> dict[str, Any]:
        """Return its JSON object.

        Raises:
            SvacError: it is damaged.
        """
        try:
            found = unpack(self.packed)
        except (zlib.error, ValueError, RecursionError) as error:
            raise SvacError(
                f"Webhook {self.id} cannot be read ({error}).", "Submit the annotation again."
            ) from error
        if not isinstance(found, dict):
            raise SvacError(
                f"Webhook {self.id} cannot be read (not a JSON object).", "Submit the annotation again."
            )
        return found


class EventStore:
    """Events in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, action: str, project_id: str, body: bytes) -> int:
        """Store an event; return its id, which grows with time.

        Args:
            action: e.g. `ANNOTATION_CREATED`.
            project_id: "" if the body names none.
            body: the JSON text as it came: serializing it again would take longer than all the rest.
        """
        blob = zlib.compress(body, 1)  # before the write lock is taken
        row = EventRow(action=action, project_id=project_id, body=blob, received=self.database.time())
        # One at a time: if a later number were stored first, a reader would skip the earlier one for good.
        with self.database.write("events") as session:
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
                Event(row.id, row.action, row.project_id, row.received, row.body)
                for row in session.scalars(query)
            ]

    def latest(self, actions: Collection[str]) -> int:
        """Return the id of the last event with one of some actions, 0 if there is none."""
        # One query each: it reads the end of that action's part of the index, however many events there are.
        queries = [select(func.max(EventRow.id)).where(EventRow.action == action) for action in actions]
        with self.database.read() as session:
            return max((session.scalar(query) or 0 for query in queries), default=0)

    def counts(self) -> dict[str, int]:
        """Return the number of events of each action."""
        query = select(EventRow.action, func.count()).group_by(EventRow.action)
        with self.database.read() as session:
            return {row[0]: row[1] for row in session.execute(query)}


# Seconds until a webhook is tried again, by the number of tries; after the last it is given up.
DELAYS_S = (30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 24 * 3600.0)


@dataclass(frozen=True)
class Uncollected:
    """A webhook that its reader could not deal with.

    Attributes:
        event: its number.
        error, hint: why, and what to do.
        tries: how often that happened.
        due: when it is tried again, in seconds since the epoch; None once it is given up.
    """

    event: int
    error: str
    hint: str
    tries: int
    due: float | None


class Inbox:
    """A reader of the events.

    Args:
        database: where the events are.
        name: the reader's name, 32 characters at most.
    """

    def __init__(self, database: Database, name: str = "corrections") -> None:
        self.database = database
        self.name = name

    def position(self) -> int:
        """Return the number of the last event that was read."""
        with self.database.read() as session:
            row = session.get(CursorRow, self.name)
            return 0 if row is None else row.value

    def advance(self, event: int) -> None:
        """Record that all events up to this one were read."""
        statement = self.database.insert(CursorRow).values(name=self.name, value=event)
        statement = statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": event}, where=CursorRow.value < event
        )
        with self.database.write() as session:
            session.execute(statement)

    def put_off(self, event: int, error: str, hint: str, *, temporary: bool = False) -> Uncollected:
        """Try an event again later, after a longer pause each time; a `temporary` fault never gives it up."""
        now = self.database.time()
        with self.database.write(f"uncollected {event}") as session:
            row = session.get(UncollectedRow, event)
            tries = 1 if row is None else row.tries + 1
            last = DELAYS_S[-1] if temporary else None
            wait = DELAYS_S[tries - 1] if tries <= len(DELAYS_S) else last
            due = -1.0 if wait is None else now + wait
            row = session.merge(UncollectedRow(event=event, error=error, hint=hint, tries=tries, due=due))
            return _uncollected(row)

    def hurry(self) -> None:
        """Try all events again now that were put off or given up; their tries are counted from 0."""
        now = self.database.time()
        with self.database.write() as session:
            session.execute(update(UncollectedRow).values(due=now, tries=0))

    def settle(self, event: int) -> None:
        """Do not try an event again: it was dealt with, or there is nothing left in it."""
        with self.database.write() as session:
            session.execute(delete(UncollectedRow).where(UncollectedRow.event == event))

    def due(self) -> list[int]:
        """Return the events to try now, the oldest first."""
        now = self.database.time()
        query = select(UncollectedRow.event).where(UncollectedRow.due >= 0, UncollectedRow.due <= now)
        with self.database.read() as session:
            return list(session.scalars(query.order_by(UncollectedRow.event)))

    def uncollected(self) -> list[Uncollected]:
        """Return all events that could not be dealt with so far, the oldest first."""
        with self.database.read() as session:
            rows = session.scalars(select(UncollectedRow).order_by(UncollectedRow.event))
            return [_uncollected(row) for row in rows]


def _uncollected(row: UncollectedRow) -> Uncollected:
    return Uncollected(row.event, row.error, row.hint, row.tries, None if row.due < 0 else row.due)
