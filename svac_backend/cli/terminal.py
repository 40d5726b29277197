"""What all commands share: settings with readable errors, progress bars, answers, counted nouns.

Answers (ids, paths, tables) go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from svac_backend import __version__
from svac_backend import settings as settings_module
from svac_backend.errors import SettingsError
from svac_backend.settings import Settings

console = Console(stderr=True, highlight=False, soft_wrap=True)
# Called with 0..1.
Progress = Callable[[float], None]


@contextmanager
def bar(name: str) -> Iterator[Progress]:
    """Show a progress bar; yield a function that moves it to a fraction 0..1. It vanishes at the end.

    If the output is not a terminal, nothing is shown: a log has no use for bars.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with ProgressBar(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(name, total=1.0)
        yield lambda done: progress.update(task, completed=done)


# Width, in characters, of a table that goes to a file or another program, where nothing may be cut off.
WIDE = 240


def show_table(table: Table) -> None:
    """Print a table, as wide as the terminal, or as wide as it needs to be elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print(table)


def answer(content: Any, lines: Iterable[object] | Table, *, as_json: bool) -> None:
    """Print a command's answer on standard output, as JSON, or else as lines or a table."""
    if as_json:
        # Printed whole: no terminal's width cuts it.
        print(json.dumps(content, indent=2, default=_plain, ensure_ascii=False))  # noqa: T201
    elif isinstance(lines, Table):
        show_table(lines)
    else:
        for line in lines:
            print(line)  # noqa: T201


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def rows_of(table: Table) -> list[dict[str, str]]:
    """Return a table's rows as column name -> plain text."""
    names = [str(column.header) or "serves" for column in table.columns]
    cells = [[Text.from_markup(str(cell)).plain for cell in column.cells] for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def show_version(wanted: bool) -> None:
    """If wanted, print the version on standard output and exit."""
    if wanted:
        print(f"svac-backend {__version__}")  # noqa: T201 (its answer)
        raise typer.Exit


def get_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        SettingsError: a setting has an invalid value; the value is not shown, since it may be a secret.
    """
    try:
        _name_unknown_variables()
        return settings_module.get_settings()
    except ValidationError as error:
        problems = [
            f"SVAC_{'_'.join(map(str, problem['loc'])).upper()} ({problem['msg'].lower()})"
            for problem in error.errors(include_input=False, include_context=False, include_url=False)
        ]
        raise SettingsError(
            f"A setting cannot be used: {', '.join(problems)}.",
            "Correct it in the environment or in the file .env; .env.example explains each setting.",
        ) from None


@lru_cache(maxsize=1)
def _name_unknown_variables() -> None:
    """Warn once of variables that are not settings: otherwise nobody would notice a misspelt name."""
    for name, meant in settings_module.unknown_variables().items():
        console.print(
            f"There is no setting {name}.{f' Did you mean {meant}?' if meant else ''}", style="yellow"
        )


def counted(number: int, what: str) -> str:
    """Return e.g. `1 frame`, `2 frames`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
