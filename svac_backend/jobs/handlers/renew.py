"""The job `renew`: new links to /media for the tasks whose links are old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobContext, Work
from svac_backend.jobs.label_studio import LabelStudioAccess
from svac_backend.jobs.renewal import due_tasks, renew
from svac_backend.settings import Settings
from svac_backend.store.links import MediaLinks

RENEW = "renew"


def renewal_if_due(settings: Settings) -> list[Work]:
    """Return the work that renews links, if there are any to renew.

    Raises:
        SvacError: the data folder cannot be used.
    """
    if settings.media_url is None or not due_tasks(MediaLinks.from_settings(settings)):
        return []
    return [Work(RENEW, {}, RENEW)]


@dataclass
class RenewHandler:
    """Does `renew` jobs.

    Attributes:
        settings: the links' address and life.
        label_studio: where the tasks are.
    """

    settings: Settings
    label_studio: LabelStudioAccess

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: Label Studio cannot be reached, or refuses all tasks.
        """
        links = MediaLinks.from_settings(self.settings)
        done = renew(due_tasks(links), links, self.label_studio.client, context.progress)
        if done.refused and not done.renewed:
            raise SvacError(f"{done}.", "Mend what it says; the worker tries again within a day.")
        return {
            "message": str(done),
            "renewed": done.renewed,
            "gone": len(done.gone),
            "refused": len(done.refused),
        }
