"""`svac-backend worker`: the process that owns the model. The only module of jobs/ that imports torch.

The model is loaded once, with the adapter of the serving version; adapters are exchanged between two jobs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import torch

from svac_backend.errors import SvacError, start_logging
from svac_backend.jobs.bulk import PROJECT, BulkHandler
from svac_backend.jobs.engine import LEASE_S, Handler, JobEngine, Work
from svac_backend.jobs.frames import FramesHandler
from svac_backend.jobs.learn import COLLECT, CollectHandler, FinetuneHandler
from svac_backend.jobs.payloads import FRAMES, PRELABEL, PROPAGATE
from svac_backend.jobs.prelabel import PredictionMaker, PrelabelHandler
from svac_backend.jobs.process import Role, WorkerProcess
from svac_backend.jobs.propagate import PropagateHandler
from svac_backend.jobs.renew import RENEW, RenewHandler, renewal_if_due
from svac_backend.jobs.retention import RETAIN, RetainHandler
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.learning.adapters import load_adapter, unload_adapter
from svac_backend.learning.collect import Collector
from svac_backend.learning.triggers import FINETUNE, Trigger
from svac_backend.pipeline import load_model
from svac_backend.settings import Settings
from svac_backend.store.database import Database, is_there
from svac_backend.store.events import ConnectionStore, EventStore
from svac_backend.store.objects import ObjectStore, SentStore
from svac_backend.store.predictions import PartStore, PredictionStore
from svac_backend.store.tasks import TaskStore
from svac_backend.store.versions import Version
from svac_backend.svac.files.weights import version_of
from svac_backend.svac.model import Svac
from svac_backend.versions import Registry

# On a small machine the web process, Label Studio and the browser go first; on its own, the worker loses nothing.
NICENESS = 10

log = logging.getLogger(__name__)


def create_worker(
    settings: Settings,
    database: Database,
    *,
    load: Callable[[Settings], Svac] = load_model,
    lease_s: float = LEASE_S,
    role: Role = Role.ALL,
    node: str = "",
) -> tuple[WorkerProcess, ModelOwner]:
    """Return a worker for all kinds of jobs, and the owner of its model; nothing is started or loaded yet."""
    access = LabelStudioAccess(settings, ConnectionStore(database))
    owner = ModelOwner(settings, database, load)
    engine = JobEngine(database)
    maker = PredictionMaker(
        settings,
        owner.get,
        owner.version,
        PredictionStore(database),
        PartStore(database),
        engine.store,
        access,
    )
    collector = Collector(settings, database)
    collect = CollectHandler(collector, Trigger(settings, database, engine.submit_many))
    handlers: dict[str, Handler] = {
        PRELABEL: PrelabelHandler(maker, SentStore(database), TaskStore(database)),
        PROPAGATE: PropagateHandler(maker, SentStore(database), ObjectStore(database), EventStore(database)),
        FRAMES: FramesHandler(settings, access),
        RENEW: RenewHandler(settings, access),
        COLLECT: collect,
        RETAIN: RetainHandler(settings, database),
        FINETUNE: FinetuneHandler(settings, database, collector),
        PROJECT: BulkHandler(settings, engine, access, TaskStore(database), owner.registry),
    }

    def chores() -> list[Work]:
        works = [Work(RETAIN, {}, RETAIN)]
        try:
            works += renewal_if_due(settings)
        except SvacError as error:
            log.error("links are not renewed today: %s", error)
        return works

    worker = WorkerProcess(
        engine,
        handlers,
        describe=owner.describe,
        gpu_memory=owner.gpu_memory,
        chores=chores,
        watch=collect.work,
        retry_hours=settings.retry_hours,
        lease_s=lease_s,
        role=role,
        node=node,
        between=owner.pinned,
    )
    return worker, owner


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        SvacError: the data folder cannot be used.
    """
    start_logging(settings.log_level, settings.log_format)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    worker, owner = create_worker(settings, Database.from_settings(settings))
    try:
        owner.get()  # load it now, so that the first job need not wait
    except SvacError as error:
        # Jobs will fail with the same message, where people see it; frames can still be cut.
        log.error("%s", error)
    worker.run()


