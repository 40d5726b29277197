"""The worker table: which workers live, on which device, with which model."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from svac_backend.store.database import Database
from svac_backend.store.jobs import JobState
from svac_backend.store.tables import JobRow, WorkerRow


@dataclass(frozen=True)
class WorkerInfo:
    """A living worker. Times are seconds since the epoch; `device` is empty until its model is loaded."""

    id: str
    device: str
    model_version: str
    started: float
    heartbeat: float


class WorkerStore:
    """Workers in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def beat(
        self, worker_id: str, job_ids: Collection[str] = (), *, device: str = "", model_version: str = ""
    ) -> None:
        """Say that a worker lives, and renew its lease of the jobs that it runs."""
        now = time.time()
        with self.database.write() as session:
            row = session.get(WorkerRow, worker_id)
            if row is None:
                row = WorkerRow(id=worker_id, started=now)
                session.add(row)
            row.heartbeat, row.device, row.model_version = now, device, model_version
            held = (
                JobRow.id.in_(job_ids),
                JobRow.worker_id == worker_id,
                JobRow.state == JobState.RUNNING.value,
            )
            session.execute(update(JobRow).where(*held).values(heartbeat=now))

    def leave(self, worker_id: str) -> None:
        """Forget a worker that stops in good order."""
        with self.database.write() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))

    def alive(self, lease_s: float) -> list[WorkerInfo]:
        """Return the workers heard of within the last `lease_s` seconds, the oldest first."""
        heard = WorkerRow.heartbeat >= time.time() - lease_s
        with self.database.read() as session:
            rows = session.scalars(select(WorkerRow).where(heard).order_by(WorkerRow.started)).all()
            return [WorkerInfo(r.id, r.device, r.model_version, r.started, r.heartbeat) for r in rows]

    def forget(self, lease_s: float) -> None:
        """Delete the workers not heard of for `lease_s` seconds."""
        with self.database.write() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.heartbeat < time.time() - lease_s))
