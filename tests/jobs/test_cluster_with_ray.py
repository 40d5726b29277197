"""The embedded model in an actor of a real Ray: its work, its death, and its node being emptied."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from lab.drill.cluster import ENVIRONMENT, kill_actor
from lab.drill.faults import play
from lab.drill.outcome import Options
from lab.drill.stage import FINAL, Stage

from svac_backend.cli.cluster import run_drain
from svac_backend.jobs.engine import LEASE_S
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.workers import WorkerStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


def addresses(pid: int) -> set[str]:
    """Return the addresses that the processes below one listen at."""
    found = set()
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            listening = [one for one in child.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
            found |= {one.laddr.ip.removeprefix("::ffff:") for one in listening}
    return found


def test_an_actor_does_jobs_loses_none_when_it_is_killed_and_leaves_a_node_that_is_emptied(
    tmp_path: Path,
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "data")
    with (
        Stage(tmp_path, environment=ENVIRONMENT) as stage,
        closing(Database.from_settings(settings)) as database,
    ):
        process, workers = stage.processes["worker"], WorkerStore(database)
        assert addresses(process.pid) == {"127.0.0.1"}

        (before,) = workers.alive(LEASE_S)
        found = play(stage, kill_actor, Options(tasks=2, patience_s=400.0))
        assert (found.lost, found.doubled, found.changed, found.failed, found.late) == (0, 0, 0, 0, 0)
        assert sorted(stage.query("SELECT attempts FROM jobs WHERE kind = 'prelabel'")) == [(1,), (2,)]
        (after,) = workers.alive(LEASE_S)
        assert after.id != before.id
        assert after.model_version == stage.get("/health")["model_version"]

        def drain(node: str | None, *, undo: bool = False) -> None:
            run_drain(settings, node, within_s=0, wait=True, undo=undo, as_json=True)

        numbers = stage.submit(2)
        stage.at_work(numbers)
        drain(after.node)
        assert {job["state"] for job in stage.jobs(numbers)} <= {"queued", "done"}
        stage.until(lambda: stage.log("worker").count("is placed") == 2, "a worker for another node")
        assert not workers.alive(LEASE_S)
        drain(after.node, undo=True)
        stage.until(lambda: all(job["state"] in FINAL for job in stage.jobs(numbers)), "an end", 400)
        assert set(stage.label_studio.counts().values()) == {1}

        drain(None)
        assert process.wait(60) == 0
