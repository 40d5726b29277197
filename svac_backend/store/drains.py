"""Draining nodes: their workers take no more jobs, and give running jobs back after a while.

The order is kept in the database, so that it holds whoever places workers, and for workers that start later, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, or_, select

from svac_backend.store.database import Database
from svac_backend.store.tables import DrainRow

# Stands for all nodes.
EVERY_NODE = ""


@dataclass(frozen=True)
class Drain:
    """An order to drain a node. Times are seconds since the epoch; running jobs are given back after `until`."""

    node: str
    until: float
    since: float


class DrainStore:
    """Orders in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def order(self, node: str, within_s: float) -> None:
        """Order a node drained; jobs that still run after `within_s` seconds are given back."""
        now = self.database.time()
        with self.database.write() as session:
            session.merge(DrainRow(node=node, until=now + within_s, since=now))

    def withdraw(self, node: str) -> bool:
        """Let a node's workers take jobs again; False if there was no order. `EVERY_NODE` withdraws all orders."""
        which = DrainRow.node == node if node != EVERY_NODE else DrainRow.node.is_not(None)
        with self.database.write() as session:
            return bool(session.execute(delete(DrainRow).where(which)).rowcount)  # type: ignore[attr-defined]

    def all(self) -> list[Drain]:
        """Return the orders in force."""
        with self.database.read() as session:
            rows = session.scalars(select(DrainRow).order_by(DrainRow.node))
            return [Drain(row.node, row.until, row.since) for row in rows]

    def seconds_left(self, node: str) -> float | None:
        """Return for how many seconds a node's jobs may still run, 0 or more; None if it is not being drained."""
        query = select(DrainRow.until).where(or_(DrainRow.node == node, DrainRow.node == EVERY_NODE))
        with self.database.read() as session:
            until = session.scalars(query).all()
        return max(0.0, min(until) - self.database.time()) if until else None
