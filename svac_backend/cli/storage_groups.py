"""The groups `models` and `media` of the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from svac_backend.cli.terminal import get_settings

models = typer.Typer(help="List, download, verify and remove models.", no_args_is_help=True)
media = typer.Typer(
    name="media",
    help="Frames that the backend serves itself, and their links in tasks.",
    no_args_is_help=True,
)

ModelName = Annotated[
    str | None,
    typer.Argument(help="`owner/name[@revision]`, a folder, or an embedded model; default: SVAC_MODEL."),
]


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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a downloaded model from the hub's cache."""
    from svac_backend.cli.models import remove

    remove(name, yes=yes)


@media.command("renew")
def media_renew(
    every: Annotated[
        bool, typer.Option("--all", help="All tasks, not only those whose links are old.")
    ] = False,
) -> None:
    """Give tasks new links to their frames; the worker does it by itself, once a day."""
    from svac_backend.cli.media import run_renew

    run_renew(get_settings(), every=every)


@media.command("clean")
def media_clean(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete the frames of tasks that were deleted in Label Studio."""
    from svac_backend.cli.media import run_clean

    run_clean(get_settings(), yes=yes)
