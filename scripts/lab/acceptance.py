"""Acceptance of a published model: is its J&F on a data set the one that was reported?

Downloads the model, checks its files, runs a clip, evaluates the data set as `svac-backend evaluate` does, and
compares.
What was predicted is kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from svac_backend.cli import evaluate, models
from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.svac.files.catalogue import PUBLISHED, SOURCES

# Points of J&F. bf16 on another GPU, and another decoder of the data set's pictures, moved published figures by tenths.
MARGIN = 1.0
ACCEPTED, REFUSED, NOTHING_TO_COMPARE = 0, 1, 3

console = Console(highlight=False, soft_wrap=True)


def reported(name: str, dataset: str, split: str) -> tuple[float, str] | None:
    """Return the J&F that was reported of a model on a split, and where; None where nothing was."""
    known = next((one for one in PUBLISHED if one.name == name.partition("@")[0]), None)
    if known is None:
        return None
    where = SOURCES.get(known.source, "")
    if dataset == "ref-davis17" and known.davis is not None:
        return known.davis, where
    if (
        dataset == "mevis"
        and known.mevis is not None
        and f"MeViS {split}" in where.replace(" (another split)", "")
    ):
        return known.mevis, where
    return None


def accept(
    name: str,
    root: Path,
    dataset: str,
    *,
    split: str | None = None,
    out: Path | None = None,
    expect: float | None = None,
    margin: float = MARGIN,
    limit: int | None = None,
) -> int:
    """Run a model on a data set and compare.

    Args:
        name: a hub repository, an embedded model or a folder.
        root: the data set's folder.
        dataset: its name; see `svac-backend evaluate`.
        split: of the data set; None takes the one that papers report.
        out: where predictions and report go.
        expect: J&F to compare with; None takes what was reported.
        margin: points of J&F by which the figure may differ.
        limit: the first so many videos; the comparison then says nothing about the whole, and is not made.

    Returns:
        `ACCEPTED`, `REFUSED`, or `NOTHING_TO_COMPARE`.

    Raises:
        SvacError: the model or the data set can't be used.
    """
    settings = Settings(model=name)
    models.download(name)
    models.verify(name)
    models.check(settings, name)
    out = out or Path("out") / f"accept-{name.replace('/', '-').replace('@', '-')}-{dataset}"
    evaluate.run(settings, dataset, root, split=split, out=out, limit=limit)
    path = out / "results.json"
    if not path.is_file():
        raise SvacError(
            f"{dataset} in {root} has no masks of this split, so nothing can be compared.",
            "Take a split with public masks, e.g. --split valid_u of MeViS.",
        )
    results = json.loads(path.read_text())
    figure = float(results["overall"]["j_and_f"])
    whole = results["videos"] == results["videos_of_the_split"]
    known = (expect, "given by --expect") if expect is not None else reported(name, dataset, results["split"])
    if known is None or not whole:
        why = "only a part was evaluated" if not whole else "no figure of it is known; give one with --expect"
        console.print(
            f"{name} on {dataset} {results['split']}: J&F {figure:.1f}. Nothing to compare with: {why}."
        )
        return NOTHING_TO_COMPARE
    wanted, where = known
    good = abs(figure - wanted) <= margin
    console.print(
        f"{name} on {dataset} {results['split']}: J&F {figure:.1f}; {wanted:.1f} was reported ({where}). "
        f"The difference of {figure - wanted:+.1f} is {'within' if good else 'beyond'} the margin of {margin:.1f}."
    )
    return ACCEPTED if good else REFUSED


def main(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="`owner/name[@revision]`, or a folder.")],
    root: Annotated[Path, typer.Option(help="The data set's folder.")],
    dataset: Annotated[
        str, typer.Option(help="ref-davis17, or mevis for anything in MeViS's layout.")
    ] = "ref-davis17",
    split: Annotated[str | None, typer.Option(help="Default: the one that papers report.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for predictions and report.")] = None,
    expect: Annotated[
        float | None, typer.Option(help="J&F to compare with; default: what was reported.")
    ] = None,
    margin: Annotated[float, typer.Option(min=0, help="Points of J&F by which it may differ.")] = MARGIN,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many videos, to try it out.")] = None,
) -> None:
    """Download a published model, evaluate it on a data set, and compare its J&F with the reported one.

    Exit status: 0 within the margin, 1 beyond it, 3 when there is nothing to compare with, 2 for anything else.
    """
    try:
        status = accept(name, root, dataset, split=split, out=out, expect=expect, margin=margin, limit=limit)
    except SvacError as error:
        console.print(str(error))
        raise typer.Exit(2) from error
    raise typer.Exit(status)


if __name__ == "__main__":
    typer.run(main)
