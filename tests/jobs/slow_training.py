"""Stands in for the process that trains: counts steps into a checkpoint, then writes an adapter.

python slow_training.py FOLDER STEPS SECONDS [fault]: faults are `crash` (each time at step 3) and `refuse`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.learning.child import Parent
from svac_backend.learning.freeze import read_run
from tests.learning.adapter_folders import adapter_folder


def train(parent: Parent, folder: Path, steps: int, seconds: float, fault: str) -> dict[str, Any]:
    run = read_run(folder)
    checkpoint, diary = run.out / "checkpoints" / "step", run.folder / "diary.txt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    first = int(checkpoint.read_text()) if checkpoint.is_file() else 0
    with diary.open("a") as told:
        told.write(f"{os.getpid()} from {first}\n")
    sys.stdout.write("what a library prints must not be taken for a report\n")
    if fault == "refuse":
        raise SvacError("Memory ran out.", "Train a smaller model.")
    for step in range(first, steps):
        if parent.should_stop():
            raise SvacError("The training was stopped.", "Start it again.")
        parent.progress(step / steps, f"step {step} of {steps}")
        time.sleep(seconds)
        checkpoint.write_text(str(step + 1))
        if fault == "crash" and step == 3:
            os._exit(9)
    if not run.corrections:
        return {"adapter": None, "promote": False, "reason": "8 corrected videos are missing.", "steps": 0}
    info = adapter_folder(run.out / "adapter", f"{steps} steps from {run.parent or 'the base'}".encode())
    return {
        "adapter": str(run.out / "adapter"),
        "promote": True,
        "reason": "Promoted. J&F rose by 30.",
        "figures": {"gain": 30.0},
        "steps": steps,
        "report": info.sha256,
    }


if __name__ == "__main__":
    parent = Parent()
    place, fault = Path(sys.argv[1]), sys.argv[4] if len(sys.argv) > 4 else ""
    sys.exit(parent.run(lambda: train(parent, place, int(sys.argv[2]), float(sys.argv[3]), fault)))
