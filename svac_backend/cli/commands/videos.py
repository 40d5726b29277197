"""Commands for videos: `prelabel`, `propagate`, `import`, `export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from svac_backend.cli.commands.options import (
    LAYOUTS,
    AsJson,
    Config,
    Frames,
    LayoutName,
    Prompts,
    Results,
    Specks,
    SplitName,
    with_specks,
)
from svac_backend.cli.terminal import answer, console, get_settings
from svac_backend.errors import SvacError

commands = typer.Typer()
PANEL = "Videos and data sets"


@commands.command(rich_help_panel=PANEL)
def prelabel(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    prompt: Prompts = None,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Make an object of each thing that a prompt refers to, as with `each:`."
        ),
    ] = False,
    specks: Specks = None,
    out: Results = Path("out"),
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Segment a video: tracks, Label Studio results, an overlay video and a contact sheet. Prints their paths."""
    from svac_backend.cli.prelabel import run

    written = run(with_specks(get_settings(), specks), video, prompt or [], out, config, instances=instances)
    answer(written, written.files, as_json=as_json)


@commands.command("prelabel-project", rich_help_panel=PANEL)
def prelabel_project(
    project: Annotated[int, typer.Option(help="Id of the project.")],
    ahead: Annotated[
        int,
        typer.Option(min=1, max=10_000, help="Jobs that wait or run at the same time; two for each worker."),
    ] = 100,
    wait: Annotated[bool, typer.Option(help="Wait until all is done.")] = True,
    as_json: AsJson = False,
) -> None:
    """Have the workers pre-label all tasks without a prediction. Prints the ids of those to check, the worst first."""
    from svac_backend.cli.prelabel_project import run

    run(get_settings(), str(project), ahead, wait=wait, as_json=as_json)


