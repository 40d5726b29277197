"""`svac-backend versions list | promote | rollback | compare | delete`: which version of the model serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import typer
from rich.markup import escape
from rich.table import Table

from svac_backend.cli.terminal import answer, console, rows_of
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.versions import BASE, Version, VersionState
from svac_backend.versions import Registry, change, compared, date_of

SERVES = (
    "Label Studio gets its predictions the next time it asks: open Settings > Model, or the Data Manager."
)


def run_list(settings: Settings, *, as_json: bool = False) -> None:
    """Print the versions of the model that the settings name, the newest first; the one that serves has a star."""
    with _registry(settings) as registry:
        base, serving, problem = registry.base, registry.serving(verify=True), registry.problem()
        table = Table("", "version", "state", "J&F held out", "regression", "learned from", "since", box=None)
        for version in registry.store.all(base):
            table.add_row(
                "*" if serving is not None and version.id == serving.id else "",
                escape(version.id),
                version.state.value,
                change(version.figures, "held_out"),
                change(version.figures, "regression"),
                _learned(version),
                date_of(version.created),
            )
        table.add_row("*" if serving is None else "", BASE, "", "", "", "", "")
        console.print(f"Versions of {escape(base)}")
        answer(rows_of(table), table, as_json=as_json)
        others = {version.base for version in registry.store.all()} - {base}
        if others:
            console.print(
                f"Others belong to {escape(', '.join(sorted(others)))}: see SVAC_MODEL and SVAC_PRESET."
            )
        if problem:
            console.print(f"[yellow]{escape(problem)}[/]")


def run_promote(settings: Settings, name: str, *, yes: bool = False) -> str | None:
    """Make a version serve from now on; ask first if it did not measure better. Return the name of what serves then.

    Raises:
        SvacError: there is no such version, it is damaged, or it belongs to another model.
    """
    with _registry(settings) as registry:
        version = registry.find(name)
        if version.state is VersionState.KEPT:
            console.print(f"[yellow]{escape(version.name)} was not good enough. {escape(version.reason)}[/]")
            if not yes and not typer.confirm("Promote it anyway?"):
                console.print("Nothing is changed.")
                return None
        told: list[str] = []
        registry.promote(version.id, told.append)
        _say(f"{version.name} serves. {SERVES}", *told)
        return version.name


def run_roll_back(settings: Settings, to: str | None) -> str:
    """Make the previous version, or an earlier one, serve again; return its name.

    Raises:
        SvacError: no version served before, or that one did not.
    """
    with _registry(settings) as registry:
        target = to if to in (None, BASE) else registry.store.find(str(to)).id
        told: list[str] = []
        registry.roll_back(target, told.append)
        _say(f"{registry.name()} serves again. {SERVES}", *told)
        return registry.name()


def run_compare(settings: Settings, first: str, second: str | None, *, as_json: bool = False) -> None:
    """Print what is known about two versions side by side; if only one is named, compare it with its parent.

    Raises:
        SvacError: there is no such version.
    """
    with _registry(settings) as registry:
        a = registry.store.find(first)
        name = second if second is not None else (a.parent or BASE)
        b = None if name == BASE else registry.store.find(name)
        table = Table("", escape(a.id), BASE if b is None else escape(b.id), box=None)
        for what, left, right in compared(a, b):
            table.add_row(what, escape(left), escape(right))
        answer(rows_of(table), table, as_json=as_json)
        if b is not None and a.parent != b.id and b.parent != a.id:
            console.print("Each was measured on the corrections held out in its own run, which may differ.")


def run_delete(settings: Settings, name: str, *, yes: bool = False) -> None:
    """Delete a version and its file.

    Raises:
        SvacError: there is no such version, or it serves.
    """
    with _registry(settings) as registry:
        version = registry.store.find(name)
        if not yes and not typer.confirm(f"Delete {version.name} ({version.state.value})?"):
            console.print("Nothing was deleted.")
            return
        registry.delete(version.id)
        console.print(f"{escape(version.name)} is deleted; {version.size / 1e6:.1f} MB are free again.")


def _say(*sentences: str) -> None:
    for sentence in sentences:
        console.print(escape(sentence))


@contextmanager
def _registry(settings: Settings) -> Iterator[Registry]:
    with closing(Database.from_settings(settings)) as database:
        yield Registry(settings, database)


def _learned(version: Version) -> str:
    if version.state is VersionState.DAMAGED:
        return escape(version.reason)
    count = version.data.get("corrections", version.data.get("examples"))
    return "" if count is None else f"{count} corrections"
