"""The job table, which is also the queue. Every change of a job's state is one transaction.

A waiting job belongs to a lane. A worker takes the next job of a lane and holds it while its heartbeat renews the
lease; what it reports about the job counts only that long.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, Update, and_, func, or_, select, text, update
from sqlalchemy.orm import Session

from svac_backend.store.database import Database, pack, unpack
from svac_backend.store.lanes import LANE_OF, LANES, MODEL_LANE, WAITING_LANES, lanes_waited_in, nexts
from svac_backend.store.predictions import video_identity
from svac_backend.store.tables import WAITING, ConfigRow, JobRow, words
from svac_backend.store.workers import Watch

# The part of a payload that is stored once for all jobs.
CONFIG = "label_config"
# Locks: one process at a time looks for a key's job and adds it; one at a time changes many waiting rows.
LOCK = "jobs"
# Seconds by which the clocks of machines that share a database may differ.
CLOCK_S = 60.0


class JobState(str, Enum):
    """The state of a job. `queued` and `running` are active, the others final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (JobState.QUEUED.value, JobState.RUNNING.value)


@dataclass(frozen=True)
class Job:
    """A job as it was when it was read. Times are seconds since the epoch.

    Attributes:
        key: jobs with the same key are the same work; at most one of them is active.
        priority: higher goes first.
        progress: 0..1; `message` says the same in words.
        payload: what the handler needs; result: what it returned.
        error, hint: why it failed, and what to do about it.
        attempts: how often a worker began it, except the ones that count as `tries`.
        tries: how often a temporary fault, such as a server that is away, stopped it.
        due: when it is tried again; None unless it waits for that.
        cancel_requested: a person wants it to stop; the worker has not stopped yet.
        heartbeat: when its worker last gave a sign of life.
        video: the hash of its `store.predictions.video_identity`; empty without a video.
    """

    id: str
    kind: str
    state: JobState
    key: str
    priority: int
    progress: float
    message: str
    payload: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    hint: str | None
    attempts: int
    tries: int
    due: float | None
    cancel_requested: bool
    worker_id: str | None
    heartbeat: float | None
    created: float
    started: float | None
    finished: float | None
    video: str = ""

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state.value in ACTIVE


@dataclass(frozen=True)
class Work:
    """A job to submit; see `JobEngine.submit`."""

    kind: str
    payload: Mapping[str, Any]
    key: str
    priority: int = 0


@dataclass(frozen=True)
class LaneLoad:
    """The load of a lane.

    Attributes:
        lane: its name.
        waiting, retrying, running: numbers of jobs; those retrying wait for a temporary fault to pass.
        oldest_s: seconds for which the oldest waiting job has waited.
    """

    lane: str
    waiting: int
    retrying: int
    running: int
    oldest_s: float


