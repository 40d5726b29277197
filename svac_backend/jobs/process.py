"""The worker's process: a thread for each lane, heartbeat, recovery of lost jobs, orderly shutdown.

It does not import torch; the handlers import what they need.
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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import partial
from typing import Any

from svac_backend.errors import JobCancelled, StoreError, SvacError, lacks_room, log_ids, no_room
from svac_backend.jobs.engine import (
    INTERACTIVE,
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
from svac_backend.store.jobs import JobStore
from svac_backend.store.lanes import BULK_LANE, LANE_OF, LANES, LIGHT_LANE, MODEL_LANE, TRAINING_LANE
from svac_backend.store.tables import words

# Seconds to stop in; less than the 10 s between Docker's SIGTERM and SIGKILL.
GRACE_S = 8.0
# Seconds between two looks for work, and after the database failed.
POLL_S, TROUBLE_S = 0.1, 1.0
# Seconds between two looks for jobs whose pause is over.
WAKE_S = 1.0
# Seconds for which the end of a job waits for a broken database; it waits for one that is only away without limit.
PATIENCE_S = 600.0
CHORES_EVERY_S = 24 * 3600
# How many of its last videos a worker prefers to others, and for how many jobs in a row.
VIDEOS, IN_A_ROW = 4, 8

log = logging.getLogger(__name__)


class Role(str, Enum):
    """Which jobs a worker takes. A single one takes all; in a cluster, those with the model leave the rest to others.

    A `reserved` worker has the model, too, and takes only jobs that a person waits for.
    """

    ALL = "all"
    MODEL = "model"
    RESERVED = "reserved"
    LIGHT = "light"

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes that it takes jobs from."""
        return {
            Role.ALL: LANES,
            Role.MODEL: (MODEL_LANE, TRAINING_LANE),
            Role.RESERVED: (MODEL_LANE,),
            Role.LIGHT: (LIGHT_LANE, BULK_LANE),
        }[self]


