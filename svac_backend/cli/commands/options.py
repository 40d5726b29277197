"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from svac_backend.settings import Settings

Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        "-p",
        help='What to segment; repeat it for more objects. "car: the red car" sets a label, '
        '"each: the dogs" makes an object of every dog.',
    ),
]
Specks = Annotated[
    float | None,
    typer.Option(
        min=0, max=0.99, help="Drop islands and holes below this share of a mask; default: SVAC_SPECK_SHARE."
    ),
]

# The same as `datasets.layouts.FORMATS`, which is slow to import; a test compares them.
LAYOUTS = "davis, youtube-vos, youtube-vis, mevis, coco, yolo or mots"
LayoutName = Annotated[str | None, typer.Option("--format", help=f"Layout of the data set: {LAYOUTS}.")]
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
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
JobIds = Annotated[list[str], typer.Argument(help="Their ids, or the beginnings of them.")]


def with_specks(settings: Settings, share: float | None) -> Settings:
    """Return the settings with a command's own share, if one was given."""
    return settings if share is None else settings.model_copy(update={"speck_share": share})
