"""The command line, `svac-backend`: one table of all commands; each says what it takes and what it is for."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

# Worker, server and Label Studio share the cores: threads that spin while they wait starve the others.
# libgomp reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from rich.text import Text

from svac_backend.cli.terminal import console, get_settings, show_version
from svac_backend.errors import SettingsError, SvacError, start_logging

main = typer.Typer(
    name="svac-backend",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(help="List, download, verify and remove models.", no_args_is_help=True)
media = typer.Typer(
    help="Frames that the backend serves itself, and their links in tasks.", no_args_is_help=True
)
corrections = typer.Typer(help="What people corrected, and the model can learn from.", no_args_is_help=True)
versions = typer.Typer(help="Versions of the model that fine-tuning made.", no_args_is_help=True)
main.add_typer(models, name="models")
main.add_typer(media, name="media")
main.add_typer(corrections, name="corrections")
main.add_typer(versions, name="versions")

Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt", "-p", help='What to segment; repeat it for more objects. "car: the red car" sets a label.'
    ),
]

LayoutName = Annotated[
    str | None, typer.Option("--format", help="Layout of the data set: davis, youtube-vis, mevis or coco.")
]
SplitName = Annotated[str, typer.Option(help="Split of the data set.")]
Frames = Annotated[bool, typer.Option(help="Write the frames as JPEG, too.")]
Config = Annotated[Path | None, typer.Option(help="Labelling config; default: the shipped brush config.")]
Results = Annotated[Path, typer.Option(help="Folder for the results.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
OfProject = Annotated[int | None, typer.Option(help="Id of a project; default: all.")]
VersionId = Annotated[str, typer.Argument(help="Its id, or the beginning of it.")]
ModelName = Annotated[
    str | None,
    typer.Argument(help="`owner/name[@revision]`, a folder, or an embedded model; default: SVAC_MODEL."),
]


@main.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A sentence in, correctable masks on every frame of a video out."""


@main.command()
def prelabel(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    prompt: Prompts = None,
    out: Results = Path("out"),
    config: Config = None,
) -> None:
    """Segment a video: tracks, Label Studio results, an overlay video and a contact sheet."""
    from svac_backend.cli.prelabel import run

    run(get_settings(), video, prompt or [], out, config)


@main.command()
def propagate(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    masks: Annotated[
        Path | None,
        typer.Option(help="Masks as PNG: DIR/<object>/<frame>.png, or DIR/<frame>.png as DAVIS has them."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="A point on an object: obj1:12:340,200 (frame 12, x, y).")
    ] = None,
    negative: Annotated[list[str] | None, typer.Option(help="A point beside it, in the same form.")] = None,
    box: Annotated[list[str] | None, typer.Option(help="A box around it: obj1:12:300,180,420,260.")] = None,
    tracks: Annotated[
        Path | None, typer.Option(help="A tracks.json of this video, whose objects are corrected.")
    ] = None,
    out: Results = Path("out"),
    config: Config = None,
) -> None:
    """Carry masks, points and boxes from some frames to all others; writes what prelabel writes."""
    from svac_backend.cli.propagate import run

    run(
        get_settings(),
        video,
        out,
        masks=masks,
        points=point or [],
        negatives=negative or [],
        boxes=box or [],
        tracks_file=tracks,
        config_file=config,
    )


