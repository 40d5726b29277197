"""What the web process works with: settings, stores, the job engine. One for each process."""

from __future__ import annotations

from dataclasses import dataclass

from svac_backend.jobs.engine import JobEngine
from svac_backend.jobs.local import LocalEngine
from svac_backend.settings import Settings
from svac_backend.store.connections import ConnectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.jobs import JobStore
from svac_backend.store.objects import ObjectStore
from svac_backend.store.parts import PartStore
from svac_backend.store.predictions import PredictionStore
from svac_backend.store.sent import SentStore
from svac_backend.store.workers import WorkerStore
from svac_backend.training.registry import Registry
from svac_backend.training.triggers import Trigger


@dataclass(frozen=True)
class Backend:
    """The owners of all state, over one database."""

    settings: Settings
    database: Database
    engine: JobEngine
    jobs: JobStore
    workers: WorkerStore
    predictions: PredictionStore
    connections: ConnectionStore
    events: EventStore
    sent: SentStore
    objects: ObjectStore
    parts: PartStore
    registry: Registry
    trigger: Trigger

    @property
    def model_version(self) -> str:
        """The version that serves of the model that the settings name.

        Raises:
            SvacError: there is no such model.
        """
        return self.registry.name()


def open_backend(settings: Settings) -> Backend:
    """Open, or make, the state in `settings.data_dir`.

    Raises:
        SvacError: the folder cannot be used.
    """
    database = Database(settings.data_dir)
    engine = LocalEngine(settings, database)
    return Backend(
        settings=settings,
        database=database,
        engine=engine,
        jobs=JobStore(database),
        workers=WorkerStore(database),
        predictions=PredictionStore(database),
        connections=ConnectionStore(database),
        events=EventStore(database),
        sent=SentStore(database),
        objects=ObjectStore(database),
        parts=PartStore(database),
        registry=Registry(settings, database),
        trigger=Trigger(settings, database, engine.submit_many),
    )
