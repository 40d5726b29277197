"""A real worker for `test_finetune.py` that trains with `slow_training.py` and predicts nothing.

python training_worker.py DATA_DIR LEASE_S STEPS SECONDS
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from svac_backend.jobs.engine import JobContext, JobEngine
from svac_backend.jobs.learn import FinetuneHandler
from svac_backend.jobs.process import WorkerProcess
from svac_backend.learning.collect import Collector
from svac_backend.settings import Settings
from svac_backend.store.database import Database


def predict(context: JobContext) -> dict[str, Any]:
    return {"attempts": context.job.attempts}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    settings = Settings(_env_file=None, data_dir=Path(sys.argv[1]), model="svac-tiny")
    database = Database.from_settings(settings)
    script = str(Path(__file__).with_name("slow_training.py"))
    handler = FinetuneHandler(
        settings,
        database,
        Collector(settings, database),
        lambda folder: [sys.executable, script, str(folder), *sys.argv[3:5]],
    )
    engine = JobEngine(database)
    WorkerProcess(engine, {"finetune": handler, "prelabel": predict}, lease_s=float(sys.argv[2])).run()
