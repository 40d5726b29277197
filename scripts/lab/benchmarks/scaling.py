"""What a cluster's database costs, measured here, and what many GPUs would make of it, computed.

A simulation: each GPU takes a job, fetches its video, computes, sends the result and ends the job. The database, the
store and Label Studio are queues with as many servers as they have processes; what asks the database all the time
(looking for jobs, progress, heartbeats) takes its share of it beforehand.
"""

from __future__ import annotations

import heapq
import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from pydantic import SecretStr

from lab.drill.cluster import ENVIRONMENT
from lab.drill.stage import Stage
from lab.postgresql import PostgresServer
from svac_backend.jobs.engine import BULK, LEASE_S, REPORT_INTERVAL_S, JobEngine, JobState, Work
from svac_backend.jobs.process import POLL_S
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.jobs import Job, JobStore
from svac_backend.store.lanes import MODEL_LANE
from svac_backend.store.workers import WorkerStore

WAITING = 400


@dataclass(frozen=True)
class Costs:
    """Processor milliseconds of the database for a call: to look for jobs, take one, report, end one, a heartbeat."""

    look: float
    claim: float
    report: float
    finish: float
    beat: float


@dataclass(frozen=True)
class Assumed:
    """What was not measured here.

    Attributes:
        task_s: seconds that a GPU takes for a task.
        video_mb: of a task; store_mbs: megabytes a second that the store gives out in all.
        push_s: seconds that a process of Label Studio takes for a prediction; pushers: how many it has.
        database_cores: of the database's machine; SQLite has one writer.
    """

    task_s: float = 10.0
    video_mb: float = 5.0
    store_mbs: float = 1000.0
    push_s: float = 0.6
    pushers: int = 4
    database_cores: int = 4


@dataclass(frozen=True)
class Found:
    """What comes out: tasks an hour, and the shares of the time that each part is busy, 0..1."""

    gpus: int
    tasks_an_hour: float
    gpu: float
    database: float
    store: float
    label_studio: float

    @property
    def limit(self) -> str:
        """The part that bounds it."""
        if self.gpu > 0.9:
            return "GPUs"
        parts = {"database": self.database, "store": self.store, "Label Studio": self.label_studio}
        return max(parts, key=lambda name: parts[name])


def measure(system: str, calls: int = 100) -> Costs:
    """Measure the calls of one worker on a queue of 400 jobs; of each kind the mean.

    Counted is processor time, which does not depend on what else the machine does: of PostgreSQL the server's; SQLite
    works within this process, so there the whole call counts.

    Args:
        system: `sqlite` or `postgresql`.
        calls: of each kind.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory(prefix="svac-scaling-")))
        url = None
        if system == "postgresql":
            server = PostgresServer()
            stack.callback(server.close)
            url = SecretStr(server.new_database())
        settings = Settings(_env_file=None, data_dir=root / "data", database_url=url)
        database = stack.enter_context(closing(Database.from_settings(settings)))
        jobs, workers = JobStore(database), WorkerStore(database)
        for start in range(0, WAITING + calls + 1, 200):
            jobs.submit_many(
                [Work("prelabel", {"n": n}, f"job {n}", BULK) for n in range(start, start + 200)]
            )
        taken: list[Job] = []

        def claim() -> None:
            job = jobs.claim(MODEL_LANE, "worker")
            assert job is not None
            taken.append(job)

        def finish() -> None:
            jobs.finish(taken.pop(), JobState.DONE, message="Done", result={})

        processor = _server_s if system == "postgresql" else time.process_time

        def ms(call: Callable[[], object]) -> float:
            call()  # what is made at the first time
            begun = processor()
            for _ in range(calls):
                call()
            return 1000 * (processor() - begun) / calls

        return Costs(
            look=ms(jobs.waiting),
            claim=ms(claim),
            report=ms(lambda: jobs.report(taken[-1], random.random(), "frame")),
            beat=ms(lambda: workers.beat("worker", [taken[-1].id])),
            finish=ms(finish),
        )


def _server_s() -> float:
    """Return the processor time of all processes below this one: of the database's server."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def small_job_ms(engine: str, jobs: int = 40) -> float:
    """Return the median milliseconds from submitting the smallest job to its end, by a real worker.

    Args:
        engine: `local` or `ray`.
        jobs: how many, one after the other.
    """
    environment, found = ENVIRONMENT if engine == "ray" else {}, list[float]()
    with (
        TemporaryDirectory(prefix="svac-engines-") as root,
        Stage(Path(root), environment=environment) as stage,
    ):
        settings = Settings(_env_file=None, data_dir=stage.data)
        with closing(Database.from_settings(settings)) as database:
            queue = JobEngine(database)
            stage.until(lambda: bool(queue.workers.alive(LEASE_S)[0].model_version), "the model")
            for number in range(jobs):
                begun = time.perf_counter()
                # Of a kind that nobody knows: it is taken, refused and ended.
                job = queue.submit("nothing", {}, f"nothing {number}")
                while queue.get(job.id).active:
                    time.sleep(0.001)
                found.append(1000 * (time.perf_counter() - begun))
    return statistics.median(found)


