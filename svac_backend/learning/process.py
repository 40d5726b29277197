"""The process that fine-tunes: the worker starts `python -m svac_backend.learning.process FOLDER`; see `child`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from svac_backend.errors import SvacError, start_logging
from svac_backend.learning.child import Parent
from svac_backend.learning.examples import from_corrections
from svac_backend.learning.finetune import FinetuneData, Outcome, finetune
from svac_backend.learning.freeze import Run, Videos, read_run
from svac_backend.learning.gate import GateOptions, too_few
from svac_backend.learning.options import options_from
from svac_backend.pipeline import load_model
from svac_backend.settings import Settings
from svac_backend.storage.cache import held
from svac_backend.store.database import Database
from svac_backend.store.versions import VersionStore
from svac_backend.versions import Registry

# Niceness: below the worker's priority, which is below the web process's.
NICENESS = 5
LOCK_FILE = "training.lock"
Progress = Callable[[float, str], None]
Stop = Callable[[], bool]

log = logging.getLogger(__name__)


def finetune_run(
    settings: Settings, database: Database, run: Run, progress: Progress, should_stop: Stop
) -> dict[str, Any]:
    """Fine-tune a frozen run, or resume it. Two on one data folder take turns, since they would share the device.

    Returns:
        `adapter` (a folder, or None), `promote`, `reason`, `figures`, `steps`, `report`.

    Raises:
        SvacError: a video or the parent adapter is missing, memory ran out, or the run was stopped.
    """
    with _alone(settings, progress, should_stop):
        videos = Videos(settings, database)
        examples = []
        for number, one in enumerate(run.corrections):
            progress(0.0, f"Fetching video {number + 1} of {len(run.corrections)}")
            examples += from_corrections([one], videos.find)
        gate = GateOptions.from_settings(settings)
        if missing := too_few(len({example.video.key for example in examples}), gate):
            return _told(Outcome(None, missing))  # before a large model is loaded in vain
        model = load_model(settings)
        options = options_from(settings, model.config)
        outcome = finetune(
            model,
            FinetuneData(examples),
            run.out,
            options=options,
            gate=gate,
            parent=_parent(settings, database, run),
            progress=progress,
            should_stop=should_stop,
        )
    if not outcome.finished:
        raise _stopped()
    return _told(outcome)


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "adapter": str(outcome.adapter.absolute()) if outcome.adapter else None,
        "promote": outcome.decision.promote,
        "reason": outcome.decision.reason,
        "figures": dict(outcome.decision.figures),
        "steps": outcome.steps,
        "report": str(outcome.report.absolute()) if outcome.report else None,
    }


@contextmanager
def _alone(settings: Settings, progress: Progress, should_stop: Stop) -> Iterator[None]:
    """Hold the lock of a data folder; the system releases it however the process ends."""
    lock = FileLock(settings.data_dir / LOCK_FILE)
    while True:
        try:
            lock.acquire(timeout=1.0)
            break
        except Timeout:
            progress(0.0, "Waiting for another fine-tuning on this machine")
            if should_stop():
                raise _stopped() from None
    try:
        yield
    finally:
        lock.release()


def _stopped() -> SvacError:
    return SvacError("The training was stopped.", "Start it again: it resumes where it was.")


def _parent(settings: Settings, database: Database, run: Run) -> Path | None:
    """Return the adapter that a run starts from.

    Raises:
        SvacError: it has been deleted since, or is damaged.
    """
    if not run.parent:
        return None
    version = VersionStore(database).find(run.parent)
    registry = Registry(settings, database)
    registry.verify(version)
    return registry.folder(version)


def main() -> int:
    """Train the run in the folder that the command names."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    parent = Parent()
    settings = Settings(_env_file=None, **parent.config)
    start_logging(settings.log_level, settings.log_format)
    run = read_run(Path(sys.argv[1]))
    database = Database.from_settings(settings)
    with held():  # the videos that it reads again and again
        return parent.run(lambda: finetune_run(settings, database, run, parent.progress, parent.should_stop))


if __name__ == "__main__":
    sys.exit(main())