@main.command("import")
def import_(
    videos: Annotated[list[Path] | None, typer.Argument(help="Video files.")] = None,
    prompt: Prompts = None,
    project: Annotated[int | None, typer.Option(help="Id of an existing project.")] = None,
    create: Annotated[str | None, typer.Option(help="Title of a project to create.")] = None,
    config: Annotated[Path | None, typer.Option(help="Labelling config of the new project.")] = None,
    predictions: Annotated[bool, typer.Option(help="Pre-label the videos now.")] = True,
    window: Annotated[int, typer.Option(min=0, help="Most frames of a task; 0 is --whole.")] = 100,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Frames that neighbouring tasks share; 4 by default.")
    ] = None,
    stride: Annotated[int, typer.Option(min=1, help="Show every so many frames.")] = 1,
    whole: Annotated[bool, typer.Option("--whole", help="One task for each video, however long.")] = False,
    masks: Annotated[
        Path | None, typer.Option(help="A data set whose masks are brought in; videos are optional then.")
    ] = None,
    format_: LayoutName = None,
    split: SplitName = "train",
    as_: Annotated[
        str, typer.Option("--as", help="What masks become: predictions or annotations.")
    ] = "predictions",
) -> None:
    """Bring videos and prompts, or a data set's masks, into a Label Studio project."""
    from svac_backend.cli.import_masks import import_masks
    from svac_backend.cli.import_videos import import_videos
    from svac_backend.cli.projects import Destination
    from svac_backend.datasets.layouts import DataSet
    from svac_backend.datasets.windows import Windowing

    settings, windowing = get_settings(), Windowing(0 if whole else window, overlap, stride)
    if masks is None:
        if videos and format_ is not None:
            raise SvacError("--format belongs to --masks.", "Give --masks DIR, or leave --format out.")
        destination = Destination(project, create, config)
        import_videos(settings, videos or [], prompt or [], destination, windowing, predict=predictions)
        return
    if prompt:
        raise SvacError(
            "--prompt does not go with --masks: the data set says what its masks are.",
            "Leave --prompt out, or import the videos without --masks.",
        )
    data_set, destination = DataSet(masks, format_, split), Destination(project, create, config)
    import_masks(settings, data_set, videos or [], destination, windowing, become=as_)


@main.command()
def export(
    format_: LayoutName = None,
    out: Annotated[Path | None, typer.Option(help="A folder that is new or empty.")] = None,
    project: Annotated[int | None, typer.Option(help="Id of a project.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Or a file that Label Studio exported as JSON.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Labelling config of the project that --from came from.")
    ] = None,
    source: Annotated[str, typer.Option(help="annotations or predictions.")] = "annotations",
    only_submitted: Annotated[
        bool, typer.Option("--only-submitted", help="Leave out what was saved and not submitted.")
    ] = False,
    split: SplitName = "train",
    frames: Frames = True,
) -> None:
    """Write annotations or predictions as a data set; the windows of a video are joined."""
    from svac_backend.cli.export import ExportSource, run
    from svac_backend.datasets.layouts import FORMATS, DataSet
    from svac_backend.datasets.reading import Choice

    what = ExportSource(Choice(source, only_submitted), project, from_, config)
    if format_ is None or out is None:
        raise SvacError(
            "An export has a format and a folder.", f"Give --format {' | '.join(FORMATS)} and --out DIR."
        )
    run(get_settings(), what, DataSet(out, format_, split), frames=frames)


@main.command()
def serve() -> None:
    """Run the web process that Label Studio talks to."""
    from svac_backend.server.app import serve as run

    run(get_settings())


@main.command()
def worker() -> None:
    """Run the worker that owns the model."""
    from svac_backend.jobs.worker import run

    run(get_settings())


@main.command()
def doctor(
    backend_url: Annotated[
        str | None,
        typer.Option(help="How Label Studio reaches the backend; default: SVAC_HOST and SVAC_PORT."),
    ] = None,
    project: Annotated[int | None, typer.Option(help="Check this project's config and backends too.")] = None,
) -> None:
    """Check settings, tokens and the way between backend and Label Studio in both directions."""
    from svac_backend.cli.doctor.command import run

    raise typer.Exit(run(get_settings(), backend_url, project))


