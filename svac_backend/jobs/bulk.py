"""The job `bulk`: predict all tasks of a project that have no prediction yet.

It enters a `prelabel` job for each task, with a lower priority than anything that people ask for one by one, and only a
bounded number at a time: so the queue stays short, and cancelling the job stops the work. Only Label Studio and our
tables know what is done; a worker that continues the job lists the tasks again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from svac_backend.errors import JobCancelled, StoreError, SvacError
from svac_backend.jobs.engine import BULK, REJECTED, JobContext, JobEngine, JobState, Work
from svac_backend.jobs.frames import order_frames
from svac_backend.jobs.payloads import PRELABEL, PrelabelPayload, task_payload
from svac_backend.labelstudio.api.access import LabelStudioAccess, label_studio_name, task_number
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.tasks import task_prompts
from svac_backend.settings import Settings
from svac_backend.store.tasks import TaskStore
from svac_backend.versions import Registry

PROJECT = "bulk"
# How many jobs of a project wait or run at the same time: the default, and the most that may be asked for.
AHEAD, MOST_AHEAD = 100, 10_000
# Seconds between two checks which jobs have ended.
LOOK_S = 0.5
# Tasks looked up at once.
PORTION = 100

log = logging.getLogger(__name__)


def bulk_work(project_id: str, ahead: int = AHEAD) -> Work:
    """Return the work that pre-labels a project; while it waits or runs, submitting it again adds nothing."""
    return Work(PROJECT, {"project_id": project_id, "ahead": ahead}, f"{PROJECT}:{project_id}", BULK)


@dataclass
class _Round:
    """The progress of a job: what it entered and has not seen end (job id -> key), and counts of the others."""

    total: int = 0
    entered: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    had: int = 0
    predicted: int = 0
    failed: int = 0

    @property
    def message(self) -> str:
        """Say it in words."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.predicted + self.had} of {self.total} tasks have a prediction{failed}"


@dataclass
class BulkHandler:
    """Does `bulk` jobs.

    Attributes:
        settings: limits for prompts, and how frames are served.
        engine: takes the jobs.
        label_studio: access to the tasks.
        tasks: knows which tasks have a prediction.
        registry: knows which version serves.
    """

    settings: Settings
    engine: JobEngine
    label_studio: LabelStudioAccess
    tasks: TaskStore
    registry: Registry

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: the project cannot be read.
        """
        project, ahead = str(context.payload["project_id"]), int(context.payload["ahead"])
        context.progress(0.0, "Listing the tasks")
        found = self.label_studio.client(project).get_project(task_number(project))
        config, here = str(found["label_config"]), _Round(int(found.get("task_number") or 0))
        try:
            # Repeated until nothing is new: tasks deleted meanwhile shift others to pages that were read already.
            while self._enter(context, here, project, config, ahead):
                pass
            while here.entered:
                self._wait(context, here)
        except JobCancelled:
            self.engine.store.cancel_many(here.entered)
            raise
        return {
            "tasks": here.total,
            "had": here.had,
            "predicted": here.predicted,
            "failed": here.failed,
            "message": here.message,
        }

    def _enter(self, context: JobContext, here: _Round, project: str, config: str, ahead: int) -> bool:
        """Enter all tasks that are not known yet; return whether there were any."""
        any_new = False
        for portion in self._portions(project):
            ids = [str(task["id"]) for task in portion]
            given = self.tasks.given(project, ids)
            for task, task_id in zip(portion, ids, strict=True):
                if task_id in here.seen:
                    continue
                here.seen.add(task_id)
                here.total = max(here.total, len(here.seen))
                any_new = True
                if task_id in given or task.get("total_predictions"):
                    here.had += 1
                    continue
                while len(here.entered) >= ahead:
                    self._wait(context, here)
                self._enter_one(here, task, project, config)
        return any_new

    def _portions(self, project: str) -> Iterator[list[Mapping[str, Any]]]:
        portion: list[Mapping[str, Any]] = []
        for task in self.label_studio.client(project).list_tasks(task_number(project)):
            portion.append(task)
            if len(portion) == PORTION:
                yield portion
                portion = []
        if portion:
            yield portion

    def _enter_one(self, here: _Round, task: Mapping[str, Any], project: str, config: str) -> None:
        works: list[Work] = []
        try:
            hostname = label_studio_name(self.settings, self.label_studio.connections.get(project))
            base = task_payload(task, config, project, hostname)
            limit = self.settings.max_prompt_chars
            prompts = task_prompts(base.task_data, cached_config(config), max_chars=limit)
            order_frames(base, self.settings, self.engine, works, BULK)
            payload = PrelabelPayload(**vars(base), prompts=tuple(prompts), push=True)
            key = payload.job_key(self.registry.name())
        except StoreError:
            raise
        except SvacError as error:
            here.failed += 1
            log.warning("task %s of project %s is not predicted: %s", task["id"], project, error)
            about = {"project_id": project, "task_id": str(task["id"])}
            rejected = f"{PRELABEL}:{project}:{task['id']}{REJECTED}"
            self.engine.reject(PRELABEL, about, rejected, error.message, error.hint)
            return
        job = self.engine.submit_many([*works, Work(PRELABEL, payload.to_json(), key, BULK)])[-1]
        here.entered[job.id] = job.key

    def _wait(self, context: JobContext, here: _Round) -> None:
        """Check which jobs have ended, and wait a little if none has."""
        active = self.engine.active_keys(list(here.entered.values()))
        ended = [job_id for job_id, key in here.entered.items() if key not in active]
        for job_id in ended:
            del here.entered[job_id]
            if self.engine.get(job_id).state is JobState.DONE:
                here.predicted += 1
            else:
                here.failed += 1
        done = here.had + here.predicted + here.failed
        context.progress(min(0.999, done / max(1, here.total)), here.message)
        if not ended:
            time.sleep(LOOK_S)
