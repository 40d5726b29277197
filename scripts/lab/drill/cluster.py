"""What only a cluster can have go wrong: a worker's process is gone, and Ray starts it again."""

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
_BUSY = "SELECT worker_id FROM jobs WHERE kind = 'prelabel' AND state = 'running'"


def busy(stage: Stage, submit: Submit) -> int:
    """Submit tasks; return the process that does one of them, as soon as there is one."""
    submit()
    found: list[str] = []

    def look() -> bool:
        found[:] = [worker for (worker,) in stage.query(_BUSY)]
        return bool(found)

    stage.until(look, "work", 90)
    return int(found[0].split(":")[1])


def kill_actor(stage: Stage, submit: Submit, options: Options) -> None:
    """Kill the process that does a job, in the middle of it; Ray starts it again."""
    process = busy(stage, submit)

    def caught() -> bool:
        os.kill(process, signal.SIGSTOP)  # so that the job does not end in the meantime
        if stage.query(_BUSY):
            os.kill(process, signal.SIGKILL)
            return True
        os.kill(process, signal.SIGCONT)
        return False

    stage.until(caught, "a job to die in", 30)