class Runner:
    """Does jobs for one worker, on as many threads as call `run`.

    Whenever a job that nobody waits for reports its progress, it first lets jobs through that a person waits for.

    Args:
        store: where the jobs are.
        handlers: kind -> handler.
        worker_id: the name under which it claims jobs.
        retry_hours: for how many hours a job with a temporary fault is tried again.
        least: do only jobs of at least this priority.
        between: a context entered while other jobs run within one.
    """

    def __init__(
        self,
        store: JobStore,
        handlers: Mapping[str, Handler],
        worker_id: str,
        retry_hours: float = 24.0,
        *,
        least: int | None = None,
        between: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.store = store
        self.retry_hours = retry_hours
        self.handlers = handlers
        self.worker_id = worker_id
        self.stopping = threading.Event()
        self.drained = threading.Event()
        self.urgent = threading.Event()  # a person waits for a job of the model
        self._least = least
        self._between = between
        self._active: dict[str, Job] = {}
        self._videos: deque[str] = deque(maxlen=VIDEOS)
        self._in_a_row = 0

    def run(self, lane: str) -> bool:
        """Do the next job of a lane; False if none waits. A bad job never makes it raise.

        Raises:
            StoreError: no job could be claimed.
        """
        job = self._claim(lane, self._least)
        if job is None:
            return False
        self._run(job, lane)
        return True

    def _claim(self, lane: str, least: int | None) -> Job | None:
        if self.stopping.is_set() or self.drained.is_set():
            return None
        videos = () if self._in_a_row >= IN_A_ROW else tuple(self._videos)
        job = self.store.claim(lane, self.worker_id, least=least, videos=videos)
        if job is not None and job.video:
            known = job.video in self._videos
            self._in_a_row = self._in_a_row + 1 if known else 0
            if not known:
                self._videos.append(job.video)
        return job

    def _run(self, job: Job, lane: str) -> None:
        self._active[job.id] = job
        with log_ids(job=job.id, kind=job.kind):
            try:
                self._do(job, lane)
            except StoreError as error:
                # Its end is not stored, so it counts as running until its lease ends; then `recover` puts it back.
                log.error("job %s will run again: %s", job.id, error)
            finally:
                self._active.pop(job.id, None)

    def _let_through(self, job: Job) -> None:
        """Within a job of the model, do the jobs that people wait for."""
        if job.priority >= INTERACTIVE or not self.urgent.is_set():
            return
        self.urgent.clear()
        with self._between():
            while (urgent := self._claim(MODEL_LANE, INTERACTIVE)) is not None:
                log.info("job %s stands aside for job %s", job.id, urgent.id)
                self._run(urgent, MODEL_LANE)

    @property
    def patient(self) -> bool:
        """Whether a running job of the model would let others go first."""
        jobs = list(self._active.values())
        of_model = [job for job in jobs if LANE_OF.get(job.kind, MODEL_LANE) == MODEL_LANE]
        return bool(of_model) and all(job.priority < INTERACTIVE for job in of_model)

    @property
    def active_ids(self) -> list[str]:
        """The jobs that run now."""
        return list(self._active)

    def release_active(self) -> None:
        """Give back the jobs that did not stop in time, so that they do not wait for their lease to end."""
        for job in list(self._active.values()):
            self.store.release(job)

    def _do(self, job: Job, lane: str) -> None:
        context = JobContext(
            job,
            lambda fraction, message: self.store.report(job, fraction, message),
            self.stopping,
            partial(self._let_through, job) if lane == MODEL_LANE else lambda: None,
        )
        begun = time.monotonic()
        log.info("job %s (%s) begins, attempt %d", job.id, job.kind, job.attempts)
        finish = partial(self.store.finish, job)
        try:
            result = self._with_room(context)
            message = str(result.pop("message", "Done"))
            json.dumps(result)  # a result that cannot be stored is an error like any other
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
                hint=f"Look for job {job.id} in the worker's log, which has the full report.",
            )
            message = "failed"
        if self._stored(job, end):
            log.info("job %s ends after %.1f s: %s", job.id, time.monotonic() - begun, message)
        else:
            log.warning("job %s ends (%s), but another worker has it by now", job.id, message)

    def _with_room(self, context: JobContext) -> dict[str, Any]:
        """Report a full disk as such, whatever ran into it."""
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
            raise SvacError("This job's entry in the database cannot be read.", "Send the task again.")
        handler = self.handlers.get(context.job.kind)
        if handler is None:
            raise SvacError(
                f"This worker cannot do jobs of kind {context.job.kind!r}.",
                "Update the worker: its version is too old.",
            )
        with held():
            return handler(context)

    def _stored(self, job: Job, end: Callable[[], bool]) -> bool:
        """Store a job's end, trying again while the database is locked or away: finished work is not done twice."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return end()
            except StoreError as error:
                if self.stopping.is_set() or (time.monotonic() >= deadline and not error.temporary):
                    raise
                log.warning("the end of job %s is not stored, trying again: %s", job.id, error)
                self.stopping.wait(TROUBLE_S)


class WorkerProcess:
    """Does jobs until it is told to stop, on one thread for each lane.

    Args:
        engine: where the jobs come from.
        handlers: kind -> handler.
        describe: returns (device, model version) for the heartbeat, empty while unknown.
        gpu_memory: returns (used, total) bytes of its GPU; None without one.
        chores: returns upkeep jobs, if any are due; called at the start and then once a day.
        watch: like `chores`, but called at the start and then with every heartbeat: it must be quick.
        retry_hours: see `Runner`.
        lease_s: seconds of silence after which other workers take this one's jobs.
        role: which jobs it takes.
        node: where it runs, as `svac-backend cluster drain` names it; by default the machine's name.
        between: see `Runner`.
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
        role: Role = Role.ALL,
        node: str = "",
        between: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.engine = engine
        host = socket.gethostname()[:60]
        self.id = f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.role, self.node = role, node or host
        least = INTERACTIVE if role is Role.RESERVED else None
        self.runner = Runner(engine.store, handlers, self.id, retry_hours, least=least, between=between)
        self._describe = describe
        self._gpu_memory = gpu_memory
        self._chores = chores
        self._watch = watch
        self._lease_s = lease_s
        self._stop = threading.Event()
        self._retired = False
        self._bells = {lane: threading.Event() for lane in role.lanes}
        self._lanes = [
            threading.Thread(target=self._do_jobs, args=(lane,), name=lane, daemon=True)
            for lane in role.lanes
        ]
        # One thread looks for all lanes: waking a thread costs more than looking.
        self._lookout = threading.Thread(target=self._look_out, name="lookout", daemon=True)
        self._heart = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Recover what a crash left behind, then start the threads that do jobs."""
        self.engine.workers.hold(self.id)
        self._obey()
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

    def retire(self) -> None:
        """Take no more jobs from now on; running ones continue."""
        self._retired = True
        self.runner.drained.set()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Take no more jobs; make running ones stop at their next report and wait again."""
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
            log.error("its jobs will be put back when their leases end: %s", error)
        log.info("worker %s has stopped", self.id)

    def _do_jobs(self, lane: str) -> None:
        bell = self._bells[lane]
        while not self._stop.is_set():
            try:
                if not self.runner.run(lane):
                    bell.clear()  # if a job came in just now, the next look rings for it
                    if not self._stop.is_set():
                        bell.wait()
            except StoreError as error:
                log.error("no %s job can be taken, trying again: %s", lane, error)
                self._stop.wait(TROUBLE_S)
            except Exception:
                log.exception("no %s job can be taken; trying again", lane)
                self._stop.wait(TROUBLE_S)

    def _look_out(self) -> None:
        """Ring for idle lanes where jobs wait, and wake the jobs whose pause is over."""
        woken = time.monotonic()
        while not self._stop.wait(POLL_S):
            try:
                if time.monotonic() - woken >= WAKE_S:
                    woken = time.monotonic()
                    self.runner.store.wake()
                for lane in self.runner.store.waiting():
                    if lane in self._bells:
                        self._bells[lane].set()
                if self.runner.patient and MODEL_LANE in self.runner.store.waiting(INTERACTIVE):
                    self.runner.urgent.set()
            except StoreError as error:
                log.error("cannot look for jobs, trying again: %s", error)
                self._stop.wait(TROUBLE_S)
            except Exception:
                log.exception("cannot look for jobs; trying again")
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
            log.error("cannot look for work, trying again: %s", error)

    def _beat(self) -> None:
        device, version = self._describe()
        self.engine.workers.beat(
            self.id,
            self.runner.active_ids,
            device=device,
            model_version=version,
            gpu=self._gpu_memory(),
            node=self.node,
            role=self.role.value,
            drained=self.runner.drained.is_set() and not self.runner.active_ids,
        )

    def _obey(self) -> None:
        """Take no more jobs while this node is drained, and give back those that run for too long."""
        left = self.engine.drains.seconds_left(self.node)
        if left is None:
            if self.runner.drained.is_set() and not self._retired:
                log.info("worker %s takes jobs again", self.id)
                self.runner.drained.clear()
                self.runner.stopping.clear()
                if self._stop.is_set():  # set in the meantime
                    self.runner.stopping.set()
        else:
            if not self.runner.drained.is_set():
                log.info("worker %s takes no more jobs: its node is being drained", self.id)
            self.runner.drained.set()
            if left == 0:
                self.runner.stopping.set()

    def _beat_on(self) -> None:
        """Renew this worker's leases, and recover jobs whose worker did not renew its own."""
        while not self._stop.wait(self._lease_s / 6):
            # Each by itself: a fault in one must not stop the others, least of all the heartbeat.
            self._surely(self._obey)
            self._surely(self._beat)
            self._surely(lambda: self.engine.recover(self._lease_s))
            self._surely(self._queue_watched)
            if time.monotonic() - self._chores_done >= CHORES_EVERY_S:
                self._surely(self._queue_chores)

    def _surely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except StoreError as error:
            log.error("the database cannot be used, trying again: %s", error)
        except Exception:
            log.exception("the heartbeat goes on after an unexpected error")
