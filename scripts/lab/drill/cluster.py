"""What only a cluster can have go wrong: a worker's process, a node or the head of Ray is gone."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Literal

import psutil

from lab.benchmarks.server import free_port
from lab.drill.faults import Round, Submit, count, summary
from lab.drill.outcome import Drill, Options, Outcome
from lab.drill.stage import FINAL, Stage, members
from svac_backend.errors import SvacError

# One worker, in an actor of a Ray of its own.
ENVIRONMENT = {
    "SVAC_ENGINE": "ray",
    "SVAC_WORKER_CPUS": "1",
    "SVAC_WORKERS_MOST": "1",
    "SVAC_WORKERS_LIGHT": "0",
}
Victim = Literal["actor", "node", "head"]
NODES = ("node-1", "node-2")
_BUSY = "SELECT worker_id FROM jobs WHERE kind = 'prelabel' AND state = 'running'"
# `ray start`, whose nodes all have the address of loopback; by itself Ray replaces that by the machine's own address.
_RAY = """
import sys
from ray._private import ray_constants, services
ray_constants.ENABLE_RAY_CLUSTER = True
services.resolve_ip_for_localhost = lambda address: address
from ray.scripts.scripts import main
sys.argv[0] = "ray"
main()
"""


def caught(stage: Stage) -> int:
    """Freeze the process that does a job, so that the job does not end; return it."""
    found: list[int] = []

    def look() -> bool:
        for (worker,) in stage.query(_BUSY):
            process = int(worker.split(":")[1])
            os.kill(process, signal.SIGSTOP)
            if stage.query(_BUSY):
                found.append(process)
                return True
            os.kill(process, signal.SIGCONT)
        return False

    stage.until(look, "a job to die in", 90)
    return found[0]


def kill_actor(stage: Stage, submit: Submit, options: Options) -> None:
    """Kill the process that does a job, in the middle of it; Ray starts it again."""
    submit()
    os.kill(caught(stage), signal.SIGKILL)


def farm_environment() -> dict[str, str]:
    """Return the environment of a stage whose worker is on the nodes of a `Farm`."""
    return {
        **ENVIRONMENT,
        "SVAC_RAY_ADDRESS": f"127.0.0.1:{free_port()}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


class Farm:
    """A head without cores and two nodes with one core each, all on this machine: the Ray of a stage.

    What ends is started again, as systemd or Kubernetes do. On a busy machine that is needed from the start, too: Ray
    gives a node 30 s to start.

    Args:
        stage: made with `farm_environment`; not yet entered.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.address = stage.environment["SVAC_RAY_ADDRESS"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # Ray puts sockets below it, whose paths must not be long.
        self._folder = tempfile.mkdtemp(prefix="ray-")
        self._stop = threading.Event()
        self._with_worker = False
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Farm:
        try:
            self._start("head")
            self.stage.until(self._listens, "Ray's head", 120)
            for name in NODES:
                self._start(name)
            self._supervisor.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for name in self.processes:
            self.kill(name)
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Start the stage's worker again, too."""
        self._with_worker = True
        try:
            yield
        finally:
            self._with_worker = False

    def kill(self, name: str) -> None:
        """Kill all processes of a node, or the head, at once, as if its machine were gone."""
        process = self.processes[name]
        gone: set[int] = set()
        with suppress(psutil.NoSuchProcess):
            gone = {one.pid for one in psutil.Process(process.pid).children(recursive=True)}
        # A `ray start` that failed leaves what it had started.
        for pid in gone | set(members(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def node_of(self, pid: int) -> str:
        """Return the name of the node that a process belongs to."""
        above = {one.pid for one in psutil.Process(pid).parents()}
        return next(name for name, process in self.processes.items() if process.pid in above)

    def _start(self, name: str) -> None:
        port = self.address.rpartition(":")[2]
        part = (
            ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
            if name == "head"
            else [f"--address={self.address}", "--num-cpus=1"]
        )
        common = ["--node-ip-address=127.0.0.1", f"--object-store-memory={80 << 20}", "--block"]
        folder = [f"--temp-dir={self._folder}"] if name == "head" else []
        with (self.stage.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", _RAY, "start", *part, *common, *folder],
                env=self.stage.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _listens(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as tried:
            return tried.connect_ex((host, int(port))) == 0

    def _supervise(self) -> None:
        while not self._stop.wait(0.5):
            for name, process in list(self.processes.items()):
                if process.poll() is not None:
                    self.kill(name)
                    self._start(name)
            if self._with_worker and self.stage.processes["worker"].poll() is not None:
                self.stage.start("worker")


def strike(stage: Stage, farm: Farm, victim: Victim, options: Options) -> Round:
    """Kill something in the middle of a job; count from then until all is done and a new worker has its model."""
    numbers = stage.submit(options.tasks)
    known = {worker for (worker,) in stage.query("SELECT id FROM workers")}
    process = caught(stage)
    begun = time.monotonic()
    if victim == "actor":
        os.kill(process, signal.SIGKILL)
    elif victim == "node":
        farm.kill(farm.node_of(process))
    else:
        farm.kill("head")
        os.kill(process, signal.SIGCONT)

    def recovered() -> bool:
        ready = {worker for (worker,) in stage.query("SELECT id FROM workers WHERE model_version != ''")}
        return bool(ready - known) and all(job["state"] in FINAL for job in stage.jobs(numbers))

    with suppress(SvacError):  # what is late is counted
        stage.until(recovered, "an end of all jobs", options.patience_s)
    seconds = time.monotonic() - begun
    time.sleep(1.0)  # what comes twice comes late
    return count(stage, numbers, seconds)


def _kills(victim: Victim, options: Options) -> Outcome:
    name = f"kill-{victim}"
    with options.folder(name) as root:
        stage = Stage(root, environment=farm_environment(), database=options.database, seed=options.seed)
        with Farm(stage) as farm, stage, farm.supervised():
            rounds = [strike(stage, farm, victim, options) for _ in range(options.rounds)]
    return summary(
        name,
        rounds,
        "a head and two nodes of Ray; until all tasks are done and a new worker has its model",
    )


_VICTIMS: dict[Victim, tuple[str, float]] = {
    "actor": ("kill -9 of an actor of Ray during work", 30),
    "node": ("kill -9 of all of a node of Ray during work", 60),
    "head": ("kill -9 of the head of Ray during work", 120),
}
CLUSTER = [
    Drill(
        f"kill-{victim}", what, partial(_kills, victim), partial(lambda each, o: 60 + each * o.rounds, each)
    )
    for victim, (what, each) in _VICTIMS.items()
]
