"""A real worker process for `test_process.py`: its one handler counts to a number, slowly.

python slow_worker.py DATA_DIR LEASE_S
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

from svac_backend.jobs.engine import JobContext, JobEngine
from svac_backend.jobs.process import WorkerProcess
from svac_backend.settings import Settings
from svac_backend.store.database import Database


def count(context: JobContext) -> dict[str, Any]:
    """Count to `payload["to"]`, a step each 20 ms; with `deaf` without ever reporting."""
    for step in range(context.payload["to"]):
        if not context.payload.get("deaf"):
            context.progress(step / context.payload["to"], f"step {step}")
        time.sleep(0.02)
    return {"counted": context.payload["to"], "by": context.job.worker_id}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    settings = Settings(_env_file=None, data_dir=Path(sys.argv[1]))
    engine = JobEngine(Database.from_settings(settings))
    WorkerProcess(engine, {"prelabel": count, "frames": count}, lease_s=float(sys.argv[2])).run()
