"""The job `collect`: make corrections of the webhooks that came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from svac_backend.jobs.collecting import Collector
from svac_backend.jobs.engine import JobContext, Work
from svac_backend.training.triggers import Trigger

COLLECT = "collect"


@dataclass
class CollectHandler:
    """Does `collect` jobs.

    Attributes:
        collector: looks at the webhooks.
        trigger: starts a fine-tuning when enough is corrected.
    """

    collector: Collector
    trigger: Trigger

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: another process collects.
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
