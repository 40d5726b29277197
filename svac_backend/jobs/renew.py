"""The job `renew`: tasks hold links to our own /media, which expire; replace old ones in time."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobContext, Work
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.errors import ApiRefusal
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, Storage
from svac_backend.storage.published import open_storage
from svac_backend.store.links import PARAMETER, ROUTE, MediaLinks, links_from_store

RECORD, FORMAT = "links.json", "svac-links-1"
# Links are renewed after this share of their life, so that they outlive a worker that is down for the rest.
RENEW_AT = 0.5
# Tasks read from Label Studio in one call, to see which are still there.
PORTION = 50

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinkedTask:
    """A task whose frames we serve.

    Attributes:
        folder: the folder of its frames.
        project_id: its project, in digits.
        task: its id.
        key: the field of its data that holds the links.
        made: when they were made, in seconds since 1970; 0 if they may not have arrived.
        identity: their `MediaLinks.identity`.
    """

    folder: Path
    project_id: str
    task: int
    key: str
    made: float = 0.0
    identity: str = ""


@dataclass
class Renewal:
    """The outcome of a renewal.

    Attributes:
        renewed: tasks that got new links.
        gone: tasks that are no longer in their project, or whose project is gone.
        others: tasks whose frames are no longer ours.
        refused: Label Studio's answers where it refused.
    """

    renewed: int = 0
    gone: list[LinkedTask] = field(default_factory=list)
    others: int = 0
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"Links of {self.renewed} task{'' if self.renewed == 1 else 's'} renewed"]
        parts += [f"{len(self.gone)} deleted in Label Studio (svac-backend media clean)"] if self.gone else []
        parts += [f"{self.others} now with other frames"] if self.others else []
        parts += [f"{len(self.refused)} refused, e.g.: {self.refused[0]}"] if self.refused else []
        return ", ".join(parts)


def remember(
    task: LinkedTask, made: float = 0.0, identity: str = "", *, storage: Storage | None = None
) -> None:
    """Record beside a task's frames that it has links to them, and since when.

    Raises:
        SvacError: the folder cannot be written.
    """
    content = {"format": FORMAT, **asdict(task), "made": made, "identity": identity}
    del content["folder"]
    name = f"{task.folder.parent.name}/{task.folder.name}"
    (storage or _around(task.folder.parents[1])).write_note(
        Kind.FRAMES, name, RECORD, json.dumps(content).encode()
    )


def linked_tasks(root: Path, storage: Storage | None = None) -> Iterator[LinkedTask]:
    """Yield the tasks whose frames lie in a storage, by project and number.

    Args:
        root: folder of the frames on this machine.
        storage: the storage; None: the one that the folder is in.
    """

    def by_number(found: tuple[str, bytes]) -> list[tuple[int, str]]:
        return [(len(part), part) for part in found[0].split("/")]

    for name, text in sorted((storage or _around(root)).notes(Kind.FRAMES, RECORD), key=by_number):
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise ValueError
            yield LinkedTask(folder=root / name, **content)
        except (ValueError, KeyError, TypeError, AttributeError):
            log.error(
                "%s is damaged: its task's links are not renewed; delete the folder and cut the frames again",
                root / name / RECORD,
            )


def _around(root: Path) -> Storage:
    return Storage(root.parent)


def due_tasks(links: MediaLinks, storage: Storage | None = None, *, every: bool = False) -> list[LinkedTask]:
    """Return the tasks whose links are old or have another address or key; with `every`, all tasks.

    Without SVAC_MEDIA_URL no task is due, since there is no address to write.
    """
    if not links.ready:
        return []
    limit = links.clock() - RENEW_AT * links.lifetime_s
    return [
        task
        for task in linked_tasks(links.root, storage)
        if every or task.made < limit or task.identity != links.identity
    ]


def renew(
    tasks: Sequence[LinkedTask],
    links: MediaLinks,
    client: Callable[[str], LabelStudioClient],
    progress: Callable[[float, str], None] = lambda fraction, message: None,
    storage: Storage | None = None,
) -> Renewal:
    """Give tasks new links to their frames, and change nothing else in them.

    A task that was deleted, or whose frames somebody replaced, is left alone until the next time.

    Args:
        tasks: as `due_tasks` returns them.
        links: makes the links.
        client: returns the client for a project's Label Studio.
        progress: called with (fraction, message).
        storage: where the frames are; None: in the links' own folder.

    Raises:
        SvacError: Label Studio cannot be reached, or accepts none of our tokens.
    """
    done = Renewal()
    for position, task in enumerate(tasks):
        progress(position / len(tasks), f"Renewed the links of {done.renewed} of {len(tasks)} tasks")
        try:
            # One by one, so that nobody else changes a task's data between our reading and our writing.
            _renew_one(task, links, client(task.project_id), done, storage)
        except ApiRefusal as error:
            if error.status in (401, 429) or error.status >= 500:
                raise
            done.refused.append(str(error))
    return done


def _renew_one(
    task: LinkedTask, links: MediaLinks, client: LabelStudioClient, done: Renewal, storage: Storage | None
) -> None:
    made = links.clock()
    data = _data_of([task], client).get(task.task)
    fresh = None if data is None else _fresh(data.get(task.key), task, links)
    if data is None:
        done.gone.append(task)
    elif fresh is None:
        done.others += 1
    else:
        client.set_task_data(task.task, {**data, task.key: fresh})
        done.renewed += 1
    remember(task, made, links.identity, storage=storage)


def gone_tasks(
    root: Path, client: Callable[[str], LabelStudioClient], storage: Storage | None = None
) -> list[LinkedTask]:
    """Return the tasks with frames below a folder that are no longer in their project, or whose project is gone.

    Raises:
        SvacError: Label Studio cannot be reached, or refuses.
    """
    gone = []
    for project_id, group in groupby(linked_tasks(root, storage), key=lambda task: task.project_id):
        of_project = list(group)
        for start in range(0, len(of_project), PORTION):
            some = of_project[start : start + PORTION]
            found = _data_of(some, client(project_id))
            gone += [task for task in some if task.task not in found]
    return gone


def _data_of(tasks: Sequence[LinkedTask], client: LabelStudioClient) -> dict[int, dict[str, Any]]:
    """Return the data of those tasks of one project that are still there."""
    project = int(tasks[0].project_id)
    try:
        found = list(client.list_tasks(project, [task.task for task in tasks]))
    except ApiRefusal as error:
        # A wrong address answers 404, too; only a Label Studio lists projects.
        if error.status == 404 and project not in {int(one["id"]) for one in client.list_projects()}:
            return {}
        raise
    return {int(task["id"]): task["data"] for task in found}


def _fresh(urls: Any, task: LinkedTask, links: MediaLinks) -> list[Any] | None:
    """Return a task's frames with our links replaced by new ones; None if none is ours.

    Old links may have another address and key; the file that they name, in this task's folder, identifies them.
    """
    if not isinstance(urls, list):
        return None
    name = re.escape(quote(f"{task.folder.parent.name}/{task.folder.name}/"))
    ours = rf"{ROUTE}{name}(\w[\w.-]*)\?{PARAMETER}=[\w.-]+"
    stored = rf"/{Kind.FRAMES.value}/{name}[0-9a-f]{{16}}/(\w[\w.-]*)\?\S+"
    pattern = re.compile(rf"https?://[^?#]*(?:{ours}|{stored})")
    matches = [pattern.fullmatch(url) if isinstance(url, str) else None for url in urls]
    if not any(matches):
        return None
    return [
        links.url(task.folder / (match[1] or match[2])) if match else url
        for url, match in zip(urls, matches, strict=True)
    ]


RENEW = "renew"


def renewal_if_due(settings: Settings) -> list[Work]:
    """Return the work that renews links, if any are due.

    Raises:
        SvacError: the data folder cannot be used.
    """
    if settings.media_url is None and not links_from_store(settings):
        return []
    if not due_tasks(MediaLinks.of_frames(settings), open_storage(settings)):
        return []
    return [Work(RENEW, {}, RENEW)]


@dataclass
class RenewHandler:
    """Does `renew` jobs.

    Attributes:
        settings: the links' address and lifetime.
        label_studio: access to the tasks.
    """

    settings: Settings
    label_studio: LabelStudioAccess

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: Label Studio cannot be reached, or refuses all tasks.
        """
        links, storage = MediaLinks.of_frames(self.settings), open_storage(self.settings)
        tasks = due_tasks(links, storage)
        done = renew(tasks, links, self.label_studio.client, context.progress, storage)
        if done.refused and not done.renewed:
            raise SvacError(f"{done}.", "Fix the cause; the worker tries again within a day.")
        return {
            "message": str(done),
            "renewed": done.renewed,
            "gone": len(done.gone),
            "refused": len(done.refused),
        }
