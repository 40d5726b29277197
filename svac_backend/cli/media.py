"""`svac-backend media renew | clean`: the frames that the backend itself serves, and their links in tasks."""

from __future__ import annotations

import shutil
from contextlib import closing

import typer
from rich.console import Console

from svac_backend.cli.terminal import bar, counted
from svac_backend.errors import SvacError
from svac_backend.jobs.renew import due_tasks, gone_tasks, linked_tasks, renew
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.links import MediaLinks

console = Console(highlight=False, soft_wrap=True)


def run_renew(settings: Settings, *, every: bool = False) -> None:
    """Give tasks new links to their frames; print what was done.

    Without `every`, only tasks whose links are old, or of another SVAC_MEDIA_URL or key.

    Raises:
        SvacError: SVAC_MEDIA_URL is not set, Label Studio cannot be reached, or it refused some tasks.
    """
    if settings.media_url is None:
        raise SvacError(
            "SVAC_MEDIA_URL is not set, so new links have no address.",
            "Set it to the address at which the annotators' browsers reach `svac-backend serve`.",
        )
    links = MediaLinks.from_settings(settings)
    tasks = due_tasks(links, every=every)
    if not tasks:
        count = sum(1 for _ in linked_tasks(links.root))
        console.print(f"Nothing to renew: the links of {counted(count, 'task')} are new enough.")
        return
    with closing(Database(settings.data_dir)) as database, bar("renewing links") as progress:
        access = LabelStudioAccess(settings, ConnectionStore(database))
        done = renew(tasks, links, access.client, lambda fraction, _: progress(fraction))
    console.print(f"{done}.")
    if done.refused:
        raise SvacError(
            f"Label Studio refused {counted(len(done.refused), 'task')}.",
            "Fix what it says, and run it again.",
        )


def run_clean(settings: Settings, *, yes: bool = False) -> None:
    """Delete the frames of tasks that were deleted in Label Studio, after asking unless `yes`.

    Raises:
        SvacError: Label Studio cannot be reached, or refuses.
    """
    root = MediaLinks.from_settings(settings).root
    with closing(Database(settings.data_dir)) as database, console.status("asking Label Studio"):
        gone = gone_tasks(root, LabelStudioAccess(settings, ConnectionStore(database)).client)
    if not gone:
        console.print("Nothing to delete: every task with frames here is in Label Studio.")
        return
    size = sum(file.stat().st_size for task in gone for file in task.folder.iterdir())
    names = ", ".join(f"{task.project_id}/{task.task}" for task in gone[:10])
    more = f" and {len(gone) - 10} more" if len(gone) > 10 else ""
    console.print(f"Deleted in {settings.label_studio_url}, as project/task: {names}{more}")
    if not yes and not typer.confirm(f"Delete their frames ({size / 1e6:,.1f} MB)?"):
        console.print("Nothing was deleted.")
        return
    for task in gone:
        try:
            shutil.rmtree(task.folder)
        except OSError as error:
            raise SvacError(
                f"{task.folder} cannot be deleted ({error.strerror}).",
                "Let this user write to SVAC_DATA_DIR.",
            ) from error
    console.print(
        f"The frames of {counted(len(gone), 'task')} are deleted; {size / 1e6:,.1f} MB are free again."
    )
