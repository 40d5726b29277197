"""The engine for one machine: jobs in the database, huey's SQLite queue to wake the worker.

The database alone knows a job's state. The queue carries ids: one that is there twice is harmless, since a
job is claimed once, and one that got lost is put back by `recover`.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from huey import SqliteHuey
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import SqliteStorage

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import BATCH, Job, JobState, Work
from svac_backend.settings import Settings
from svac_backend.store.database import BUSY_TIMEOUT_S, Database
from svac_backend.store.jobs import JobStore, WorkerStore

QUEUE_FILE = "queue.db"
# One thread of the worker for each lane: cutting frames must not wait for the model, nor the other way round, and
# neither for training, which takes a process of its own.
MODEL_LANE, LIGHT_LANE, TRAINING_LANE = "model", "light", "training"
LANES = {
    "frames": LIGHT_LANE,
    "renew": LIGHT_LANE,
    "collect": LIGHT_LANE,
    "finetune": TRAINING_LANE,
}

MAX_ATTEMPTS = 3
# A worker renews its jobs' leases every few seconds; after this many seconds of silence it counts as dead.
LEASE_S = 30.0
PORTION = 200  # jobs stored in one transaction
POLL_S = (0.03, 0.25)  # how often `wait` looks, at first and at last

log = logging.getLogger(__name__)


class LocalEngine:
    """`JobEngine` over the database and a queue file, both in `settings.data_dir`.

    Raises:
        SvacError: the queue file is damaged.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.store = JobStore(database)
        self.workers = WorkerStore(database)
        self._run: Callable[[str], None] | None = None
        try:
            self.lanes = {
                lane: self._open(settings, lane) for lane in (MODEL_LANE, LIGHT_LANE, TRAINING_LANE)
            }
        except sqlite3.Error as error:
            raise SvacError(
                f"The queue {settings.data_dir / QUEUE_FILE} cannot be used: {error}.",
                "Stop all svac-backend processes and delete this file: the jobs are in the database, and come back.",
            ) from error
        self._tasks = {lane: huey.task(name="svac_job")(self._execute) for lane, huey in self.lanes.items()}

    def submit(self, kind: str, payload: Mapping[str, Any], key: str, *, priority: int = BATCH) -> Job:
        """See `JobEngine.submit`."""
        return self.submit_many([Work(kind, payload, key, priority)])[0]

    def submit_many(self, works: Sequence[Work]) -> list[Job]:
        """See `JobEngine.submit_many`."""
        jobs = []
        # In portions, so that webhooks need not wait for the write lock longer than Label Studio waits for them.
        for start in range(0, len(works), PORTION):
            for job, to_queue in self.store.submit_many(works[start : start + PORTION]):
                if to_queue:
                    self._enqueue(job)
                jobs.append(job)
        return jobs

    def active_keys(self, keys: Collection[str]) -> set[str]:
        """See `JobEngine.active_keys`."""
        return self.store.active_keys(keys)

    def reject(self, kind: str, payload: Mapping[str, Any], key: str, error: str, hint: str) -> Job:
        """See `JobEngine.reject`."""
        return self.store.reject(kind, payload, key, error, hint)

    def get(self, job_id: str) -> Job:
        """See `JobEngine.get`."""
        return _known(self.store.get(job_id), job_id)

    def find(
        self,
        *,
        states: tuple[JobState, ...] = (),
        kind: str | None = None,
        key: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """See `JobEngine.find`."""
        return self.store.find(states=states, kind=kind, key=key, limit=limit)

    def cancel(self, job_id: str) -> Job:
        """See `JobEngine.cancel`."""
        return _known(self.store.cancel(job_id), job_id)

    def wait(self, job_id: str, timeout: float) -> Job:
        """See `JobEngine.wait`."""
        deadline = time.monotonic() + timeout
        pause = POLL_S[0]
        while True:
            job = self.get(job_id)
            left = deadline - time.monotonic()
            if not job.active or left <= 0:
                return job
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, POLL_S[1])

    def recover(self, lease_s: float) -> None:
        """Bring back what a crash left behind: jobs of dead workers, and queued jobs that no queue holds."""
        for job in self.store.recover(lease_s, MAX_ATTEMPTS):
            log.warning("job %s (%s) is queued again: its worker died", job.id, job.kind)
        self.workers.forget(lease_s)
        waiting = self.store.find(states=(JobState.QUEUED,), limit=100_000)
        if not waiting:
            return
        known = {item for huey in self.lanes.values() for item in _queued_ids(huey)}
        for job in reversed(waiting):  # the oldest first
            if job.id not in known:
                self._enqueue(job)

    def serve(self, run: Callable[[str], None]) -> None:
        """Make this process one that does jobs: consumers of `lanes` will call `run(job id)`."""
        self._run = run

    def _enqueue(self, job: Job) -> None:
        lane = LANES.get(job.kind, MODEL_LANE)
        try:
            self.lanes[lane].enqueue(self._tasks[lane].s(job.id, priority=job.priority))
        except sqlite3.Error as error:
            # The job is in the database, and the worker looks there every few seconds.
            log.error("job %s is not on the queue yet (%s)", job.id, error)

    def _execute(self, job_id: str) -> None:
        if self._run is None:
            raise RuntimeError("a consumer was started before LocalEngine.serve")
        self._run(job_id)

    def _open(self, settings: Settings, lane: str) -> SqliteHuey:
        return _Huey(
            name=lane,
            filename=str(settings.data_dir / QUEUE_FILE),
            timeout=BUSY_TIMEOUT_S,
            results=False,
            serializer=_JsonSerializer(),
        )


class _Storage(SqliteStorage):
    """The queue file without a flush to the disk for each message, which a busy disk makes /predict wait for.

    A power cut may lose the last messages, never the file; `LocalEngine.recover` puts them back.
    """

    def _create_connection(self) -> Any:
        connection = super()._create_connection()
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection


class _Huey(SqliteHuey):
    storage_class = _Storage


class _JsonSerializer(Serializer):
    """Messages as JSON. Huey's default is pickle, which runs whatever code a tampered file holds."""

    def _serialize(self, data: Message) -> bytes:
        return json.dumps([data.id, data.name, data.priority, data.args]).encode()

    def _deserialize(self, data: bytes) -> Message:
        task_id, name, priority, args = json.loads(bytes(data))
        return Message(
            id=task_id, name=name, priority=priority, args=tuple(args), kwargs={}, retries=0, retry_delay=0
        )


def _queued_ids(huey: SqliteHuey) -> list[str]:
    return [task.args[0] for task in huey.pending()]


def _known(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise SvacError(f"There is no job {job_id[:40]!r}.", "List the jobs to find its id.")
    return job
