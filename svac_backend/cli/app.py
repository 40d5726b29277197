"""The command line, `svac-backend`: the table of its commands, and how an error ends it."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.text import Text

from svac_backend.cli.commands import learning, operating, videos
from svac_backend.cli.terminal import console, get_settings, show_version
from svac_backend.errors import NotEnoughData, SettingsError, SvacError, start_logging

main = typer.Typer(
    name="svac-backend",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Groups without a name: their commands appear at the top level.
for group in (videos, learning, operating):
    main.add_typer(group.commands)


@main.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A sentence in, correctable masks on every frame of a video out."""


def app() -> None:
    """Entry point: users see one sentence on what is wrong and one on what to do, not a traceback."""
    start_logging("WARNING")
    try:
        logging.getLogger().setLevel(get_settings().log_level)
        main()
    except SvacError as error:
        # As plain text: a message may hold a path or a prompt with square brackets. Not wrapped: people copy from it.
        console.print(Text.assemble(("Error: ", "bold red"), error.message))
        console.print(Text.assemble(("What to do: ", "bold"), error.hint))
        # EX_CONFIG of sysexits.h tells supervisors not to restart it. Click uses 2 for wrong options.
        statuses: dict[type[SvacError], int] = {SettingsError: 78, NotEnoughData: 3}
        sys.exit(next((number for kind, number in statuses.items() if isinstance(error, kind)), 1))