@main.command()
def ready(
    worker: Annotated[
        bool, typer.Option("--worker", help="Only whether this host's worker is well.")
    ] = False,
) -> None:
    """Say whether tasks that are sent now get masks; if not, why, with exit status 1. For health checks."""
    from svac_backend.jobs.services import open_services, reasons_not_ready, reasons_worker_not_ready

    services = open_services(get_settings())
    reasons = reasons_worker_not_ready(services) if worker else reasons_not_ready(services)
    for reason in reasons:
        console.print(reason, style="red")
    if reasons:
        raise typer.Exit(1)
    console.print("ready", style="green")


@main.command()
def evaluate(
    dataset: Annotated[str, typer.Option(help="mevis, ref-youtube-vos, ref-davis17 or revos.")],
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    split: Annotated[
        str | None, typer.Option(help="Default: the one that papers report, e.g. valid_u.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for predictions and results; default: out/<dataset>-<split>.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; one is used on a GPU.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many videos only.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Score the predictions of this folder; predict nothing.")
    ] = None,
    zip_: Annotated[bool, typer.Option("--zip", help="Also write submission.zip.")] = False,
) -> None:
    """Measure the model on a benchmark: predictions, J and F, and a report; a run that was stopped resumes."""
    from svac_backend.cli.evaluate import run

    run(
        get_settings(),
        dataset,
        root,
        split=split,
        out=out,
        workers=workers,
        limit=limit,
        predictions=predictions,
        zipped=zip_,
    )


@main.command()
def finetune(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder in the layout of MeViS; default: the corrections that were collected."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data to learn from.")] = "train",
    regression: Annotated[
        str | None, typer.Option(help="Split of --data that the new version must not get worse on.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; a run that was stopped resumes.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; default: by the corrections.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Training ends after so many minutes.")] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples of a step.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Parts that a step is computed in; more need less memory.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of LoRA.")] = None,
    register: Annotated[
        bool, typer.Option(help="Register the version, and promote it if it is better.")
    ] = True,
) -> None:
    """Learn from corrections; only a version that is measured to be better is promoted."""
    from svac_backend.cli.finetune import run

    changes = {"steps": steps, "max_minutes": minutes, "lr": lr}
    changes |= {"batch": batch, "accumulate": accumulate, "rank": rank}
    run(
        get_settings(),
        data=data,
        split=split,
        out=out,
        regression=regression,
        changes=changes,
        register=register,
    )


@models.command("list")
def models_list() -> None:
    """Show the models that are here, and the published ones that could be."""
    from svac_backend.cli.models import show

    show(get_settings())


@models.command("download")
def models_download(name: ModelName = None) -> None:
    """Download a model from the hub; files that are here already are kept."""
    from svac_backend.cli.models import download

    download(name or get_settings().model)


@models.command("verify")
def models_verify(name: ModelName = None) -> None:
    """Check every file's hash, every tensor's header, and that weights, config and tokenizer belong together."""
    from svac_backend.cli.models import verify

    verify(name or get_settings().model)


@models.command("remove")
def models_remove(
    name: Annotated[str, typer.Argument(help="`owner/name[@revision]`; without a revision all of them.")],
    yes: Yes = False,
) -> None:
    """Delete a downloaded model from the hub's cache."""
    from svac_backend.cli.models import remove

    remove(name, yes=yes)


@main.command()
def backup(file: Annotated[Path, typer.Argument(help="The backup, a tar file.")]) -> None:
    """Write all that must survive into one file; everything may run on meanwhile."""
    from svac_backend.cli.storage import run_backup

    run_backup(get_settings(), file)


@main.command()
def restore(file: Annotated[Path, typer.Argument(help="A backup.")]) -> None:
    """Put a backup in place of what the data folder holds, which is kept beside it."""
    from svac_backend.cli.storage import run_restore

    run_restore(get_settings(), file)


@main.command()
def storage() -> None:
    """Show what takes the room in the data folder, and how long it is kept."""
    from svac_backend.cli.storage import run_storage

    run_storage(get_settings())


