"""`svac-backend doctor`: what works, what does not, and what to do about it, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from svac_backend.cli.doctor.backend import (
    backend_address,
    check_from_here,
    check_from_label_studio,
    check_timeouts,
    default_url,
)
from svac_backend.cli.doctor.finding import DoctorClient, Finding, Status, failed
from svac_backend.cli.doctor.label_studio import check_files, check_media, check_server, check_token
from svac_backend.cli.doctor.machine import (
    check_data_folder,
    check_database,
    check_jobs,
    check_libraries,
    check_model,
    check_settings,
    check_storage,
    check_worker,
)
from svac_backend.cli.doctor.project import check_arrival, check_project
from svac_backend.cli.terminal import counted
from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.store.database import Database

COLORS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red"}


def run(settings: Settings, backend_url: str | None, project: int | None) -> int:
    """Check everything and print a table.

    It makes a temporary project in Label Studio and deletes it again; it changes nothing else there.

    Args:
        settings: what to check.
        backend_url: how Label Studio reaches the backend; by default the settings' host and port.
        project: a project to check, too.

    Returns:
        The exit status: 0 if nothing failed, else 1.

    Raises:
        SvacError: `backend_url` is not an address.
    """
    console = Console(highlight=False)
    findings: list[Finding] = []
    with console.status("looking ...") as status:
        for finding in check_all(settings, backend_url, project):
            findings.append(finding)
            status.update(f"looked at: {finding.check}")
    console.print(_table(findings))
    failures = sum(finding.status is Status.FAILURE for finding in findings)
    warnings = sum(finding.status is Status.WARNING for finding in findings)
    if failures:
        console.print(
            f"[bold red]{counted(failures, 'failure')}[/], {counted(warnings, 'warning')}. "
            "Fix them from the top, then run this again: some checks depend on others.",
            soft_wrap=True,
        )
    else:
        console.print(f"[green]No failure[/], {counted(warnings, 'warning')}.", soft_wrap=True)
    return 1 if failures else 0


def check_all(settings: Settings, backend_url: str | None, project: int | None) -> Iterator[Finding]:
    """Yield what each check found, causes before their effects.

    Raises:
        SvacError: `backend_url` is not an address.
    """
    url = backend_address(backend_url) if backend_url is not None else default_url(settings)
    yield check_settings(settings)
    yield check_model(settings)
    yield check_libraries(settings)
    folder = check_data_folder(settings)
    yield folder
    if settings.storage_url is not None:
        yield check_storage(settings)
    database = None
    if folder.status is not Status.FAILURE:
        found, database = check_database(settings)
        yield found
    if database is not None:
        yield check_worker(settings, database)
        yield check_jobs(settings, database)
    yield check_timeouts(settings)
    server = check_server(settings)
    yield server
    client = None
    if server.status is Status.OK:
        found, client = check_token(settings)
        yield found
    here = check_from_here(settings, url)
    if client is None:
        yield here
    else:
        yield from _check_both_ways(settings, client, url, here, database)
    yield from check_media(settings, database)
    if client is not None and project is not None:
        yield from check_project(settings, client, project, url)


def _check_both_ways(
    settings: Settings, client: DoctorClient, url: str, here: Finding, database: Database | None
) -> Iterator[Finding]:
    try:
        with client.temporary_project() as number:
            yield check_files(settings, client, number)
            answers = here.status is not Status.FAILURE
            reached = check_from_label_studio(settings, client, number, url, database, answers_here=answers)
            # An address that only Label Studio can reach is good enough, since nothing here calls the backend.
            needed = answers or reached.status is Status.FAILURE
            yield here if needed else replace(here, status=Status.WARNING)
            yield reached
            if reached.status is Status.OK and database is not None:
                yield check_arrival(settings, client, number, url, database)
    except SvacError as error:
        yield failed("temporary project", error)


def _table(findings: list[Finding]) -> Table:
    table = Table("check", "result", "what was found, and what to do")
    for finding in findings:
        words = Text(finding.detail)
        if finding.fix:
            words.append(f"\n{finding.fix}", style="bold")
        table.add_row(Text(finding.check), Text(finding.status.value, style=COLORS[finding.status]), words)
    return table
