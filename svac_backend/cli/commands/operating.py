"""Commands for operating the backend: processes, checks, models, the data folder, `media ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from svac_backend.cli.commands.options import AsJson, JobIds, ModelName, Yes
from svac_backend.cli.terminal import answer, console, get_settings

commands = typer.Typer()
PANEL = "Running it"

models = typer.Typer(help="List, download, verify, try and remove models.", no_args_is_help=True)
media = typer.Typer(
    help="Frames that the backend serves itself, and their links in tasks.", no_args_is_help=True
)
jobs = typer.Typer(help="Jobs of the worker: waiting, running and ended.", no_args_is_help=True)
cluster = typer.Typer(help="Workers on a Ray cluster, with SVAC_ENGINE=ray.", no_args_is_help=True)
commands.add_typer(jobs, name="jobs", rich_help_panel=PANEL)
commands.add_typer(cluster, name="cluster", rich_help_panel=PANEL)
commands.add_typer(models, name="models", rich_help_panel=PANEL)
commands.add_typer(media, name="media", rich_help_panel=PANEL)


@commands.command(rich_help_panel=PANEL)
def serve() -> None:
    """Run the web process that Label Studio talks to."""
    from svac_backend.server.app import serve as run

    run(get_settings())


@commands.command(rich_help_panel=PANEL)
def worker() -> None:
    """Run the worker that owns the model; with SVAC_ENGINE=ray, workers on a cluster, like `cluster start`."""
    settings = get_settings()
    if settings.engine == "ray":
        cluster_start()
        return
    from svac_backend.jobs.worker import run

    run(settings)


@commands.command(rich_help_panel=PANEL)
def doctor(
    backend_url: Annotated[
        str | None,
        typer.Option(help="How Label Studio reaches the backend; default: SVAC_HOST and SVAC_PORT."),
    ] = None,
    project: Annotated[int | None, typer.Option(help="Check this project's config and backends too.")] = None,
) -> None:
    """Check settings, tokens, and the connection between backend and Label Studio in both directions."""
    from svac_backend.cli.doctor.command import run

    raise typer.Exit(run(get_settings(), backend_url, project))


@commands.command(rich_help_panel=PANEL)
def ready(
    worker: Annotated[bool, typer.Option("--worker", help="Check only this host's worker.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether new tasks get masks; if not, say why and exit with status 1. For health checks."""
    from svac_backend.jobs.services import open_services, reasons_not_ready, reasons_worker_not_ready

    services = open_services(get_settings())
    reasons = reasons_worker_not_ready(services) if worker else reasons_not_ready(services)
    for reason in reasons:
        console.print(reason, style="red")
    answer({"ready": not reasons, "reasons": reasons}, [] if reasons else ["ready"], as_json=as_json)
    if reasons:
        raise typer.Exit(1)


@models.command("list")
def models_list(as_json: AsJson = False) -> None:
    """Show the models that are here, and the published ones that can be downloaded."""
    from svac_backend.cli.models import show

    show(get_settings(), as_json=as_json)


@models.command("download")
def models_download(name: ModelName = None) -> None:
    """Download a model from the hub; files that are already here are kept."""
    from svac_backend.cli.models import download

    download(name or get_settings().model)


@models.command("verify")
def models_verify(name: ModelName = None) -> None:
    """Check every file's hash, every tensor's header, and that weights, config and tokenizer belong together."""
    from svac_backend.cli.models import verify

    verify(name or get_settings().model)


@models.command("check")
def models_check(name: ModelName = None) -> None:
    """Load a model and segment a generated clip; say what it ran on, how long it took and how much memory it needed."""
    from svac_backend.cli.models import check

    settings = get_settings()
    check(settings, name or settings.model)


@models.command("remove")
def models_remove(
    name: Annotated[str, typer.Argument(help="`owner/name[@revision]`; without a revision, all revisions.")],
    yes: Yes = False,
) -> None:
    """Delete a downloaded model from the hub's cache."""
    from svac_backend.cli.models import remove

    remove(name, yes=yes)


