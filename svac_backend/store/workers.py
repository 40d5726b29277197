"""The living workers: their heartbeats, and how the death of a worker is noticed, whatever the clocks say.

A worker locks a file in the data folder. However it dies, the system releases the lock, and whoever looks knows at
once. Where the lock tells nothing, as on another machine or while a worker is frozen, a worker counts as dead once its
sign of life has not changed for a while by the observer's monotonic clock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import delete, select, update

from svac_backend.store.database import Database
from svac_backend.store.tables import JobRow, WorkerRow

LOCKS = "workers"

log = logging.getLogger(__name__)


class Watch:
    """Measures how long signs of life have not changed, as seen by this process.

    The time between two looks counts for half a lease at most: an observer that was frozen itself must not take all
    others for dead.
    """

    def __init__(self) -> None:
        self.clock = time.monotonic
        self._now, self._last = 0.0, self.clock()
        self._seen: dict[Hashable, tuple[Any, float]] = {}

    def silent_s(self, signs: Mapping[Any, Any], lease_s: float) -> dict[Any, float]:
        """Return for each sign the seconds since it changed or was first seen; forget all other signs."""
        now = self.clock()
        self._now, self._last = self._now + min(now - self._last, abs(lease_s) / 2), now
        old = self._seen
        self._seen = {
            key: old[key] if key in old and old[key][0] == sign else (sign, self._now)
            for key, sign in signs.items()
        }
        return {key: self._now - since for key, (_, since) in self._seen.items()}


def lock_is_held(path: Path) -> bool:
    """Whether a living process holds the lock of a file; True if that cannot be told."""
    try:
        with FileLock(path, timeout=0):
            return False
    except (OSError, NotImplementedError, Timeout):
        return True


@dataclass(frozen=True)
class WorkerInfo:
    """A living worker. Times are seconds since the epoch; `device` is empty until its model is loaded.

    `gpu` is (used, total) bytes of its GPU's memory, for all processes; None without a GPU. `node` is where it runs,
    `role` what it does, see `jobs.process.Role`; a `drained` worker takes no jobs.
    """

    id: str
    device: str
    model_version: str
    started: float
    heartbeat: float
    gpu: tuple[float, float] | None = None
    node: str = ""
    role: str = ""
    drained: bool = False


class WorkerStore:
    """Workers in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._watch = Watch()
        self._held: dict[str, FileLock] = {}

    def hold(self, worker_id: str) -> None:
        """Show others that a worker of this process lives, until `leave` or the end of the process."""
        lock = FileLock(self._lock_path(worker_id), thread_local=False)
        try:
            Path(lock.lock_file).parent.mkdir(mode=0o700, exist_ok=True)
            lock.acquire(timeout=1)
            self._held[worker_id] = lock
        except (OSError, NotImplementedError, Timeout) as error:
            log.warning(
                "the death of this worker would be noticed late: it cannot lock a file in the data folder (%s)",
                error,
            )

    def died(self, worker_id: str) -> bool:
        """Whether a worker is known to be dead: it had a lock, and nobody holds it.

        The lock file stays, since others will ask, too, and for each of its jobs; `forget` deletes it.
        """
        path = self._lock_path(worker_id)
        return worker_id not in self._held and path.exists() and not lock_is_held(path)

    def beat(
        self,
        worker_id: str,
        job_ids: Collection[str] = (),
        *,
        device: str = "",
        model_version: str = "",
        gpu: tuple[float, float] | None = None,
        node: str = "",
        role: str = "",
        drained: bool = False,
    ) -> None:
        """Record that a worker lives, and renew its lease on the jobs that it runs."""
        now = self.database.time()
        with self.database.write() as session:
            row = session.get(WorkerRow, worker_id, with_for_update=True)
            if row is None:
                row = WorkerRow(id=worker_id, started=now)
                session.add(row)
            row.heartbeat, row.device, row.model_version = now, device, model_version
            row.gpu_used, row.gpu_total = gpu or (None, None)
            row.node, row.role, row.drained = node, role, drained
            held = (JobRow.id.in_(job_ids), JobRow.worker_id == worker_id, JobRow.state == "running")
            session.execute(update(JobRow).where(*held).values(heartbeat=now))

    def leave(self, worker_id: str) -> None:
        """Forget a worker that stops normally."""
        with self.database.write() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))
        lock = self._held.pop(worker_id, None)
        if lock is not None:
            with suppress(OSError):
                self._lock_path(worker_id).unlink(missing_ok=True)
            lock.release()

    def alive(self, lease_s: float) -> list[WorkerInfo]:
        """Return the living workers, the oldest first. Without a lock to tell, the last heartbeat decides."""
        with self.database.read() as session:
            rows = session.scalars(select(WorkerRow).order_by(WorkerRow.started)).all()
            found = [_info(row) for row in rows]
        silent = self._watch.silent_s({one.id: one.heartbeat for one in found}, lease_s)
        now = self.database.time()
        return [
            one
            for one in found
            if silent[one.id] <= lease_s
            and not self.died(one.id)
            and (self._lock_path(one.id).exists() or abs(now - one.heartbeat) <= lease_s)
        ]

    def forget(self, lease_s: float) -> None:
        """Delete the dead workers; their jobs have been put back before, see `jobs.engine`."""
        living = [one.id for one in self.alive(lease_s)]
        with self.database.write(LOCKS) as session:
            dead = delete(WorkerRow).where(WorkerRow.id.not_in(living)).returning(WorkerRow.id)
            gone = list(session.scalars(dead))
        for worker_id in gone:
            if self.died(worker_id):
                self._lock_path(worker_id).unlink(missing_ok=True)

    def _lock_path(self, worker_id: str) -> Path:
        return self.database.data_dir / LOCKS / f"{quote(worker_id, safe='')}.lock"


def _info(row: WorkerRow) -> WorkerInfo:
    gpu = None if row.gpu_used is None or row.gpu_total is None else (row.gpu_used, row.gpu_total)
    return WorkerInfo(
        row.id,
        row.device,
        row.model_version,
        row.started,
        row.heartbeat,
        gpu,
        row.node,
        row.role,
        row.drained,
    )
