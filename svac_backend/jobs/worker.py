"""`svac-backend worker`: the process that owns the model. The one place of jobs/ that imports torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import Handler, Work
from svac_backend.jobs.frames import FramesHandler
from svac_backend.jobs.learn import COLLECT, CollectHandler, FinetuneHandler
from svac_backend.jobs.local import LEASE_S, LocalEngine
from svac_backend.jobs.model_owner import ModelOwner
from svac_backend.jobs.payloads import FRAMES, PRELABEL, PROPAGATE
from svac_backend.jobs.prelabel import PredictionMaker, PrelabelHandler
from svac_backend.jobs.process import WorkerProcess
from svac_backend.jobs.propagate import PropagateHandler
from svac_backend.jobs.renew import RENEW, RenewHandler, renewal_if_due
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.learning.collect import Collector
from svac_backend.learning.triggers import FINETUNE, Trigger
from svac_backend.pipeline import load_model
from svac_backend.settings import Settings
from svac_backend.store.connections import ConnectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.jobs import JobStore
from svac_backend.store.objects import ObjectStore, SentStore
from svac_backend.store.predictions import PartStore, PredictionStore
from svac_backend.svac.model import Svac

# On a small machine the web process, Label Studio and the browser go first; alone, the worker loses nothing.
NICENESS = 10

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger(__name__)


def create_worker(
    settings: Settings,
    database: Database,
    *,
    load: Callable[[Settings], Svac] = load_model,
    lease_s: float = LEASE_S,
) -> tuple[WorkerProcess, ModelOwner]:
    """Return a worker for all kinds of jobs, and the owner of its model; nothing is started or loaded yet."""
    access = LabelStudioAccess(settings, ConnectionStore(database))
    owner = ModelOwner(settings, database, load)
    maker = PredictionMaker(
        settings,
        owner.get,
        owner.version,
        PredictionStore(database),
        PartStore(database),
        JobStore(database),
        access,
    )
    engine = LocalEngine(settings, database)
    collector = Collector(settings, database)
    collect = CollectHandler(collector, Trigger(settings, database, engine.submit_many))
    handlers: dict[str, Handler] = {
        PRELABEL: PrelabelHandler(maker, SentStore(database)),
        PROPAGATE: PropagateHandler(maker, SentStore(database), ObjectStore(database), EventStore(database)),
        FRAMES: FramesHandler(settings, access),
        RENEW: RenewHandler(settings, access),
        COLLECT: collect,
        FINETUNE: FinetuneHandler(settings, database, collector),
    }

    def chores() -> list[Work]:
        return renewal_if_due(settings)

    worker = WorkerProcess(
        engine, handlers, describe=owner.describe, chores=chores, watch=collect.work, lease_s=lease_s
    )
    return worker, owner


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        SvacError: the data folder cannot be used.
    """
    logging.basicConfig(level=settings.log_level, format=LOG_FORMAT)
    # It would log two lines for each job, which the runner says better.
    logging.getLogger("huey").setLevel(logging.WARNING)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    worker, owner = create_worker(settings, Database(settings.data_dir))
    try:
        owner.get()  # now, so that the first job does not wait for it
    except SvacError as error:
        # Jobs will fail with the same words, where people see them; frames can be cut all the same.
        log.error("%s", error)
    worker.run()