@commands.command(rich_help_panel=PANEL)
def backup(
    file: Annotated[Path, typer.Argument(help="The backup, a tar file.")], as_json: AsJson = False
) -> None:
    """Write everything that must survive into one file; all processes may keep running."""
    from svac_backend.cli.storage import run_backup

    count = run_backup(get_settings(), file)
    answer({"file": file, "files": count}, [file], as_json=as_json)


@commands.command(rich_help_panel=PANEL)
def restore(file: Annotated[Path, typer.Argument(help="A backup.")]) -> None:
    """Replace the content of the data folder by a backup; the old content is kept beside it."""
    from svac_backend.cli.storage import run_restore

    run_restore(get_settings(), file)


@commands.command(rich_help_panel=PANEL)
def storage(
    as_json: AsJson = False,
    publish: Annotated[
        bool, typer.Option(help="First copy the data folder's files into the bucket of SVAC_STORAGE_URL.")
    ] = False,
) -> None:
    """Show what takes up space in the data folder and the storage, and how long it is kept."""
    from svac_backend.cli.storage import run_publish, run_storage

    if publish:
        run_publish(get_settings())
    run_storage(get_settings(), as_json=as_json)


@media.command("renew")
def media_renew(
    every: Annotated[
        bool, typer.Option("--all", help="All tasks, not only those whose links are old.")
    ] = False,
) -> None:
    """Give tasks new links to their frames; the worker does so by itself once a day."""
    from svac_backend.cli.storage import run_renew

    run_renew(get_settings(), every=every)


@media.command("clean")
def media_clean(yes: Yes = False) -> None:
    """Delete the frames of tasks that were deleted in Label Studio."""
    from svac_backend.cli.storage import run_clean

    run_clean(get_settings(), yes=yes)


@jobs.command("list")
def jobs_list(
    state: Annotated[
        list[str] | None,
        typer.Option(help="queued, running, done, failed or cancelled; repeat it for more."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="For example prelabel, propagate, finetune.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show jobs, the newest first, and why the failed ones failed."""
    from svac_backend.cli.jobs import run_list

    run_list(get_settings(), state or [], kind, limit, as_json=as_json)


@jobs.command("watch")
def jobs_watch(
    job: Annotated[
        str | None, typer.Argument(help="Its id, or the beginning of it; default: all active jobs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a job, or all active jobs, to the end; exits with status 1 if one failed."""
    from svac_backend.cli.jobs import run_watch

    run_watch(get_settings(), job, as_json=as_json)


@jobs.command("cancel")
def jobs_cancel(job: JobIds, as_json: AsJson = False) -> None:
    """Cancel jobs; prints their ids."""
    from svac_backend.cli.jobs import run_cancel

    run_cancel(get_settings(), job, as_json=as_json)


@jobs.command("retry")
def jobs_retry(job: JobIds, as_json: AsJson = False) -> None:
    """Redo the work of failed or cancelled jobs; prints the ids of the jobs that do it."""
    from svac_backend.cli.jobs import run_retry

    run_retry(get_settings(), job, as_json=as_json)


@cluster.command("start")
def cluster_start() -> None:
    """Keep as many workers on a Ray cluster as there is work for, until SIGTERM, which ends the workers, too."""
    from svac_backend.cli.cluster import run_start

    run_start(get_settings())


@cluster.command("status")
def cluster_status(as_json: AsJson = False) -> None:
    """Show nodes, workers, what each worker does, and what waits."""
    from svac_backend.cli.cluster import run_status

    run_status(get_settings(), as_json=as_json)


@cluster.command("drain")
def cluster_drain(
    node: Annotated[
        str | None, typer.Argument(help="Its name, or the beginning of it; default: all nodes.")
    ] = None,
    within: Annotated[
        float, typer.Option(min=0, help="Seconds after which running jobs are given back.")
    ] = 3600.0,
    wait: Annotated[bool, typer.Option(help="Wait until no job runs there.")] = True,
    undo: Annotated[bool, typer.Option("--undo", help="Let its workers take jobs again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drain a node: its workers take no more jobs; wait until running ones have ended. No job is lost."""
    from svac_backend.cli.cluster import run_drain

    run_drain(get_settings(), node, within_s=within, wait=wait, undo=undo, as_json=as_json)