class JobStore:
    """Jobs in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._watch = Watch()

    def submit(self, kind: str, payload: Mapping[str, Any], key: str, priority: int = 0) -> Job:
        """Submit one job, see `submit_many`."""
        return self.submit_many([Work(kind, payload, key, priority)])[0]

    def submit_many(self, works: Sequence[Work]) -> list[Job]:
        """Return for each work the active job with its key, or a new queued one.

        A waiting job takes over a higher priority; a job that waits to be tried again is tried now if a person wants
        it. All happens in one transaction, so a call with many tasks waits for the disk once.
        """
        packed = {
            text: (hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), pack(text))
            for text in {work.payload[CONFIG] for work in works if isinstance(work.payload.get(CONFIG), str)}
        }
        now = self.database.time()
        with self.database.write(LOCK) as session:
            wanted = [work.key for work in works]
            rows = {row.key: row for row in session.scalars(select(JobRow).where(_active(wanted)))}
            found = []
            for number, work in enumerate(works):
                row = rows.get(work.key)
                if row is None:
                    row = rows[work.key] = _new(
                        work.kind, work.payload, work.key, work.priority, now + 1e-6 * number
                    )
                    if work.payload.get(CONFIG) in packed:
                        row.config, data = packed[row.payload.pop(CONFIG)]
                        if session.get(ConfigRow, row.config) is None:
                            session.add(ConfigRow(sha256=row.config, data=data))
                    session.add(row)
                elif row.state == JobState.QUEUED.value:
                    row.priority = max(row.priority, work.priority)
                    row.due = None if work.priority > 0 else row.due
                found.append(row)
            session.flush()
            return [_job(row) for row in found]

    def active_keys(self, keys: Collection[str]) -> set[str]:
        """Return those of `keys` that have a waiting or running job."""
        with self.database.read() as session:
            return set(session.scalars(select(JobRow.key).where(_active(keys))))

    def reject(self, kind: str, payload: Mapping[str, Any], key: str, error: str, hint: str) -> Job:
        """Record work that cannot even be queued as a failed job.

        Label Studio asks again whenever a task is opened: if the latest job of the key failed in the same way, it gets
        a new time instead of a new row.
        """
        now = self.database.time()
        with self.database.write(LOCK) as session:
            latest = select(JobRow).where(JobRow.key == key).order_by(JobRow.created.desc()).limit(1)
            row = session.scalar(latest)
            if row is None or row.state != JobState.FAILED.value or row.error != words(error):
                row = _new(kind, payload, key, 0, now)
                row.state, row.error, row.hint = JobState.FAILED.value, error, hint
                session.add(row)
            row.finished = now
            session.flush()
            return _job(row)

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        with self.database.read() as session:
            row = session.get(JobRow, job_id)
            return None if row is None else _job(row, _configs(session, [row]))

    def find(
        self,
        *,
        states: tuple[JobState, ...] = (),
        kind: str | None = None,
        key: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return jobs, the newest first; `before` is the time and id of the last job on the previous page."""
        query = select(JobRow).order_by(JobRow.created.desc(), JobRow.id).limit(limit)
        if before is not None:
            same = and_(JobRow.created == before[0], JobRow.id > before[1])
            query = query.where(JobRow.created <= before[0], or_(JobRow.created < before[0], same))
        if states:
            query = query.where(JobRow.state.in_([state.value for state in states]))
        for column, value in ((JobRow.kind, kind), (JobRow.key, key)):
            if value is not None:
                query = query.where(column == value)
        with self.database.read() as session:
            rows = session.scalars(query).all()
            configs = _configs(session, rows)
            return [_job(row, configs) for row in rows]

    def ahead(self, job: Job, most: int = 1000) -> int:
        """Return how many jobs go before a waiting one in its lane, counting to `most` at most."""
        older = or_(JobRow.created < job.created, and_(JobRow.created == job.created, JobRow.id < job.id))
        first = or_(JobRow.priority > job.priority, and_(JobRow.priority == job.priority, older))
        lane = JobRow.lane == LANE_OF.get(job.kind, MODEL_LANE)
        some = select(JobRow.id).where(WAITING, lane, first).limit(most).subquery()
        with self.database.read() as session:
            return int(session.scalar(select(func.count()).select_from(some)) or 0)

    def retrying(self, limit: int = 10) -> list[Job]:
        """Return jobs that wait to be tried again, the next one first."""
        query = select(JobRow).where(JobRow.due.is_not(None)).order_by(JobRow.due).limit(limit)
        with self.database.read() as session:
            return [_job(row) for row in session.scalars(query)]

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state."""
        with self.database.read() as session:
            found = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
            by_state = {row[0]: row[1] for row in found}
        return {state: by_state.get(state.value, 0) for state in JobState}

    def count_retrying(self) -> int:
        """Return how many jobs wait for a temporary fault to pass."""
        return int(self.database.look("SELECT count(*) FROM jobs WHERE due IS NOT NULL")[0])

    def lanes(self) -> list[LaneLoad]:
        """Return the load of each lane."""
        found: dict[str, dict[str, tuple[int, float]]] = {lane: {} for lane in LANES}
        with self.database.read() as session:
            for lane, name, count, oldest in session.execute(_LOADS):
                found.setdefault(lane, {})[name] = (count, oldest)
        now, none = self.database.time(), (0, 0.0)
        return [
            LaneLoad(
                lane,
                waiting=jobs.get("waiting", none)[0],
                retrying=jobs.get("retrying", none)[0],
                running=jobs.get("running", none)[0],
                oldest_s=max(0.0, now - jobs["waiting"][1]) if "waiting" in jobs else 0.0,
            )
            for lane, jobs in found.items()
        ]

    def cancel(self, job_id: str) -> Job | None:
        """Cancel one job, see `cancel_many`; return it, or None if there is none."""
        self.cancel_many([job_id])
        return self.get(job_id)

    def cancel_many(self, job_ids: Collection[str]) -> int:
        """Cancel waiting jobs at once and ask running ones to stop; return how many. Finished jobs stay as they are."""
        ended = {"state": JobState.CANCELLED.value, "message": "Cancelled", "finished": self.database.time()}
        some, state = update(JobRow).where(JobRow.id.in_(job_ids)), JobRow.state
        waits = some.where(state == JobState.QUEUED.value).values(**ended, due=None)
        runs = some.where(state == JobState.RUNNING.value).values(cancel_requested=True, message="Cancelling")
        with self.database.write(LOCK) as session:
            # In this order: a job that is claimed in between is asked to stop.
            return sum(session.execute(one).rowcount for one in (waits, runs))  # type: ignore[attr-defined]

    def claim(
        self, lane: str, worker_id: str, *, least: int | None = None, videos: Collection[str] = ()
    ) -> Job | None:
        """Take the next job of a lane for a worker; None if none waits. Finding none takes no write lock.

        Args:
            lane: the lane to take from.
            worker_id: the worker.
            least: take only jobs of at least this priority.
            videos: hashes of the videos that the worker has at hand, see `store.lanes.nexts`.
        """
        if lane not in (self.waiting() if least is None else self.waiting(least)):
            return None
        now = self.database.time()
        with self.database.write() as session:
            for one in nexts(lane, least, videos):
                # One statement: if two workers ask at once, one gets the job, and in PostgreSQL the other the next.
                taken = (
                    update(JobRow)
                    .where(JobRow.id == one.scalar_subquery())
                    .values(
                        state=JobState.RUNNING.value,
                        worker_id=worker_id,
                        attempts=JobRow.attempts + 1,
                        started=now,
                        heartbeat=now,
                        progress=0.0,
                        message="Starting",
                    )
                    .returning(JobRow)
                )
                row = session.scalar(taken)
                if row is not None:
                    return _job(row, _configs(session, [row]))
        return None

    def waiting(self, least: int | None = None) -> list[str]:
        """Return the lanes where jobs wait (of priority `least` at least); cheap enough for many times a second."""
        return self.database.look(WAITING_LANES if least is None else lanes_waited_in(least))

    def report(self, job: Job, progress: float, message: str) -> Job | None:
        """Store a running job's progress, 0..1; return the job as it is now, or None if its lease is lost."""
        now = self.database.time()
        with self.database.write() as session:
            session.execute(_held(job).values(progress=progress, message=message, heartbeat=now))
            row = session.get(JobRow, job.id)
            return _job(row) if row is not None and _holds(row, job) else None

    def finish(
        self,
        job: Job,
        state: JobState,
        *,
        message: str = "",
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
        hint: str | None = None,
    ) -> bool:
        """End a running job; return False, and change nothing, if its lease is lost."""
        values: dict[str, Any] = {
            "state": state.value,
            "message": message,
            "result": None if result is None else dict(result),
            "error": error,
            "hint": hint,
            "finished": self.database.time(),
        }
        if state is JobState.DONE:
            values["progress"] = 1.0
        with self.database.write() as session:
            return bool(session.execute(_held(job).values(**values)).rowcount)  # type: ignore[attr-defined]

    def put_off(self, job: Job, error: str, hint: str, pause_s: float) -> bool:
        """Try a running job again after a pause; return False if its lease is lost. A cancelled job ends instead."""
        now = self.database.time()
        with self.database.write() as session:
            row = session.get(JobRow, job.id, with_for_update=True)
            if row is None or not _holds(row, job):
                return False
            row.worker_id, row.heartbeat, row.error, row.hint = None, now, error, hint
            if row.cancel_requested:
                row.state, row.message, row.finished = JobState.CANCELLED.value, "Cancelled", now
            else:
                row.state, row.due, row.tries = JobState.QUEUED.value, now + pause_s, row.tries + 1
                row.attempts, row.message = row.attempts - 1, "Waiting to retry"
            return True

    def wake(self) -> int:
        """Queue the jobs whose pause is over; return how many.

        A job put off at a time that is still to come is woken, too: the clock has been set back since.
        """
        now = self.database.time()
        over = and_(JobRow.due.is_not(None), or_(JobRow.due <= now, JobRow.heartbeat > now + CLOCK_S))
        with self.database.read() as session:
            if session.scalar(select(JobRow.id).where(over).limit(1)) is None:
                return 0
        with self.database.write(LOCK) as session:
            return session.execute(update(JobRow).where(over).values(due=None)).rowcount  # type: ignore[attr-defined]

    def release(self, job: Job) -> bool:
        """Put a running job back because its worker shuts down; return False if its lease is lost.

        That is not a failure, so the attempt is not counted.
        """
        now = self.database.time()
        with self.database.write() as session:
            row = session.get(JobRow, job.id, with_for_update=True)
            if row is None or not _holds(row, job):
                return False
            row.worker_id = None
            if row.cancel_requested:
                row.state, row.message, row.finished = JobState.CANCELLED.value, "Cancelled", now
            else:
                row.state, row.message = JobState.QUEUED.value, "Waiting: the worker was stopped"
                row.attempts -= 1
            return True

    def recover(
        self, lease_s: float, max_attempts: int, died: Callable[[str], bool] = lambda _: False
    ) -> list[Job]:
        """Take running jobs away from workers that are dead or have been silent for `lease_s` seconds.

        Each is queued again, or fails once it has had `max_attempts`. Return the jobs queued again. `Watch` measures
        the silence; `died` says whether a worker is known to be dead.
        """
        query = select(JobRow.id, JobRow.attempts, JobRow.heartbeat, JobRow.worker_id)
        with self.database.read() as session:
            rows = session.execute(query.where(JobRow.state == JobState.RUNNING.value)).all()
        silent = self._watch.silent_s({row[:2]: row[2] for row in rows}, lease_s)
        stale = [row for row in rows if silent[row[:2]] > lease_s or died(row[3] or "")]
        again, now = [], self.database.time()
        for job_id, attempts, heartbeat, _ in stale:
            with self.database.write() as session:
                row = session.get(JobRow, job_id, with_for_update=True)
                if row is None or (row.state, row.attempts, row.heartbeat) != (
                    JobState.RUNNING.value,
                    attempts,
                    heartbeat,
                ):
                    continue  # it has just given a sign of life
                row.worker_id = None
                if row.cancel_requested:
                    row.state, row.message, row.finished = JobState.CANCELLED.value, "Cancelled", now
                elif row.attempts >= max_attempts:
                    row.state, row.finished = JobState.FAILED.value, now
                    row.error = f"The worker died {row.attempts} times while it ran this job."
                    row.hint = "Check the worker's log and its memory, then send the task again."
                else:
                    row.state, row.message = JobState.QUEUED.value, "Waiting: its worker died"
                    again.append(_job(row))
        return again


