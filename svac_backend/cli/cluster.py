"""`svac-backend cluster start | status | drain`: workers on several GPUs and machines.

The database knows who works and what waits, so only `start` needs to reach Ray.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from rich.table import Table

from svac_backend.cli.terminal import answer, console, show_table
from svac_backend.errors import SettingsError, SvacError
from svac_backend.jobs.engine import LEASE_S, JobEngine, JobState
from svac_backend.jobs.payloads import describe
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.drains import EVERY_NODE

_LOOK_S = 0.5
# Ray's prefix of a node's name.
SHORT = 12


def run_start(settings: Settings) -> None:
    """Keep workers on a cluster until SIGTERM.

    Raises:
        SvacError: the settings say that this machine works alone, or Ray is not installed or cannot be reached.
    """
    if settings.engine != "ray":
        raise SettingsError("SVAC_ENGINE is local.", "Set SVAC_ENGINE=ray, or run `svac-backend worker`.")
    try:
        from svac_backend.jobs.cluster import run
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise SettingsError("Ray is not installed.", "pip install 'svac-backend[ray]'") from error
    run(settings)


def run_status(settings: Settings, *, as_json: bool) -> None:
    """Print nodes, workers with their jobs, and lanes."""
    with _engine(settings) as engine:
        status = _status(engine)
    _show(status, as_json=as_json)


def run_drain(
    settings: Settings, node: str | None, *, within_s: float, wait: bool, undo: bool, as_json: bool
) -> None:
    """Drain a node, or all nodes.

    Raises:
        SvacError: there is no such node, or more than one.
    """
    with _engine(settings) as engine:
        nodes = {worker.node for worker in engine.workers.alive(LEASE_S)}
        nodes |= {drain.node for drain in engine.drains.all()} - {EVERY_NODE}
        name = EVERY_NODE if node is None else _find(nodes, node)
        if undo:
            if not engine.drains.withdraw(name):
                console.print("[yellow]Nothing was being drained there.[/]")
        else:
            engine.drains.order(name, within_s)
            while wait and (left := _running(engine, name)):
                console.print(f"{left} workers still have jobs", end="\r")
                time.sleep(_LOOK_S)
        status = _status(engine)
    _show(status, as_json=as_json)


def _running(engine: JobEngine, node: str) -> int:
    """Return how many workers of a node still have a job, or may take one."""
    there = [one for one in engine.workers.alive(LEASE_S) if node in (one.node, EVERY_NODE)]
    return sum(not one.drained for one in there)


def _find(nodes: set[str], name: str) -> str:
    found = [one for one in nodes if one == name] or sorted(one for one in nodes if one.startswith(name))
    if len(found) != 1:
        known = ", ".join(sorted(one[:SHORT] for one in nodes)) or "none"
        raise SvacError(
            f"{len(found) or 'No'} nodes have a name that begins with {name[:40]!r}.",
            f"The nodes are: {known}.",
        )
    return found[0]


def _status(engine: JobEngine) -> dict[str, Any]:
    jobs = {
        job.worker_id: {
            "id": job.id,
            "kind": job.kind,
            "progress": round(job.progress, 4),
            **describe(job.payload),
        }
        for job in engine.find(states=(JobState.RUNNING,), limit=1000)
    }
    workers = engine.workers.alive(LEASE_S)
    drains = {drain.node for drain in engine.drains.all()}
    return {
        "nodes": [
            {"name": node, "workers": count, "draining": bool({node, EVERY_NODE} & drains)}
            for node, count in sorted(Counter(worker.node for worker in workers).items())
        ],
        "workers": [
            {
                "id": worker.id,
                "node": worker.node,
                "role": worker.role,
                "device": worker.device,
                "model_version": worker.model_version,
                "drained": worker.drained,
                "job": jobs.get(worker.id),
            }
            for worker in workers
        ],
        "lanes": [vars(lane) for lane in engine.store.lanes()],
    }


def _show(status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        answer(status, [], as_json=True)
    else:
        for table in _tables(status):
            show_table(table)


def _tables(status: dict[str, Any]) -> Iterator[Table]:
    table = Table("node", "workers", "", box=None)
    for node in status["nodes"]:
        table.add_row(node["name"][:SHORT], str(node["workers"]), "draining" if node["draining"] else "")
    yield table
    table = Table("worker", "node", "role", "device", "version", "does", box=None)
    for one in status["workers"]:
        job = one["job"]
        does = "drained" if one["drained"] else "waits"
        if job is not None:
            does = f"{job['kind']} {job['id'][:8]}, {100 * job['progress']:.0f} %"
        version = one["model_version"] or "-"
        table.add_row(one["id"], one["node"][:SHORT], one["role"], one["device"] or "-", version, does)
    yield table
    table = Table("lane", "waiting", "retrying", "running", "oldest", box=None)
    for lane in status["lanes"]:
        counts = [str(lane[name]) for name in ("waiting", "retrying", "running")]
        table.add_row(lane["lane"], *counts, f"{lane['oldest_s']:.0f} s")
    yield table


@contextmanager
def _engine(settings: Settings) -> Iterator[JobEngine]:
    with closing(Database.from_settings(settings)) as database:
        yield JobEngine(database)
