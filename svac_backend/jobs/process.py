"""The worker's frame: a thread for each lane that does its jobs, heartbeat, recovery, orderly shutdown.

Torch-free by itself; the handlers bring what they need.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from svac_backend.errors import JobCancelled, StoreError, SvacError, lacks_room, log_ids, no_room
from svac_backend.jobs.engine import (
    LEASE_S,
    Handler,
    Job,
    JobContext,
    JobEngine,
    JobInterrupted,
    JobState,
    Work,
    pause_after,
)
from svac_backend.storage.cache import held
from svac_backend.store.database import UNREADABLE
from svac_backend.store.jobs import LANES, JobStore
from svac_backend.store.tables import words

# Within docker's 10 s between SIGTERM and SIGKILL.
GRACE_S = 8.0
# How often idle lanes look for work; and after the database failed.
POLL_S, TROUBLE_S = 0.1, 1.0
# How often it is looked for jobs whose pause is over.
WAKE_S = 1.0
# How long a job that has ended waits for a database that time alone does not mend; for one that is away, without end.
PATIENCE_S = 600.0
CHORES_EVERY_S = 24 * 3600

log = logging.getLogger(__name__)


class Runner:
    """Does jobs for one worker, on as many threads as call `run`.

    Args:
        store: where the jobs are.
        handlers: kind -> handler.
        worker_id: the name that the jobs are claimed under.
        retry_hours: how long a job is tried again that failed for a reason that time may mend.
    """

    def __init__(
        self, store: JobStore, handlers: Mapping[str, Handler], worker_id: str, retry_hours: float = 24.0
    ) -> None:
        self.store = store
        self.retry_hours = retry_hours
        self.handlers = handlers
        self.worker_id = worker_id
        self.stopping = threading.Event()
        self._active: dict[str, Job] = {}

    def run(self, lane: str) -> bool:
        """Do the next job of a lane; False when none waits. Never raises for a bad job.

        Raises:
            StoreError: no job could be claimed.
        """
        job = None if self.stopping.is_set() else self.store.claim(lane, self.worker_id)
        if job is None:
            return False
        self._active[job.id] = job
        with log_ids(job=job.id, kind=job.kind):
            try:
                self._do(job)
            except StoreError as error:
                # Its end is not stored, so it counts as running until its lease ends, and then `recover` puts it back.
                log.error("job %s will run again: %s", job.id, error)
            finally:
                self._active.pop(job.id, None)
        return True

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
        finish = partial(self.store.finish, job)
        try:
            result = self._with_room(context)
            message = str(result.pop("message", "Done"))
            json.dumps(result)  # what cannot be stored is an error like any other
            end = partial(finish, JobState.DONE, message=message, result=result)
        except JobInterrupted as reason:
            end, message = partial(self.store.release, job), f"put back ({reason})"
        except JobCancelled:
            end, message = partial(finish, JobState.CANCELLED, message="Cancelled"), "cancelled"
        except SvacError as error:
            pause = pause_after(job.tries, self.retry_hours) if error.temporary else None
            if pause is not None:
                end = partial(self.store.put_off, job, error.message, error.hint, pause)
                message = f"tried again in {pause:g} s"
            else:
                values = {"message": "Failed", "error": error.message, "hint": error.hint}
                end, message = partial(finish, JobState.FAILED, **values), "failed"
            log.warning("job %s: %s", job.id, words(str(error)))  # a damaged file may have named itself
        except Exception as error:
            log.exception("job %s failed unexpectedly", job.id)
            end = partial(
                finish,
                JobState.FAILED,
                message="Failed",
                error=f"The job failed unexpectedly ({type(error).__name__}).",
                hint=f"Look for job {job.id} in the worker's log; it has the full report.",
            )
            message = "failed"
        if self._stored(job, end):
            log.info("job %s ends after %.1f s: %s", job.id, time.monotonic() - begun, message)
        else:
            log.warning("job %s ends (%s), but another worker has it by now", job.id, message)

    def _with_room(self, context: JobContext) -> dict[str, Any]:
        """Have a full disk, whatever ran into it, say so."""
        try:
            return self._handled(context)
        except (SvacError, JobInterrupted):
            raise
        except Exception as error:
            if lacks_room(error):
                raise no_room(error) from error
            raise

    def _handled(self, context: JobContext) -> dict[str, Any]:
        if UNREADABLE in context.payload:
            raise SvacError("What the database holds of this job cannot be read.", "Send the task again.")
        handler = self.handlers.get(context.job.kind)
        if handler is None:
            raise SvacError(
                f"This worker cannot do jobs of kind {context.job.kind!r}.",
                "Update the worker; its version is old.",
            )
        with held():
            return handler(context)

    def _stored(self, job: Job, end: Callable[[], bool]) -> bool:
        """Store a job's end. Work that is done is not done again because the database is held, or away, for a while."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return end()
            except StoreError as error:
                if self.stopping.is_set() or (time.monotonic() >= deadline and not error.temporary):
                    raise
                log.warning("the end of job %s is not stored, trying on: %s", job.id, error)
                self.stopping.wait(TROUBLE_S)