@media.command("renew")
def media_renew(
    every: Annotated[
        bool, typer.Option("--all", help="All tasks, not only those whose links are old.")
    ] = False,
) -> None:
    """Give tasks new links to their frames; the worker does it by itself, once a day."""
    from svac_backend.cli.storage import run_renew

    run_renew(get_settings(), every=every)


@media.command("clean")
def media_clean(yes: Yes = False) -> None:
    """Delete the frames of tasks that were deleted in Label Studio."""
    from svac_backend.cli.storage import run_clean

    run_clean(get_settings(), yes=yes)


@corrections.command("list")
def corrections_list(project: OfProject = None) -> None:
    """Show whose annotation says what of which object, and what could not be collected."""
    from svac_backend.cli.corrections import run_list

    run_list(get_settings(), project)


@corrections.command("show")
def corrections_show(
    annotation: Annotated[str, typer.Argument(help="Id of an annotation, or project/annotation.")],
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("correction.png"),
    pictures: Annotated[int, typer.Option(min=1, help="Most frames shown.")] = 12,
) -> None:
    """Write a picture of an annotation's frames and masks: drawn or accepted."""
    from svac_backend.cli.corrections import run_show

    run_show(get_settings(), annotation, out, pictures=pictures)


@corrections.command("export")
def corrections_export(
    out: Annotated[Path, typer.Option(help="A folder that is new or empty.")],
    project: OfProject = None,
    format_: Annotated[str, typer.Option("--format", help="davis, youtube-vis, mevis or coco.")] = "mevis",
    split: SplitName = "train",
    frames: Frames = True,
) -> None:
    """Write what is learned from as a data set: of each video the frames that people drew or accepted."""
    from svac_backend.cli.corrections import run_export
    from svac_backend.datasets.layouts import DataSet

    run_export(get_settings(), DataSet(out, format_, split), project=project, frames=frames)


@corrections.command("collect")
def corrections_collect() -> None:
    """Make corrections of the webhooks that came; the worker does it by itself."""
    from svac_backend.cli.corrections import run_collect

    run_collect(get_settings())


@versions.command("list")
def versions_list() -> None:
    """Show the versions, their figures, and which one serves."""
    from svac_backend.cli.versions import run_list

    run_list(get_settings())


@versions.command("promote")
def versions_promote(version: VersionId, yes: Yes = False) -> None:
    """Have a version serve from now on; asks first where it was measured to be no better."""
    from svac_backend.cli.versions import run_promote

    run_promote(get_settings(), version, yes=yes)


@versions.command("rollback")
def versions_rollback(
    to: Annotated[
        str | None, typer.Option(help="A version that served before, or `base`; default: the one before.")
    ] = None,
) -> None:
    """Have the version serve that served before: its masks come back bit for bit."""
    from svac_backend.cli.versions import run_roll_back

    run_roll_back(get_settings(), to)


@versions.command("compare")
def versions_compare(
    first: VersionId,
    second: Annotated[
        str | None, typer.Argument(help="Another; default: the one that the first was trained on from.")
    ] = None,
) -> None:
    """Show figures, lineage and data of two versions side by side."""
    from svac_backend.cli.versions import run_compare

    run_compare(get_settings(), first, second)


@versions.command("delete")
def versions_delete(version: VersionId, yes: Yes = False) -> None:
    """Delete a version that does not serve."""
    from svac_backend.cli.versions import run_delete

    run_delete(get_settings(), version, yes=yes)


def app() -> None:
    """Entry point: users see one sentence on what is wrong and one on what to do, not a traceback."""
    start_logging("WARNING")
    try:
        logging.getLogger().setLevel(get_settings().log_level)
        main()
    except SvacError as error:
        # As text: a message may hold a path or a prompt with square brackets. Not wrapped: people copy from it.
        console.print(Text.assemble(("Error: ", "bold red"), error.message))
        console.print(Text.assemble(("What to do: ", "bold"), error.hint))
        # EX_CONFIG of sysexits.h: supervisors need not start it again.
        sys.exit(78 if isinstance(error, SettingsError) else 1)
