"""The job engine, between those who ask for work (the web process, the command line) and the handlers that do it.

Free of torch: the web process imports it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from svac_backend.errors import JobCancelled, StoreError, SvacError
from svac_backend.store.database import Database
from svac_backend.store.drains import DrainStore
from svac_backend.store.jobs import Job, JobState, JobStore, Work
from svac_backend.store.workers import WorkerStore

__all__ = [
    "BATCH",
    "BULK",
    "INTERACTIVE",
    "Handler",
    "Job",
    "JobContext",
    "JobEngine",
    "JobInterrupted",
    "JobState",
    "Work",
]

# Priorities: a person who waits goes before a batch, and a batch before a whole project.
BULK = -10
BATCH = 0
INTERACTIVE = 10

MAX_ATTEMPTS = 3
# Ends the keys of work that could not even be queued, since what it needs is not known.
REJECTED = ":rejected"
# Seconds until a job with a temporary fault is tried again, by the number of tries; nearly a day in all.
PAUSES_S = (5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, *[3 * 3600.0] * 2, *[5 * 3600.0] * 3)
# A worker renews its jobs' leases every few seconds; after so many seconds of silence it counts as dead.
LEASE_S = 30.0
PORTION = 200  # jobs stored in one transaction
POLL_S = (0.03, 0.25)  # seconds between two looks of `wait`, at first and later
# A job's row is written at most this often, in seconds; a model reports every frame.
REPORT_INTERVAL_S = 0.25

log = logging.getLogger(__name__)


class JobInterrupted(Exception):
    """The job must stop here and will run again: its worker shuts down, or has lost the job to another."""


class JobEngine:
    """Durable work: what was submitted is done once, even if a worker dies.

    The job table is the queue. Versions before the first release had a second queue in the data folder, `queue.db`; if
    that file is still there, nothing reads it.

    Args:
        database: where the jobs are.
    """

    def __init__(self, database: Database) -> None:
        self.store = JobStore(database)
        self.workers = WorkerStore(database)
        self.drains = DrainStore(database)

    def submit(self, kind: str, payload: Mapping[str, Any], key: str, *, priority: int = BATCH) -> Job:
        """Queue work and return its job.

        Args:
            kind: which handler does it, e.g. `prelabel`.
            payload: JSON-able; what the handler needs.
            key: names the work. While a job with that key waits or runs, it is returned; once it has ended, in
                whatever way, a new job is made.
            priority: higher goes first; a waiting job takes over a higher one.
        """
        return self.submit_many([Work(kind, payload, key, priority)])[0]

    def submit_many(self, works: Sequence[Work]) -> list[Job]:
        """Queue several works at once, see `submit`."""
        # In portions, so that webhooks do not wait for the write lock longer than Label Studio waits for them.
        portions = [works[start : start + PORTION] for start in range(0, len(works), PORTION)]
        return [job for portion in portions for job in self.store.submit_many(portion)]

    def active_keys(self, keys: Collection[str]) -> set[str]:
        """Return those of `keys` that have a waiting or running job."""
        return self.store.active_keys(keys)

    def reject(self, kind: str, payload: Mapping[str, Any], key: str, error: str, hint: str) -> Job:
        """Record work that cannot be queued as a failed job, so that people see why nothing happens."""
        return self.store.reject(kind, payload, key, error, hint)

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            SvacError: there is none of that id.
        """
        return _known(self.store.get(job_id), job_id)

    def find(
        self,
        *,
        states: tuple[JobState, ...] = (),
        kind: str | None = None,
        key: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return jobs, the newest first; see `JobStore.find`."""
        return self.store.find(states=states, kind=kind, key=key, before=before, limit=limit)

    def cancel(self, job_id: str) -> Job:
        """Cancel a waiting job; ask a running one to stop, which it does at its next progress report.

        Raises:
            SvacError: there is none of that id.
        """
        return _known(self.store.cancel(job_id), job_id)

    def active(self, project: str | None = None) -> Iterator[list[Job]]:
        """Yield the waiting and running jobs in portions, the newest first; only those of `project` if it is given."""
        last: tuple[float, str] | None = None
        while found := self.find(states=(JobState.QUEUED, JobState.RUNNING), before=last, limit=PORTION):
            yield [job for job in found if project in (None, job.payload.get("project_id"))]
            last = found[-1].created, found[-1].id

    def cancel_all(self, project: str | None = None) -> int:
        """Cancel all waiting jobs that `active` yields and ask the running ones to stop; return how many there were."""
        return sum(self.store.cancel_many([job.id for job in found]) for found in self.active(project))

    def retry(self, job_id: str) -> Job:
        """Redo the work of a failed or cancelled job; a job that waits to be tried again is tried now.

        Return the job that does it. A job that is queued or running stays as it is.

        Raises:
            SvacError: there is no job with that id, it was refused before it could be queued, or it is done.
        """
        job = self.get(job_id)
        if job.due is not None:
            return self.submit(job.kind, job.payload, job.key, priority=INTERACTIVE)
        if job.state is JobState.DONE:
            raise SvacError("The job is done.", "To redo it, send the task from Label Studio again.")
        if not job.active and job.key.endswith(REJECTED):
            raise SvacError(
                "This job was refused before it could be queued.",
                "Do what its hint says, then send the task from Label Studio again.",
            )
        return job if job.active else self.submit(job.kind, job.payload, job.key, priority=job.priority)

    def wait(self, job_id: str, timeout: float) -> Job:
        """Return the job once it has ended or waits to be tried again, or as it is after `timeout` seconds.

        Raises:
            SvacError: there is none of that id.
        """
        deadline = time.monotonic() + timeout
        pause = POLL_S[0]
        while True:
            job = self.get(job_id)
            left = deadline - time.monotonic()
            if not job.active or job.due is not None or left <= 0:
                return job
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, POLL_S[1])

    def recover(self, lease_s: float, lost: Collection[str] = ()) -> None:
        """Put the jobs of dead workers back and forget these workers; those in `lost` are known to be dead."""
        for job in self.store.recover(
            lease_s, MAX_ATTEMPTS, lambda one: one in lost or self.workers.died(one)
        ):
            log.warning("job %s (%s) is queued again: its worker died", job.id, job.kind)
        for worker_id in lost:
            self.workers.leave(worker_id)
        self.workers.forget(lease_s)


def pause_after(tries: int, hours: float) -> float | None:
    """Return the seconds until a job is tried again; None once it has been tried for `hours` hours."""
    if tries >= len(PAUSES_S) or sum(PAUSES_S[: tries + 1]) > 3600 * hours:
        return None
    return PAUSES_S[tries]


def _known(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise SvacError(f"There is no job {job_id[:40]!r}.", "List the jobs to find its id.")
    return job


class JobContext:
    """What a handler knows about its job, and how it reports.

    Args:
        job: the claimed job.
        report: stores (fraction, message); returns the job as it is now, or None if another worker has it.
        stopping: set when the worker shuts down.
        let_through: called at each report; does the jobs that go first.
    """

    def __init__(
        self,
        job: Job,
        report: Callable[[float, str], Job | None],
        stopping: threading.Event,
        let_through: Callable[[], None] = lambda: None,
    ) -> None:
        self.job = job
        self._report = report
        self._stopping = stopping
        self._let_through = let_through
        self._last: tuple[float, str] = (0.0, "")

    @property
    def payload(self) -> dict[str, Any]:
        """What the job was submitted with."""
        return self.job.payload

    def progress(self, fraction: float, message: str) -> None:
        """Report how far the job is; cheap enough to call for every frame.

        Args:
            fraction: 0..1.
            message: what is being done, in a few words.

        Raises:
            JobCancelled: a person cancelled the job.
            JobInterrupted: the worker shuts down, or another worker has the job.
        """
        if self._stopping.is_set():
            raise JobInterrupted("the worker shuts down")
        self._let_through()
        now, (then, said) = time.monotonic(), self._last
        if now - then < REPORT_INTERVAL_S and message == said:
            return
        self._last = (now, message)
        try:
            current = self._report(min(1.0, max(0.0, fraction)), message)
        except StoreError as error:
            # A failed report is no reason to give up work that goes well. If its end cannot be stored, it runs again.
            log.warning("job %s: its progress is not stored: %s", self.job.id, error)
            return
        if current is None:
            raise JobInterrupted("another worker has the job")
        if current.cancel_requested:
            raise JobCancelled


# Does a job; its return value, JSON-able, becomes the job's result. A key `message` is shown to people.
Handler = Callable[[JobContext], dict[str, Any]]
