"""What only a cluster can have go wrong: a worker's process, a node or the head is gone."""

from __future__ import annotations

import os
import signal

from lab.drill.faults import Submit
from lab.drill.outcome import Options
from lab.drill.stage import Stage

# One worker, in an actor of a Ray of its own.
ENVIRONMENT = {
    "SVAC_ENGINE": "ray",
    "SVAC_WORKER_CPUS": "1",
    "SVAC_WORKERS_MOST": "1",
    "SVAC_WORKERS_LIGHT": "0",
}


def kill_actor(stage: Stage, submit: Submit, options: Options) -> None:
    """Kill the process that does a job, at any moment of the work; Ray starts it again."""
    numbers = submit()
    busy: list[int] = []

    def found() -> bool:
        busy[:] = [
            int(worker.split(":")[1])
            for (worker,) in stage.query(
                "SELECT worker_id FROM jobs WHERE kind = 'prelabel' AND state = 'running'"
            )
        ]
        return bool(busy)

    stage.until(found, f"work on one of {len(numbers)} tasks", 90)
    os.kill(busy[0], signal.SIGKILL)