# Each part reads only the rows of live jobs, by an index, however many jobs have ended.
_LOADS = text(
    f"SELECT lane, 'waiting', count(*), min(created) FROM jobs WHERE {WAITING} GROUP BY lane"
    " UNION ALL SELECT lane, 'retrying', count(*), 0 FROM jobs WHERE due IS NOT NULL GROUP BY lane"
    " UNION ALL SELECT lane, 'running', count(*), 0 FROM jobs WHERE state = 'running' GROUP BY lane"
)


def _active(keys: Collection[str]) -> ColumnElement[bool]:
    return and_(JobRow.key.in_(keys), JobRow.state.in_(ACTIVE))


def _new(kind: str, payload: Mapping[str, Any], key: str, priority: int, now: float) -> JobRow:
    return JobRow(
        id=uuid.uuid4().hex,
        kind=kind,
        lane=LANE_OF.get(kind, MODEL_LANE),
        state=JobState.QUEUED.value,
        key=key,
        priority=priority,
        progress=0.0,
        message="",
        payload=dict(payload),
        video=_video(payload),
        attempts=0,
        cancel_requested=False,
        created=now,
    )


def _video(payload: Mapping[str, Any]) -> str:
    named = payload.get("hostname"), payload.get("video_url")
    if not isinstance(named[0], str) or not isinstance(named[1], str):
        return ""
    identity = video_identity(named[0], named[1])
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