class ModelOwner:
    """Loads the model once and keeps it.

    A job first asks for the `version` that will make its masks, then for the model. A version promoted in between
    serves from the next job on.

    Args:
        settings: name the model.
        database: knows which version of it serves.
        load: loads the model; tests pass their own.
    """

    def __init__(
        self, settings: Settings, database: Database, load: Callable[[Settings], Svac] = load_model
    ) -> None:
        self.registry = Registry(settings, database)
        self._settings = settings
        self._load = load
        self._lock = threading.Lock()
        self._model: Svac | None = None
        self._wanted: Version | None = None
        self._adapter = ""  # id of the adapter in the model
        self._version = ""
        self._pins = 0
        self.device = ""

    def version(self) -> str:
        """Return the version that the model serves as from now on; if the model is loaded, put in its adapter.

        Raises:
            SvacError: there is no such model.
        """
        with self._lock:
            return self._choose()

    def get(self) -> Svac:
        """Return the model as the version that was asked for last.

        Raises:
            SvacError: it cannot be loaded; the next call tries again.
        """
        with self._lock:
            if self._model is None:
                begun = time.monotonic()
                self._model = self._load(self._settings)  # a hub model has no version before it is loaded
                self.device = str(self._model.device)
                name, seconds = self._settings.model, time.monotonic() - begun
                log.info("model %s loaded on %s in %.1f s", name, self.device, seconds)
                if not self._version:
                    self._choose()
            if not self._fit(self._model):
                raise SvacError(
                    f"Version {self._version} cannot be used, so the previous one serves.",
                    "Send the task again.",
                )
            return self._model

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep the version, whatever is promoted, while other jobs run within an unfinished one."""
        with self._lock:
            self._pins += 1
        try:
            yield
        finally:
            with self._lock:
                self._pins -= 1

    def describe(self) -> tuple[str, str]:
        """Return (device, model version), both empty until the model is loaded."""
        return (self.device, self._version) if self.device else ("", "")

    def gpu_memory(self) -> tuple[float, float] | None:
        """Return (used, total) bytes of memory of the model's GPU, for all processes; None without a GPU."""
        if not self.device.startswith("cuda"):
            return None
        try:
            free, total = torch.cuda.mem_get_info(self.device)
        except RuntimeError as error:  # a broken device must not stop the heartbeat
            log.warning("the memory use of %s is unknown: %s", self.device, error)
            return None
        return float(total - free), float(total)

    def _choose(self) -> str:
        if self._pins and self._version:
            return self._version
        while True:
            self._wanted = self.registry.serving(verify=True)
            if self._model is None or self._fit(self._model):
                break
        self._version = self._wanted.name if self._wanted else self.registry.base
        return self._version

    def _fit(self, model: Svac) -> bool:
        """Put the wanted adapter in; False if it does not fit, so that it must no longer serve."""
        wanted = self._wanted
        if (wanted.id if wanted else "") == self._adapter:
            return True
        if wanted is None:
            unload_adapter(model)
        else:
            try:
                load_adapter(model, self.registry.folder(wanted))
            except SvacError as error:
                self.registry.damaged(wanted, error)
                return False
        self._adapter = wanted.id if wanted else ""
        log.info("the model serves as %s", wanted.name if wanted else self.registry.base)
        return True


def load_served(settings: Settings) -> tuple[Svac, str]:
    """Return the model as it serves now, and its version, for use in a command.

    Raises:
        SvacError: it cannot be loaded, or the data folder cannot be used.
    """
    if not is_there(settings):
        return load_model(settings), version_of(settings)
    with closing(Database.from_settings(settings)) as database:
        owner = ModelOwner(settings, database)
        return owner.get(), owner.version()
