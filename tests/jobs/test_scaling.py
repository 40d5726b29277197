"""How many workers there are to be."""

from __future__ import annotations

from svac_backend.jobs.scaling import JOBS_EACH, QUIET_S, Scale, cpus_of_worker, most_workers
from svac_backend.store.jobs import LaneLoad


def load(waiting: int, running: int = 0) -> LaneLoad:
    return LaneLoad("model", waiting, 0, running, 0.0)


def test_workers_come_at_once_and_go_after_a_while() -> None:
    now = [0.0]
    scale = Scale(1, 4, clock=lambda: now[0])
    assert scale.workers(load(0)) == 1
    assert scale.workers(load(JOBS_EACH, running=1)) == 2
    assert scale.workers(load(1000)) == 4
    now[0] = QUIET_S - 1
    assert scale.workers(load(0)) == 4
    now[0] = QUIET_S + 1
    assert scale.workers(load(JOBS_EACH)) == 1
    scale.most = 0
    assert scale.workers(load(5)) == 0


def test_what_nodes_have_room_for() -> None:
    nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 16.0}]
    assert most_workers(3, nodes, 1.0, 1.0) == 3
    assert most_workers(0, nodes, 1.0, 1.0) == 2
    assert most_workers(0, nodes, 1.0, 0.5) == 4
    assert most_workers(0, nodes, 4.0, 0.0) == 6
    assert most_workers(0, [], 4.0, 0.0) == 1
    assert cpus_of_worker(None, nodes, 0.0) == 4.0
    assert cpus_of_worker(None, [{"CPU": 2.0}], 0.0) == 2.0
    assert cpus_of_worker(None, nodes, 1.0) == 1.0
    assert cpus_of_worker(3.0, nodes, 1.0) == 3.0
