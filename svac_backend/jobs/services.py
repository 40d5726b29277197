"""What a web process works with: settings, stores, the job engine, metrics, and the check whether it can serve.

`GET /ready` reports that check with reasons, and so does `svac-backend ready`, for health checks.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import LEASE_S, JobEngine
from svac_backend.learning.triggers import Trigger
from svac_backend.settings import Settings
from svac_backend.storage.published import open_storage
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore, EventStore
from svac_backend.store.jobs import JobStore
from svac_backend.store.objects import ObjectStore, SentStore
from svac_backend.store.predictions import PartStore, PredictionStore
from svac_backend.store.tasks import TaskStore
from svac_backend.store.workers import WorkerStore
from svac_backend.versions import Registry


@dataclass(frozen=True)
class Services:
    """The owners of all state, on top of one database; each process has one `Services`."""

    settings: Settings
    database: Database
    engine: JobEngine
    jobs: JobStore
    workers: WorkerStore
    predictions: PredictionStore
    tasks: TaskStore
    connections: ConnectionStore
    events: EventStore
    sent: SentStore
    objects: ObjectStore
    parts: PartStore
    registry: Registry
    trigger: Trigger

    @property
    def model_version(self) -> str:
        """The serving version of the model that the settings name.

        Raises:
            SvacError: there is no such model.
        """
        return self.registry.name()


def open_services(settings: Settings) -> Services:
    """Open the state in `settings.data_dir`, or make it.

    Raises:
        SvacError: the folder cannot be used.
    """
    database = Database.from_settings(settings)
    engine = JobEngine(database)
    return Services(
        settings=settings,
        database=database,
        engine=engine,
        jobs=engine.store,
        workers=engine.workers,
        predictions=PredictionStore(database),
        tasks=TaskStore(database),
        connections=ConnectionStore(database),
        events=EventStore(database),
        sent=SentStore(database),
        objects=ObjectStore(database),
        parts=PartStore(database),
        registry=Registry(settings, database),
        trigger=Trigger(settings, database, engine.submit_many),
    )


# Label Studio gives up on a webhook after 1 s and on /predict after 100 s.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 100)


class Metrics:
    """The metrics of one web process for Prometheus, in a registry of their own."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "svac_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "svac_request_seconds", "Time to answer.", ["route"], buckets=BUCKETS_S, registry=self.registry
        )
        self.predictions = Counter(
            "svac_predict_tasks", "Tasks asked for, by outcome.", ["outcome"], registry=self.registry
        )
        self.registry.register(_StateCollector(services))

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _StateCollector(Collector):
    """Reads the database when Prometheus scrapes: the state of all processes, not only of this one."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> list[GaugeMetricFamily]:
        # Keeps the registry from reading the database when it registers this collector.
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("svac_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._services.jobs.counts().items():
            jobs.add_metric([state.value], count)
        yield jobs
        load = GaugeMetricFamily("svac_lane_jobs", "Jobs to do, by lane.", labels=["lane", "state"])
        oldest = GaugeMetricFamily(
            "svac_lane_oldest_seconds", "How long the oldest waiting job has waited.", labels=["lane"]
        )
        for lane in self._services.jobs.lanes():
            for name in ("waiting", "retrying", "running"):
                load.add_metric([lane.lane, name], getattr(lane, name))
            oldest.add_metric([lane.lane], lane.oldest_s)
        yield load
        yield oldest
        free = shutil.disk_usage(self._services.settings.data_dir).free
        yield GaugeMetricFamily("svac_disk_free_bytes", "Free disk where SVAC_DATA_DIR lies.", value=free)
        alive = self._services.workers.alive(LEASE_S)
        yield GaugeMetricFamily("svac_workers", "Workers that are alive.", value=len(alive))
        gpu = GaugeMetricFamily(
            "svac_gpu_memory_bytes", "Memory of the workers' GPUs.", labels=["worker", "kind"]
        )
        for worker in alive:
            for kind, size in zip(("used", "total"), worker.gpu or (), strict=False):
                gpu.add_metric([worker.id, kind], size)
        yield gpu
        yield GaugeMetricFamily(
            "svac_events", "Webhooks recorded.", value=sum(self._services.events.counts().values())
        )


def reasons_not_ready(services: Services) -> list[str]:
    """Return a sentence for each thing that keeps jobs from being done; if there is none, new tasks get masks.

    It checks the database, the model, a worker that serves it, and free disk space. A living worker proves that the
    database can be written: each heartbeat is a write.
    """
    reasons = [*_disk(services), *_storage(services)]
    try:
        workers = services.workers.alive(LEASE_S)
    except SvacError as error:
        return [str(error), *reasons]
    try:
        base = services.registry.base
    except SvacError as error:
        return [str(error), *reasons]
    # A version promoted just now serves from the worker's next job on, so only the base's weights must be the same.
    if not workers:
        reasons.append("No worker is running: start `svac-backend worker`.")
    elif not any(worker.device for worker in workers):
        reasons.append("The worker is loading its model.")
    elif not any(worker.device and worker.model_version.startswith(base) for worker in workers):
        others = ", ".join(sorted({worker.model_version for worker in workers if worker.device}))
        reasons.append(
            f"The worker serves {others}, but the settings name {base}: start both with the same settings."
        )
    return reasons


def reasons_worker_not_ready(services: Services) -> list[str]:
    """Return why the worker of this host cannot do jobs; a worker that is loading its model is fine."""
    host = socket.gethostname()[:60]
    try:
        workers = services.workers.alive(LEASE_S)
    except SvacError as error:
        return [str(error)]
    if any(worker.id.startswith(f"{host}:") for worker in workers):
        return _disk(services)
    return [f"No worker of {host} has given a sign of life in the last {LEASE_S:.0f} s.", *_disk(services)]


def _storage(services: Services) -> list[str]:
    problem = open_storage(services.settings).problem()
    return [] if problem is None else [problem]


def _disk(services: Services) -> list[str]:
    settings = services.settings
    free_mb = shutil.disk_usage(settings.data_dir).free / 1e6
    if free_mb >= settings.min_free_mb:
        return []
    return [
        f"{free_mb:.0f} MB are free where {settings.data_dir} lies, but {settings.min_free_mb} are needed: free some "
        "space, or set SVAC_MIN_FREE_MB."
    ]
