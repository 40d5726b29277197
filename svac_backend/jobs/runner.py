"""Runs one job from claim to end. Torch-free; the handlers are what differs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from svac_backend.errors import JobCancelled, SvacError
from svac_backend.jobs.engine import Handler, Job, JobContext, JobInterrupted, JobState
from svac_backend.store.database import StoreError
from svac_backend.store.jobs import JobStore

log = logging.getLogger(__name__)


class Runner:
    """Does jobs for one worker, on as many threads as call `run`.

    Args:
        store: where the jobs are.
        handlers: kind -> handler.
        worker_id: under which the jobs are claimed.
    """

    def __init__(self, store: JobStore, handlers: Mapping[str, Handler], worker_id: str) -> None:
        self.store = store
        self.handlers = handlers
        self.worker_id = worker_id
        self.stopping = threading.Event()
        self._active: dict[str, Job] = {}

    def run(self, job_id: str) -> None:
        """Claim and do a job; nothing happens when it is not waiting any more. Never raises for a bad job."""
        if self.stopping.is_set():
            return
        try:
            job = self.store.claim(job_id, self.worker_id)
            if job is None:
                return
            self._active[job.id] = job
            try:
                self._do(job)
            finally:
                self._active.pop(job.id, None)
        except StoreError as error:
            # Not claimed, or its end not stored: `LocalEngine.recover` brings it back.
            log.error("job %s will run again: %s", job_id, error)

    @property
    def active_ids(self) -> list[str]:
        """The jobs that run now."""
        return list(self._active)

    def release_active(self) -> None:
        """Give back the jobs that did not stop in time, so that they need not wait for the lease to end."""
        for job in list(self._active.values()):
            self.store.release(job)

    def _do(self, job: Job) -> None:
        context = JobContext(
            job, lambda fraction, message: self.store.report(job, fraction, message), self.stopping
        )
        begun = time.monotonic()
        log.info("job %s (%s) begins, attempt %d", job.id, job.kind, job.attempts)
        try:
            handler = self.handlers.get(job.kind)
            if handler is None:
                raise SvacError(
                    f"This worker cannot do jobs of kind {job.kind!r}.",
                    "Update the worker; its version is old.",
                )
            result = handler(context)
        except JobInterrupted as reason:
            self.store.release(job)
            log.info("job %s stops: %s", job.id, reason)
        except JobCancelled:
            self.store.finish(job, JobState.CANCELLED, message="Cancelled")
            log.info("job %s was cancelled", job.id)
        except SvacError as error:
            self.store.finish(job, JobState.FAILED, message="Failed", error=error.message, hint=error.hint)
            log.warning("job %s failed: %s", job.id, error)
        except Exception as error:
            log.exception("job %s failed unexpectedly", job.id)
            self.store.finish(
                job,
                JobState.FAILED,
                message="Failed",
                error=f"The job failed unexpectedly ({type(error).__name__}).",
                hint=f"Look for job {job.id} in the worker's log; it has the full report.",
            )
        else:
            message = str(result.pop("message", "Done"))
            if self.store.finish(job, JobState.DONE, message=message, result=result):
                log.info("job %s is done in %.1f s: %s", job.id, time.monotonic() - begun, message)
            else:
                log.warning("job %s was done, but another worker has it by now", job.id)
