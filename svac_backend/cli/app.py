"""The command line, `svac-backend`: a function for each command, which says what it takes and what it is for."""

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
from rich.console import Console
from rich.text import Text

from svac_backend.cli.learning_groups import corrections, versions
from svac_backend.cli.storage_groups import media, models
from svac_backend.cli.terminal import get_settings
from svac_backend.errors import SvacError

main = typer.Typer(
    name="svac-backend",
    help="A sentence in, correctable masks on every frame of a video out.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
main.add_typer(models, name="models")
main.add_typer(media, name="media")
main.add_typer(corrections, name="corrections")
main.add_typer(versions, name="versions")
console = Console(stderr=True, highlight=False)

FrameHints = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt", "-p", help='What to segment; repeat it for more objects. "car: the red car" sets a label.'
    ),
]

LayoutName = Annotated[
    str | None, typer.Option("--format", help="Layout of the data set: davis, youtube-vis, mevis or coco.")
]
SplitName = Annotated[str, typer.Option(help="Split of the data set.")]


@main.command()
def prelabel(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    prompt: FrameHints = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    config: Annotated[
        Path | None, typer.Option(help="Labelling config; default: the shipped brush config.")
    ] = None,
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
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    config: Annotated[
        Path | None, typer.Option(help="Labelling config; default: the shipped brush config.")
    ] = None,
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
    prompt: FrameHints = None,
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
    from svac_backend.cli.import_command import run

    run(
        get_settings(),
        videos or [],
        prompt or [],
        project=project,
        create=create,
        config=config,
        predict=predictions,
        window=0 if whole else window,
        overlap=overlap,
        stride=stride,
        masks=masks,
        layout=format_,
        split=split,
        drawn=as_,
    )


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
    frames: Annotated[bool, typer.Option(help="Write the frames as JPEG, too.")] = True,
) -> None:
    """Write annotations or predictions as a data set; the windows of a video are joined."""
    from svac_backend.cli.export import run

    run(
        get_settings(),
        format_,
        out,
        project=project,
        file=from_,
        config=config,
        source=source,
        only_submitted=only_submitted,
        split=split,
        frames=frames,
    )


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
    """Measure the model on a benchmark: predictions, J and F, and a report; it goes on where it was stopped."""
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
        Path | None, typer.Option(help="Folder of the run; it goes on where it was stopped.")
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
    from svac_backend.cli.finetune import Changes, run

    changes = Changes(steps, minutes, lr, batch, accumulate, rank)
    run(
        get_settings(),
        data=data,
        split=split,
        out=out,
        regression=regression,
        changes=changes,
        register=register,
    )


def app() -> None:
    """Entry point: users see one sentence on what is wrong and one on what to do, not a traceback."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        logging.getLogger().setLevel(get_settings().log_level)
        main()
    except SvacError as error:
        # As text: a message may hold a path or a prompt with square brackets. Not wrapped: people copy from it.
        console.print(Text.assemble(("Error: ", "bold red"), error.message), soft_wrap=True)
        console.print(Text.assemble(("What to do: ", "bold"), error.hint), soft_wrap=True)
        sys.exit(1)
