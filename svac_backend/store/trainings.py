"""Fine-tuning runs: what was known when each began, so that one can tell what is new since."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import func, select

from svac_backend.store.database import Database
from svac_backend.store.tables import TrainingRow


@dataclass(frozen=True)
class Training:
    """A run.

    Attributes:
        job_id: its job.
        base: version of the model without an adapter.
        parent: id of the adapter that it goes on from, or empty.
        event: number of the last webhook whose annotations are in it.
        corrections: how many it learns from.
        created: when it began, in seconds since the epoch.
    """

    job_id: str
    base: str
    parent: str
    event: int
    corrections: int
    created: float = 0.0


class TrainingStore:
    """Runs in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def begin(self, training: Training) -> Training:
        """Store a run; one that goes on after a crash stays as it was. Returns what is stored."""
        with self.database.write() as session:
            row = session.get(TrainingRow, training.job_id)
            if row is None:
                row = TrainingRow(**{**vars(training), "created": training.created or time.time()})
                session.add(row)
                session.flush()
            return _training(row)

    def get(self, job_id: str) -> Training | None:
        """Return a run, or None."""
        with self.database.read() as session:
            row = session.get(TrainingRow, job_id)
            return None if row is None else _training(row)

    def last_event(self, base: str) -> int:
        """Return the number of the last webhook that any run of a model has learned from, 0 without one."""
        query = select(func.max(TrainingRow.event)).where(TrainingRow.base == base)
        with self.database.read() as session:
            return session.scalar(query) or 0


def _training(row: TrainingRow) -> Training:
    return Training(**{name: getattr(row, name) for name in Training.__dataclass_fields__})
