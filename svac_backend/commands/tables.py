"""Tables of the command line."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

# Columns of a table that goes into a file or another program: nothing is cut off there.
WIDE = 240


def show_table(table: Table) -> None:
    """Print a table: as wide as the terminal, or as it needs to be elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print(table)
