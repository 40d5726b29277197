"""Nodes that are being emptied: their workers take no more jobs, and those that run go back after a while.

The order stands in the database, so that it holds whoever places workers, and also for those that come later.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, or_, select

from svac_backend.store.database import Database
from svac_backend.store.tables import DrainRow

# In place of a node: all of them.
EVERY_NODE = ""


@dataclass(frozen=True)
class Drain:
    """An order to empty a node. Times are seconds since the epoch; after `until` running jobs are given back."""

    node: str
    until: float
    since: float


class DrainStore:
    """Orders in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def order(self, node: str, within_s: float) -> None:
        """Have a node emptied: running jobs may take so many seconds, and are given back then."""
        now = self.database.time()
        with self.database.write() as session:
            session.merge(DrainRow(node=node, until=now + within_s, since=now))

    def withdraw(self, node: str) -> bool:
        """Let a node's workers take jobs again; whether there was such an order. `EVERY_NODE` withdraws all."""
        which = DrainRow.node == node if node != EVERY_NODE else DrainRow.node.is_not(None)
        with self.database.write() as session:
            return bool(session.execute(delete(DrainRow).where(which)).rowcount)  # type: ignore[attr-defined]

    def all(self) -> list[Drain]:
        """Return the orders that stand."""
        with self.database.read() as session:
            rows = session.scalars(select(DrainRow).order_by(DrainRow.node))
            return [Drain(row.node, row.until, row.since) for row in rows]

    def seconds_left(self, node: str) -> float | None:
        """Return how long the jobs of a node may still take, not below 0; None where no order stands."""
        query = select(DrainRow.until).where(or_(DrainRow.node == node, DrainRow.node == EVERY_NODE))
        with self.database.read() as session:
            until = session.scalars(query).all()
        return max(0.0, min(until) - self.database.time()) if until else None
