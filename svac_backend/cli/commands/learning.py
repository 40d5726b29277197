"""Commands for learning: `evaluate`, `finetune`, `corrections ...`, `versions ...`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from svac_backend.cli.commands.options import LAYOUTS, AsJson, Frames, OfProject, SplitName, VersionId, Yes
from svac_backend.cli.terminal import answer, get_settings

commands = typer.Typer()
PANEL = "Measuring and learning"

corrections = typer.Typer(help="What people corrected, and the model can learn from.", no_args_is_help=True)
versions = typer.Typer(help="Versions of the model that fine-tuning made.", no_args_is_help=True)
commands.add_typer(corrections, name="corrections", rich_help_panel=PANEL)
commands.add_typer(versions, name="versions", rich_help_panel=PANEL)


@commands.command(rich_help_panel=PANEL)
def evaluate(
    dataset: Annotated[str, typer.Option(help="mevis, ref-youtube-vos, ref-davis17 or revos.")],
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    split: Annotated[
        str | None, typer.Option(help="Default: the one that papers report, e.g. valid_u.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for predictions and results; default: out/<dataset>-<split>.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; on a GPU only one is used.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first videos, this many.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Score the predictions in this folder instead of predicting.")
    ] = None,
    zip_: Annotated[bool, typer.Option("--zip", help="Also write submission.zip.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the model on a benchmark: predictions, J and F, and a report. A run that was stopped resumes."""
    from svac_backend.cli.evaluate import run

    scores, files = run(
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
    about = None if scores is None else {figures.name: figures for figures in (*scores.types, scores.overall)}
    answer({"scores": about, "files": files}, files, as_json=as_json)


@commands.command(rich_help_panel=PANEL)
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
        int | None,
        typer.Option(min=1, help="Optimiser steps; default: depends on the number of corrections."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="End the training after this many minutes.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples per step.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Compute a step in this many parts; more need less memory.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of LoRA.")] = None,
    register: Annotated[
        bool, typer.Option(help="Register the version, and promote it if it is better.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Learn from corrections; the new version is promoted only if it measures better."""
    from svac_backend.cli.finetune import run

    changes = {"steps": steps, "max_minutes": minutes, "lr": lr}
    changes |= {"batch": batch, "accumulate": accumulate, "rank": rank}
    done = run(
        get_settings(),
        data=data,
        split=split,
        out=out,
        regression=regression,
        changes=changes,
        register=register,
    )
    if os.environ.get("RANK", "0") != "0":  # only the first of several processes prints
        return
    about = {"promoted": done.decision.promote, "reason": done.decision.reason, "steps": done.steps}
    about |= {"figures": done.decision.figures, "report": done.report, "adapter": done.adapter}
    answer(about, [done.report] if done.report else [], as_json=as_json)


@corrections.command("list")
def corrections_list(project: OfProject = None, as_json: AsJson = False) -> None:
    """Show what each annotation says about each object, and what could not be collected."""
    from svac_backend.cli.corrections import run_list

    run_list(get_settings(), project, as_json=as_json)


@corrections.command("show")
def corrections_show(
    annotation: Annotated[str, typer.Argument(help="Id of an annotation, or project/annotation.")],
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("correction.png"),
    pictures: Annotated[int, typer.Option(min=1, help="Most frames shown.")] = 12,
    as_json: AsJson = False,
) -> None:
    """Write a picture of an annotation's drawn and accepted frames with their masks."""
    from svac_backend.cli.corrections import run_show

    run_show(get_settings(), annotation, out, pictures=pictures)
    answer({"picture": out}, [out], as_json=as_json)


@corrections.command("export")
def corrections_export(
    out: Annotated[Path, typer.Option(help="A folder that is new or empty.")],
    project: OfProject = None,
    format_: Annotated[str, typer.Option("--format", help=f"{LAYOUTS}.")] = "mevis",
    split: SplitName = "train",
    frames: Frames = True,
    as_json: AsJson = False,
) -> None:
    """Write the corrections as a data set: the frames of each video that people drew or accepted."""
    from svac_backend.cli.corrections import run_export
    from svac_backend.datasets.layouts import DataSet

    run_export(get_settings(), DataSet(out, format_, split), project=project, frames=frames)
    answer({"folder": out}, [out], as_json=as_json)


@corrections.command("collect")
def corrections_collect() -> None:
    """Collect corrections from the webhooks that came in; the worker does so by itself."""
    from svac_backend.cli.corrections import run_collect

    run_collect(get_settings())


@versions.command("list")
def versions_list(as_json: AsJson = False) -> None:
    """Show the versions, their scores, and which one serves."""
    from svac_backend.cli.versions import run_list

    run_list(get_settings(), as_json=as_json)


@versions.command("promote")
def versions_promote(version: VersionId, yes: Yes = False, as_json: AsJson = False) -> None:
    """Make a version serve from now on; asks first if it did not measure better."""
    from svac_backend.cli.versions import run_promote

    serves = run_promote(get_settings(), version, yes=yes)
    answer({"serves": serves}, [serves] if serves else [], as_json=as_json)


@versions.command("rollback")
def versions_rollback(
    to: Annotated[
        str | None, typer.Option(help="A version that served before, or `base`; default: the previous one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the previous version serve again: its masks come back bit for bit."""
    from svac_backend.cli.versions import run_roll_back

    serves = run_roll_back(get_settings(), to)
    answer({"serves": serves}, [serves], as_json=as_json)


@versions.command("compare")
def versions_compare(
    first: VersionId,
    second: Annotated[
        str | None, typer.Argument(help="Another version; default: the one that the first was trained from.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show scores, lineage and data of two versions side by side."""
    from svac_backend.cli.versions import run_compare

    run_compare(get_settings(), first, second, as_json=as_json)


@versions.command("delete")
def versions_delete(version: VersionId, yes: Yes = False) -> None:
    """Delete a version that does not serve."""
    from svac_backend.cli.versions import run_delete

    run_delete(get_settings(), version, yes=yes)