class _Queue:
    """A part with some servers, first come, first served."""

    def __init__(self, servers: int) -> None:
        self.free = [0.0] * servers
        self.busy_s = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """Return when a call of now ends."""
        end = max(now, heapq.heappop(self.free)) + seconds
        heapq.heappush(self.free, end)
        self.busy_s += seconds
        return end


def standing_load(gpus: int, costs: Costs) -> float:
    """Return the seconds of database work a second that workers cause whatever they do."""
    reports, looks, beats = 1 / REPORT_INTERVAL_S, 1 / POLL_S, 6 / LEASE_S
    return gpus * (reports * costs.report + looks * costs.look + beats * costs.beat) / 1000


def simulate(gpus: int, costs: Costs, given: Assumed, hours: float = 0.5, seed: int = 0) -> Found:
    """Let GPUs work on a queue without end for some hours.

    Args:
        gpus: how many, one worker each.
        costs: of the database.
        given: what is assumed.
        hours: simulated.
        seed: of the lengths of tasks, which are spread by half of `task_s` to either side.
    """
    chance, until = random.Random(seed), 3600 * hours
    standing = standing_load(gpus, costs) / given.database_cores
    # What is left for taking and ending jobs; a hundredth where nothing is, so that the simulation goes on.
    left = max(0.01, 1 - standing)
    database, label_studio = _Queue(given.database_cores), _Queue(given.pushers)
    store = _Queue(1)
    events = [(chance.uniform(0, given.task_s), number, "claim") for number in range(gpus)]
    heapq.heapify(events)
    done, computed = 0, 0.0
    while events and events[0][0] < until:
        now, number, step = heapq.heappop(events)
        if step == "claim":
            after = database.serve(now, costs.claim / 1000 / left), number, "fetch"
        elif step == "fetch":
            after = store.serve(now, given.video_mb / given.store_mbs), number, "compute"
        elif step == "compute":
            seconds = given.task_s * chance.uniform(0.5, 1.5)
            computed += seconds
            after = now + seconds, number, "push"
        elif step == "push":
            after = label_studio.serve(now, given.push_s), number, "finish"
        else:
            done += 1
            after = database.serve(now, costs.finish / 1000 / left), number, "claim"
        heapq.heappush(events, after)
    own = done * (costs.claim + costs.finish) / 1000 / until / given.database_cores
    return Found(
        gpus,
        tasks_an_hour=done / hours,
        gpu=min(1.0, computed / until / gpus),
        database=standing + own,
        store=min(1.0, store.busy_s / until),
        label_studio=min(1.0, label_studio.busy_s / until / given.pushers),
    )
