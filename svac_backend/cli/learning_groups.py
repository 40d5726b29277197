"""The groups `corrections` and `versions` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from svac_backend.cli.terminal import get_settings

corrections = typer.Typer(help="What people corrected, and the model can learn from.", no_args_is_help=True)
versions = typer.Typer(help="Versions of the model that fine-tuning made.", no_args_is_help=True)

Project = Annotated[int | None, typer.Option(help="Id of a project; default: all.")]
VersionId = Annotated[str, typer.Argument(help="Its id, or the beginning of it.")]


@corrections.command("list")
def corrections_list(project: Project = None) -> None:
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
    project: Project = None,
    format_: Annotated[str, typer.Option("--format", help="davis, youtube-vis, mevis or coco.")] = "mevis",
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    frames: Annotated[bool, typer.Option(help="Write the frames as JPEG, too.")] = True,
) -> None:
    """Write what is learned from as a data set: of each video the frames that people drew or accepted."""
    from svac_backend.cli.corrections import run_export

    run_export(get_settings(), out, project=project, layout=format_, split=split, frames=frames)


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
def versions_promote(version: VersionId) -> None:
    """Have a version serve from now on."""
    from svac_backend.cli.versions import run_promote

    run_promote(get_settings(), version)


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
def versions_delete(
    version: VersionId, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Delete a version that does not serve."""
    from svac_backend.cli.versions import run_delete

    run_delete(get_settings(), version, yes=yes)
