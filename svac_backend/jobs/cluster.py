"""`svac-backend cluster start`: workers as actors of a Ray cluster. The only module that imports Ray.

Ray places the workers and restarts those that died; this module decides how many there are, and keeps them off draining
nodes. Only the job table knows what there is to do and who does it: all that Ray knows can be lost.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from pydantic import SecretStr
from ray._private import ray_constants
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from svac_backend.errors import SvacError, start_logging
from svac_backend.jobs.engine import LEASE_S, JobEngine, JobState
from svac_backend.jobs.process import GRACE_S, Role
from svac_backend.jobs.scaling import Scale, cpus_of_worker, most_workers
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.drains import EVERY_NODE
from svac_backend.store.lanes import MODEL_LANE

# The Ray namespace within which names of actors are unique.
NAMESPACE = "svac-backend"
TURN_S = 1.0
# How often to try to start a Ray of our own: on a busy machine its parts time out waiting for each other.
STARTS = 5
# Hardly anything passes through Ray's object store; this is the smallest size that Ray accepts.
OBJECTS_BYTES = 80 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActorState:
    """What an actor reports of its worker: its id, its node, and whether it takes no more jobs and has none left."""

    worker_id: str
    node: str
    empty: bool


class WorkerActor:
    """A worker in a process that Ray starts.

    Args:
        given: the settings of `cluster start`, see `for_nodes`.
        role: which jobs it takes.
    """

    def __init__(self, given: dict[str, Any], role: str) -> None:
        # Imported here, since it imports torch, which the process that places workers does not need.
        from svac_backend.jobs.worker import create_worker

        settings = settings_of_node(given)
        start_logging(settings.log_level, settings.log_format)
        node = ray.get_runtime_context().get_node_id()
        self._worker, owner = create_worker(
            settings, Database.from_settings(settings), role=Role(role), node=node
        )
        self._load = owner.get if MODEL_LANE in Role(role).lanes else None
        # On another thread: the actor answers nobody until __init__ returns, and large models take minutes to load.
        threading.Thread(target=self._begin, name="begin", daemon=True).start()

    def _begin(self) -> None:
        try:
            if self._load is not None:
                self._load()  # now, so that the first job does not wait for it
        except SvacError as error:
            log.error("%s", error)  # jobs fail with the same message, where people see it
        while True:
            try:
                self._worker.start()
                return
            except SvacError as error:
                log.error("the worker cannot start, trying again: %s", error)
                time.sleep(TURN_S)

    def state(self) -> ActorState:
        """Return the state of its worker."""
        runner = self._worker.runner
        empty = runner.drained.is_set() and not runner.active_ids
        return ActorState(self._worker.id, self._worker.node, empty)

    def retire(self) -> None:
        """Take no more jobs from now on."""
        self._worker.retire()

    def stop(self) -> None:
        """Give running jobs back and end."""
        self._worker.stop()


@dataclass
class Placed:
    """An actor, its role, the answer it still owes, and its last state; `retired` once it was told to end.

    It is never placed on the nodes that it is `kept_off`.
    """

    actor: Any
    role: Role
    kept_off: frozenset[str] = frozenset()
    asked: Any = None
    state: ActorState | None = None
    retired: bool = False


class Cluster:
    """Keeps the wanted number of workers of each role running.

    Args:
        settings: how many workers, and of what size.
        engine: the jobs.
    """

    def __init__(self, settings: Settings, engine: JobEngine) -> None:
        self.settings = settings
        self.engine = engine
        self.placed: dict[str, Placed] = {}
        self._given = for_nodes(settings)
        self._actor = ray.remote(WorkerActor)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        found = any(node.get("GPU") for node in nodes) and settings.device != "cpu"
        self._gpus = settings.worker_gpus if settings.worker_gpus is not None else float(found)
        self._cpus = cpus_of_worker(settings.worker_cpus, nodes, self._gpus)
        self._scale = Scale(settings.workers_least, 1)
        for name in ray.util.list_named_actors():  # left by an earlier `cluster start`
            role = name.split("-")[1]
            if role in {one.value for one in Role}:
                self.placed[name] = Placed(ray.get_actor(name), Role(role))
                log.info("worker %s is there already", name)

    def turn(self) -> None:
        """Check all workers once; start and end workers as needed."""
        self._hear()
        drains = {one.node for one in self.engine.drains.all()}
        wanted = {} if EVERY_NODE in drains else self._wanted()
        for name, one in list(self.placed.items()):
            if (
                one.state is None and one.kept_off - drains
            ):  # it may wait for room on a node that is free again
                ray.kill(one.actor, no_restart=True)
                del self.placed[name]
        for role in Role:
            names = [name for name, one in self.placed.items() if one.role is role and not one.retired]
            for _ in range(wanted.get(role, 0) - len(names)):
                self._place(role, drains)
            if EVERY_NODE not in drains:
                for name in sorted(names, key=self._work)[: max(0, len(names) - wanted.get(role, 0))]:
                    self._retire(name)
        for name, one in list(self.placed.items()):
            if one.state is not None and one.state.empty:
                self._end(name)

    @property
    def emptied(self) -> bool:
        """Whether an order to drain all nodes has been carried out."""
        return not self.placed and self.engine.drains.seconds_left(EVERY_NODE) is not None

    def stop(self) -> None:
        """Make all workers give their jobs back, then end them."""
        asked = [one.actor.stop.remote() for one in self.placed.values()]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=GRACE_S + 2)
        for one in self.placed.values():
            ray.kill(one.actor, no_restart=True)
        self.placed.clear()

    def _wanted(self) -> dict[Role, int]:
        settings = self.settings
        load = next(lane for lane in self.engine.store.lanes() if lane.lane == MODEL_LANE)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = most_workers(settings.workers_most, nodes, self._cpus, self._gpus)
        self._scale.most = max(1, most - (0 if settings.workers_most else settings.workers_reserved))
        model = Role.MODEL if settings.workers_light else Role.ALL
        return {
            model: self._scale.workers(load),
            Role.RESERVED: settings.workers_reserved,
            Role.LIGHT: settings.workers_light,
        }

    def _hear(self) -> None:
        """Ask all workers for their state; take back the jobs of those that died."""
        for one in self.placed.values():
            if one.asked is None:
                one.asked = one.actor.state.remote()
        owed = {one.asked: name for name, one in self.placed.items()}
        ready, _ = ray.wait(list(owed), num_returns=len(owed), timeout=TURN_S / 2) if owed else ([], [])
        lost: set[str] = set()
        for answer in ready:
            name = owed[answer]
            one = self.placed[name]
            before, one.asked = one.state, None
            try:
                one.state = ray.get(answer)
            except ActorUnavailableError:
                continue  # Ray restarts it, or its network is down for a while
            except ActorDiedError as error:
                log.warning("worker %s died for good: %s", name, str(error).strip().splitlines()[0])
                del self.placed[name]
                one.state = None
            except RayError as error:
                log.warning("worker %s does not answer: %s", name, error)
                continue
            if before is not None and (one.state is None or one.state.worker_id != before.worker_id):
                lost.add(before.worker_id)
        if lost:
            self.engine.recover(LEASE_S, lost)

    def _work(self, name: str) -> tuple[int, str]:
        """Return a sort key that puts first the workers to end: the idlest, and of those the newest."""
        state = self.placed[name].state
        running = self.engine.find(states=(JobState.RUNNING,), limit=1000) if state else []
        return sum(
            job.worker_id == state.worker_id for job in running if state
        ), f"{-int(name.rsplit('-', 1)[1]):05}"

    def _place(self, role: Role, drains: set[str]) -> None:
        numbers = {int(name.rsplit("-", 1)[1]) for name in self.placed}
        name = f"svac-{role.value}-{next(n for n in range(1, len(numbers) + 2) if n not in numbers)}"
        light = role is Role.LIGHT
        options: dict[str, Any] = {
            "name": name,
            "namespace": NAMESPACE,
            "lifetime": "detached",  # workers go on while `cluster start` is down
            "num_cpus": 0 if light else self._cpus,
            "num_gpus": 0 if light else self._gpus,
        }
        if light:
            options["scheduling_strategy"] = "SPREAD"
        if drains:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(drains))})"}
        # So that it can report its state while it works.
        actor = self._actor.options(max_restarts=-1, max_concurrency=8, **options).remote(
            self._given, role.value
        )
        self.placed[name] = Placed(actor, role, frozenset(drains))
        log.info("worker %s is placed", name)

    def _retire(self, name: str) -> None:
        one = self.placed[name]
        one.retired = True
        one.actor.retire.remote()
        log.info("worker %s ends after its job: it is no longer needed", name)

    def _end(self, name: str) -> None:
        one = self.placed.pop(name)
        ray.wait([one.actor.stop.remote()], timeout=GRACE_S)
        ray.kill(one.actor, no_restart=True)
        log.info("worker %s has ended", name)


def run(settings: Settings) -> None:
    """Keep a cluster's workers running until SIGTERM or SIGINT, or until an order to drain all nodes is carried out.

    Raises:
        SvacError: Ray cannot be started or reached, or the data folder cannot be used.
    """
    start_logging(settings.log_level, settings.log_format)
    stop = threading.Event()
    engine = JobEngine(Database.from_settings(settings))
    engine.drains.withdraw(EVERY_NODE)
    connect(settings)
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray, which sets handlers of its own
        signal.signal(number, lambda *_: stop.set())
    cluster = Cluster(settings, engine)
    while not stop.is_set() and not cluster.emptied:
        surely(cluster.turn)
        stop.wait(TURN_S)
    cluster.stop()
    ray.shutdown()
    log.info("stopped")


def surely(turn: Callable[[], None]) -> None:
    """Take a turn; log what goes wrong, and leave it to the next turn to try again."""
    try:
        turn()
    except (SvacError, RayError) as error:
        log.error("cannot look after the workers, trying again: %s", error)
    except Exception:
        log.exception("cannot look after the workers; trying again")


def connect(settings: Settings) -> None:
    """Join the cluster that the settings name, or start one on this machine that nobody else can use.

    Raises:
        SvacError: it cannot be reached or started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no usage statistics
    common: dict[str, Any] = {"namespace": NAMESPACE, "logging_level": "WARNING", "log_to_driver": True}
    if settings.ray_address:
        try:
            ray.init(address=settings.ray_address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise SvacError(
                f"Ray cannot be reached at {settings.ray_address}: {str(error).splitlines()[0]}",
                "Check that `ray start --head` runs there, that RAY_AUTH_TOKEN is the same, and SVAC_RAY_ADDRESS.",
            ) from error
        return
    # Ray would ask for a token by itself; this one is not stored in any file.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    for name, value in secret_variables(settings).items():
        os.environ.setdefault(name, value)
    # Ray has an address of loopback replaced by the machine's own one, and listens on all, unless it is told that it
    # will stay alone, as it is by default on macOS.
    ray_constants.ENABLE_RAY_CLUSTER = False
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(include_dashboard=False, object_store_memory=OBJECTS_BYTES, **common)
            return
        except Exception as error:  # noqa: BLE001
            # Ray has no exception of its own for a start that took too long.
            ray.shutdown()
            for left in psutil.Process().children(recursive=True):  # the parts that did start stay otherwise
                with suppress(psutil.NoSuchProcess):
                    left.kill()
            log.warning("Ray does not start (%d of %d): %s", attempt, STARTS, error)
            reason = error
    raise SvacError(
        f"Ray does not start on this machine: {reason}",
        "See the logs in /tmp/ray/session_latest/logs, or set SVAC_ENGINE=local.",
    ) from reason


def for_nodes(settings: Settings) -> dict[str, Any]:
    """Return the settings for workers on all nodes: those set here, without passwords and with absolute paths."""
    hidden = secret_fields()
    told = settings.model_dump(mode="json", include=settings.model_fields_set - hidden)
    for name in told:
        value = getattr(settings, name)
        if isinstance(value, Path) or (name == "model" and Path(value).exists()):
            told[name] = str(Path(value).absolute())
    if "data_dir" not in told:
        told["data_dir"] = str(settings.data_dir.absolute())
    return told


def settings_of_node(given: dict[str, Any]) -> Settings:
    """Return a node's settings; its own environment overrides what it was given."""
    return Settings(
        **{name: value for name, value in given.items() if f"SVAC_{name.upper()}" not in os.environ}
    )


def secret_fields() -> set[str]:
    """Return the settings that hold passwords."""
    fields = Settings.model_fields.items()
    return {name for name, one in fields if "SecretStr" in str(one.annotation)}


def secret_variables(settings: Settings) -> dict[str, str]:
    """Return the passwords as environment variables for processes started here."""
    values = {name: getattr(settings, name) for name in secret_fields()}
    return {
        f"SVAC_{name.upper()}": value.get_secret_value()
        for name, value in values.items()
        if isinstance(value, SecretStr)
    }