class WorkerProcess:
    """Does jobs until it is told to stop, on a thread for each lane.

    Args:
        engine: where the jobs come from.
        handlers: kind -> handler.
        describe: returns (device, model version) for the heartbeat, empty while unknown.
        gpu_memory: returns (used, total) bytes of its GPU; None without one.
        chores: returns work that nobody asks for, if there is any; called at the start and then once a day.
        watch: the same, called at the start and then with every heartbeat: it must be quick.
        retry_hours: see `Runner`.
        lease_s: seconds of silence after which other workers take this one's jobs.
    """

    def __init__(
        self,
        engine: JobEngine,
        handlers: Mapping[str, Handler],
        *,
        describe: Callable[[], tuple[str, str]] = lambda: ("", ""),
        gpu_memory: Callable[[], tuple[float, float] | None] = lambda: None,
        chores: Callable[[], Sequence[Work]] = lambda: (),
        watch: Callable[[], Sequence[Work]] = lambda: (),
        retry_hours: float = 24.0,
        lease_s: float = LEASE_S,
    ) -> None:
        self.engine = engine
        self.id = f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.runner = Runner(engine.store, handlers, self.id, retry_hours)
        self._describe = describe
        self._gpu_memory = gpu_memory
        self._chores = chores
        self._watch = watch
        self._lease_s = lease_s
        self._stop = threading.Event()
        self._bells = {lane: threading.Event() for lane in LANES}
        self._lanes = [
            threading.Thread(target=self._do_jobs, args=(lane,), name=lane, daemon=True) for lane in LANES
        ]
        # One for all lanes: to wake a thread costs more than to look.
        self._lookout = threading.Thread(target=self._look_out, name="lookout", daemon=True)
        self._heart = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Recover what a crash left behind, then begin to do jobs, on threads of its own."""
        self.engine.workers.hold(self.id)
        self._beat()
        self.engine.recover(self._lease_s)
        self._queue_chores()
        self._queue_watched()
        self._heart.start()
        for thread in (*self._lanes, self._lookout):
            thread.start()
        log.info("worker %s is ready", self.id)

    def run(self) -> None:
        """Do jobs until SIGTERM or SIGINT, then stop. Call it from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        self.start()
        self._stop.wait()
        self.stop()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Take no more jobs; have running ones stop at their next report, and go back to waiting."""
        log.info("worker %s stops", self.id)
        self.runner.stopping.set()
        self._stop.set()
        for bell in self._bells.values():
            bell.set()
        deadline = time.monotonic() + grace_s
        for thread in self._lanes:
            thread.join(max(0.0, deadline - time.monotonic()))
        try:
            self.runner.release_active()
            self.engine.workers.leave(self.id)
        except StoreError as error:
            log.error("its jobs go back when their leases have ended: %s", error)
        log.info("worker %s has stopped", self.id)

    def _do_jobs(self, lane: str) -> None:
        bell = self._bells[lane]
        while not self._stop.is_set():
            try:
                if not self.runner.run(lane):
                    bell.clear()  # if a job came just now, the next look rings for it
                    if not self._stop.is_set():
                        bell.wait()
            except StoreError as error:
                log.error("no %s job can be taken, trying on: %s", lane, error)
                self._stop.wait(TROUBLE_S)
            except Exception:
                log.exception("no %s job can be taken; trying on", lane)
                self._stop.wait(TROUBLE_S)

    def _look_out(self) -> None:
        """Ring for the idle lanes that jobs wait in, and wake the jobs whose pause is over."""
        woken = time.monotonic()
        while not self._stop.wait(POLL_S):
            try:
                if time.monotonic() - woken >= WAKE_S:
                    woken = time.monotonic()
                    self.runner.store.wake()
                for lane in self.runner.store.waiting():
                    self._bells[lane].set()
            except StoreError as error:
                log.error("cannot look for jobs, trying on: %s", error)
                self._stop.wait(TROUBLE_S)
            except Exception:
                log.exception("cannot look for jobs; trying on")
                self._stop.wait(TROUBLE_S)

    def _queue_chores(self) -> None:
        self._chores_done = time.monotonic()
        try:
            self.engine.submit_many(self._chores())
        except SvacError as error:
            log.error("the daily work is put off until tomorrow: %s", error)

    def _queue_watched(self) -> None:
        try:
            self.engine.submit_many(self._watch())
        except StoreError:
            raise
        except SvacError as error:
            log.error("cannot look for work, trying on: %s", error)

    def _beat(self) -> None:
        device, version = self._describe()
        self.engine.workers.beat(
            self.id, self.runner.active_ids, device=device, model_version=version, gpu=self._gpu_memory()
        )

    def _beat_on(self) -> None:
        """Keep the lease, and look after jobs whose worker did not keep its own."""
        while not self._stop.wait(self._lease_s / 6):
            # Each by itself: what stops one of them must not stop the others, least of all the heart.
            self._surely(self._beat)
            self._surely(lambda: self.engine.recover(self._lease_s))
            self._surely(self._queue_watched)
            if time.monotonic() - self._chores_done >= CHORES_EVERY_S:
                self._surely(self._queue_chores)

    def _surely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except StoreError as error:
            log.error("the database cannot be used, trying on: %s", error)
        except Exception:
            log.exception("the heartbeat goes on after an unexpected error")
