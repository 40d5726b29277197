"""When a fine-tuning starts. Free of torch, since the web process uses it, too.

At most one runs and one more waits, under two keys that take turns. A request while one waits returns that one; a
request while one runs makes a new one only if there are corrections that the running one does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from svac_backend.learning.collect import ACTIONS
from svac_backend.settings import Settings
from svac_backend.store.corrections import CorrectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.jobs import Job, JobState, JobStore, Work
from svac_backend.store.versions import TrainingStore
from svac_backend.svac.files.weights import version_of

FINETUNE = "finetune"
KEYS = ("finetune:1", "finetune:2")


@dataclass(frozen=True)
class Requested:
    """The outcome of a request.

    Attributes:
        job: the job that learns from what is corrected by now.
        is_new: whether the request made it.
        message: the same in words.
    """

    job: Job
    is_new: bool
    message: str


class Trigger:
    """Starts fine-tunings.

    Args:
        settings: the model, and after how many corrected tasks it is fine-tuned.
        database: jobs, corrections, runs.
        submit: queues work, see `JobEngine.submit_many`.
    """

    def __init__(
        self, settings: Settings, database: Database, submit: Callable[[Sequence[Work]], list[Job]]
    ) -> None:
        self.settings = settings
        self.jobs, self.events = JobStore(database), EventStore(database)
        self.corrections, self.trainings = CorrectionStore(database), TrainingStore(database)
        self._submit = submit

    def request(self, why: str, project_id: str = "") -> Requested:
        """Start a fine-tuning on what is corrected by now.

        Args:
            why: the reason, in a few words.
            project_id: the project where it was requested, if any; it learns from all projects' corrections anyway.
        """
        active = self._active()
        for job in active:
            if job.state is JobState.QUEUED:
                return Requested(job, False, "A fine-tuning waits already; it will take all corrections.")
        for job in active:
            run = self.trainings.get(job.id)
            # A run that has not begun to learn will collect the corrections itself.
            if run is None or self.events.latest(ACTIONS) <= run.event:
                return Requested(job, False, "A fine-tuning runs already, with all corrections.")
        free = [key for key in KEYS if key not in {job.key for job in active}]
        if not free:  # with several workers, one trains and another waits for it
            return Requested(
                active[0], False, "Two fine-tunings are under way; ask again when one has ended."
            )
        (job,) = self._submit([Work(FINETUNE, {"why": why, "project_id": project_id}, free[0])])
        message = "Fine-tuning follows the one that runs." if active else "Fine-tuning starts."
        if project_id:  # otherwise the person who asked would think that it concerns their project alone
            message += " It learns from the corrections of all projects."
        return Requested(job, True, message)

    def due(self) -> bool:
        """Whether as many tasks as the settings require were corrected since the last run, and no run is under way.

        Raises:
            SvacError: there is no model.
        """
        every = self.settings.finetune_every
        if not every or self._active():
            return False
        last = self.trainings.last_event(version_of(self.settings))
        return self.corrections.corrected_tasks(after=last) >= every

    def _active(self) -> list[Job]:
        return self.jobs.find(states=(JobState.QUEUED, JobState.RUNNING), kind=FINETUNE)