def _held(job: Job) -> Update:
    """Return an update of the job's row that does nothing once another worker or another attempt has the job."""
    return update(JobRow).where(
        JobRow.id == job.id,
        JobRow.state == JobState.RUNNING.value,
        JobRow.worker_id == job.worker_id,
        JobRow.attempts == job.attempts,
    )


def _holds(row: JobRow, job: Job) -> bool:
    return (
        row.state == JobState.RUNNING.value
        and row.worker_id == job.worker_id
        and row.attempts == job.attempts
    )


def _configs(session: Session, rows: Sequence[JobRow]) -> dict[str, str]:
    """Return the labelling configs of some jobs by hash; each is read once."""
    wanted = {row.config for row in rows if row.config is not None}
    found = session.scalars(select(ConfigRow).where(ConfigRow.sha256.in_(wanted))) if wanted else ()
    return {row.sha256: unpack(row.data) for row in found}


def _job(row: JobRow, configs: Mapping[str, str] | None = None) -> Job:
    """Return a row's job. Without `configs`, its payload lacks the labelling config."""
    values = {name: getattr(row, name) for name in Job.__dataclass_fields__}
    if configs and row.config is not None and row.config in configs:
        values["payload"] = {**row.payload, CONFIG: configs[row.config]}
    values["state"] = JobState(row.state)
    return Job(**values)
