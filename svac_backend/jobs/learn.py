"""The job `finetune`: train in a process of its own, register the new version, promote it if it is better.

Meanwhile the worker goes on with its other jobs. If either process is killed, the run continues from its last
checkpoint: the worker restarts the training process, and the next worker takes a job whose worker died.

The job `collect`: read corrections from the webhooks that came in.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from svac_backend.errors import JobCancelled, StoreError, SvacError
from svac_backend.jobs.engine import JobContext, Work
from svac_backend.learning.child import Child, ChildDied
from svac_backend.learning.collect import Collector
from svac_backend.learning.freeze import CACHE, Run, open_run
from svac_backend.learning.triggers import Trigger
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, Storage
from svac_backend.storage.published import open_storage
from svac_backend.store.database import Database
from svac_backend.store.versions import VersionState
from svac_backend.versions import Registry

# How often a process that dies is restarted.
MAX_DEATHS = 3
# Seconds that the process has to stop; less than its worker has.
GRACE_S = 5.0

log = logging.getLogger(__name__)


def training_command(folder: Path) -> list[str]:
    """Return the command that trains a run."""
    return [sys.executable, "-m", "svac_backend.learning.process", str(folder)]


@dataclass
class FinetuneHandler:
    """Does `finetune` jobs.

    Attributes:
        settings: the model and the data folder.
        database: corrections and versions.
        collector: reads the latest webhooks before the training begins.
        command: returns the command that trains a run; tests pass their own.
    """

    settings: Settings
    database: Database
    collector: Collector
    command: Callable[[Path], list[str]] = training_command

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: there is no model, a video is missing, memory ran out, or the process kept dying.
        """
        begun = time.monotonic()
        context.progress(0.0, "Collecting corrections")
        try:
            self.collector.collect(lambda _, message: context.progress(0.0, message))
        except StoreError:
            raise
        except SvacError as error:
            log.warning("job %s learns from what was collected before: %s", context.job.id, error)
        run = open_run(self.settings, self.database, context.job.id)
        try:
            found = run.result() or self._train(context, run)
        except JobCancelled:
            shutil.rmtree(run.folder, ignore_errors=True)
            open_storage(self.settings).delete(Kind.RUNS, context.job.id)
            raise
        result = {"corrections": len(run.corrections), **self._publish(context, run, found)}
        run.tidy()
        open_storage(self.settings).publish(Kind.RUNS, context.job.id)
        return {**result, "seconds": round(time.monotonic() - begun, 1)}

    def _train(self, context: JobContext, run: Run) -> dict[str, Any]:
        deaths, keeper = 0, _Keeper(open_storage(self.settings), context, run)
        while True:
            child = Child(self.command(run.folder), settings_to_json(self.settings), run.log)
            log.info("job %s trains in process %d", context.job.id, child.pid)
            try:
                result = child.follow(keeper.progress)
                run.finish(result)
                keeper.storage.publish(Kind.RUNS, context.job.id, without=[CACHE])
                return result
            except ChildDied as death:
                deaths += 1
                log.warning("job %s: its process died (%s)", context.job.id, death)
                if deaths == MAX_DEATHS:
                    raise SvacError(
                        f"The training process died {deaths} times ({death}).",
                        f"Its log is {run.log}. If memory ran out, set SVAC_MODEL to a smaller model or train on a "
                        "machine with more; start it again and it continues from its last checkpoint.",
                    ) from death
            finally:
                child.stop(GRACE_S)

    def _publish(self, context: JobContext, run: Run, found: dict[str, Any]) -> dict[str, Any]:
        reason = str(found.get("reason", ""))
        result: dict[str, Any] = {key: found[key] for key in ("figures", "steps", "report") if key in found}
        if not found.get("adapter"):
            return {**result, "promoted": False, "message": reason}
        registry = Registry(self.settings, self.database)
        version = registry.publish(
            run.out / Path(found["adapter"]).name,  # the path may be that of another machine
            base=run.base,
            parent=run.parent,
            promote=bool(found["promote"]),
            reason=reason,
            figures=found.get("figures"),
            data=data_used(run, found),
            job_id=context.job.id,
        )
        return {
            **result,
            "version": version.name,
            "promoted": version.state is VersionState.PROMOTED,
            "message": f"{version.name}: {version.reason}",
        }


class _Keeper:
    """Stores a run at each new checkpoint, so that it can continue on another machine."""

    def __init__(self, storage: Storage, context: JobContext, run: Run) -> None:
        self.storage, self._context, self._run = storage, context, run
        self._kept = self._last()

    def progress(self, fraction: float, message: str) -> None:
        """Report the progress of the run."""
        last = self._last()
        if self.storage.remote and last != self._kept:
            self._kept = last
            try:
                self.storage.publish(Kind.RUNS, self._context.job.id, without=[CACHE])
            except SvacError as error:  # the training goes on; storing the next checkpoint may work
                log.warning("a checkpoint of job %s is not stored: %s", self._context.job.id, error)
        self._context.progress(fraction, message)

    def _last(self) -> str:
        return max((path.name for path in self._run.out.glob("checkpoints/step-*")), default="")


def data_used(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    """Return what a version was trained on, in the registry's form."""
    return {
        "corrections": len(run.corrections),
        "tasks": sorted({f"{one.project_id}/{one.task_id}" for one in run.corrections}),
        "videos": len({one.annotation.video for one in run.corrections}),
        "expressions": sorted({one.expression for one in run.corrections})[:50],
        "drawn_frames": sum(len(one.drawn) for one in run.corrections),
        "accepted_frames": sum(len(one.accepted) for one in run.corrections),
        "people": sorted({one.who for one in run.corrections if one.who}),
        "last_event": run.event,
        "steps": found.get("steps"),
        "report": found.get("report"),
    }


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """Return the settings that were given, with their secrets: for a process's standard input, never for a file."""
    found = {}
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        value = value.get_secret_value() if isinstance(value, SecretStr) else value
        found[name] = str(value) if isinstance(value, Path) else value
    return found


COLLECT = "collect"


@dataclass
class CollectHandler:
    """Does `collect` jobs.

    Attributes:
        collector: reads the webhooks.
        trigger: starts a fine-tuning once enough tasks are corrected.
    """

    collector: Collector
    trigger: Trigger

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: another process is collecting.
        """
        done = self.collector.collect(context.progress)
        result = {"message": str(done), **vars(done)}
        if self.trigger.due():
            every = self.trigger.settings.finetune_every
            result["finetune"] = self.trigger.request(f"{every} tasks were corrected").job.id
        return result

    def work(self) -> list[Work]:
        """Return the job, if there is something to collect."""
        return [Work(COLLECT, {}, COLLECT)] if self.collector.pending() else []