@commands.command(rich_help_panel=PANEL)
def propagate(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    masks: Annotated[
        Path | None,
        typer.Option(help="Masks as PNG: DIR/<object>/<frame>.png, or DIR/<frame>.png as in DAVIS."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="A point on an object: obj1:12:340,200 (frame 12, x, y).")
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option(help="A point off the object, in the same form.")
    ] = None,
    box: Annotated[list[str] | None, typer.Option(help="A box around it: obj1:12:300,180,420,260.")] = None,
    tracks: Annotated[
        Path | None, typer.Option(help="A tracks.json of this video whose objects to correct.")
    ] = None,
    specks: Specks = None,
    out: Results = Path("out"),
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Propagate masks, points and boxes from some frames to all others; writes what prelabel writes."""
    from svac_backend.cli.propagate import run

    written = run(
        with_specks(get_settings(), specks),
        video,
        out,
        masks=masks,
        points=point or [],
        negatives=negative or [],
        boxes=box or [],
        tracks_file=tracks,
        config_file=config,
    )
    answer(written, written.files, as_json=as_json)


@commands.command("import", rich_help_panel=PANEL)
def import_(
    videos: Annotated[list[Path] | None, typer.Argument(help="Video files.")] = None,
    prompt: Prompts = None,
    project: Annotated[int | None, typer.Option(help="Id of an existing project.")] = None,
    create: Annotated[str | None, typer.Option(help="Title of a project to create.")] = None,
    config: Annotated[Path | None, typer.Option(help="Labelling config of the new project.")] = None,
    predictions: Annotated[bool, typer.Option(help="Pre-label the videos now.")] = True,
    window: Annotated[int, typer.Option(min=0, help="Most frames per task; 0 is --whole.")] = 100,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Frames that neighbouring tasks share; 4 by default.")
    ] = None,
    stride: Annotated[int, typer.Option(min=1, help="Show only every n-th frame.")] = 1,
    whole: Annotated[bool, typer.Option("--whole", help="Make one task per video, however long.")] = False,
    masks: Annotated[
        Path | None, typer.Option(help="A data set whose masks to import; videos are then optional.")
    ] = None,
    format_: LayoutName = None,
    split: SplitName = "train",
    as_: Annotated[
        str, typer.Option("--as", help="What masks become: predictions or annotations.")
    ] = "predictions",
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="A CSV list with the columns video, prompts, labels, project."),
    ] = None,
    connect: Annotated[
        bool, typer.Option(help="Connect the backend, and its webhook, to a project of --create.")
    ] = True,
    backend_url: Annotated[
        str | None,
        typer.Option(help="How Label Studio reaches the backend; default: SVAC_HOST and SVAC_PORT."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import videos and prompts, or a data set's masks, into a Label Studio project; prints the tasks' ids."""
    from svac_backend.cli.doctor.backend import backend_address, default_url
    from svac_backend.cli.import_masks import import_masks
    from svac_backend.cli.import_videos import import_rows, import_videos
    from svac_backend.cli.imported import Imported, Row, import_list
    from svac_backend.cli.projects import Destination
    from svac_backend.datasets.layouts import DataSet
    from svac_backend.datasets.windows import Windowing

    settings, windowing = get_settings(), Windowing(0 if whole else window, overlap, stride)
    url = backend_address(backend_url) if backend_url else default_url(settings)

    def destination(number: int | None, title: str | None) -> Destination:
        its_config = config if title is not None or config is None or number == project else None
        return Destination(number, title, its_config, url if connect and title is not None else None)

    def told(*found: Imported) -> None:
        answer(found[0] if from_ is None else found, (t for one in found for t in one.tasks), as_json=as_json)

    if from_ is not None:
        if videos or prompt or masks or format_:
            raise SvacError(
                "--from LIST says which videos and prompts there are.",
                "Leave the videos, --prompt, --masks and --format out.",
            )

        def some(rows: Sequence[Row], number: int | None, title: str | None) -> Imported:
            return import_rows(settings, rows, destination(number, title), windowing, predict=predictions)

        windowing.check()
        lists = import_list(from_, project, create, some)
        told(*lists)
        failed = [one for found in lists for one in found.failed]
        for one in sorted(failed, key=lambda one: one.place):
            where = Text.assemble((f"Line {one.place}, {one.file} was not imported. ", "bold red"))
            console.print(where.append(f"{one.error} {one.hint}", style="not bold"))
        if failed:
            raise typer.Exit(1)
        return
    if masks is None:
        if videos and format_ is not None:
            raise SvacError("--format belongs to --masks.", "Give --masks DIR, or leave --format out.")
        target = destination(project, create)
        told(import_videos(settings, videos or [], prompt or [], target, windowing, predict=predictions))
        return
    if prompt:
        raise SvacError(
            "--prompt does not go with --masks: the data set itself names its objects.",
            "Leave --prompt out, or import the videos without --masks.",
        )
    data_set, target = DataSet(masks, format_, split), destination(project, create)
    told(import_masks(settings, data_set, videos or [], target, windowing, become=as_))


@commands.command(rich_help_panel=PANEL)
def export(
    format_: Annotated[str, typer.Option("--format", help=f"Layout of the data set: {LAYOUTS}.")],
    out: Annotated[Path, typer.Option(help="A folder that is new or empty.")],
    project: Annotated[int | None, typer.Option(help="Id of a project.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Instead, a file that Label Studio exported as JSON.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Labelling config of the project that --from came from.")
    ] = None,
    source: Annotated[str, typer.Option(help="annotations or predictions.")] = "annotations",
    only_submitted: Annotated[
        bool, typer.Option("--only-submitted", help="Leave out what was saved but not submitted.")
    ] = False,
    split: SplitName = "train",
    frames: Frames = True,
    as_json: AsJson = False,
) -> None:
    """Write annotations or predictions as a data set, with the windows of a video joined. Prints the folder."""
    from svac_backend.cli.export import ExportSource, run
    from svac_backend.datasets.layouts import DataSet
    from svac_backend.datasets.reading import Choice

    what = ExportSource(Choice(source, only_submitted), project, from_, config)
    done = run(get_settings(), what, DataSet(out, format_, split), frames=frames)
    answer(done, [done.folder], as_json=as_json)
