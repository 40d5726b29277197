"""What a drill found: named figures, each held against what is wanted, as a table and as JSON."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

Database = Literal["sqlite", "postgresql"]


@dataclass(frozen=True)
class Options:
    """How large a drill is.

    Attributes:
        rounds: of each fault.
        tasks: of each round.
        away_s: how long a fault lasts.
        patience_s: how long to wait for what should recover.
        requests: malformed ones; clients, slow, rate, load_s: of the load; events, jobs: rows of the growth.
        week: tasks of the week of use; bulk: of a whole project.
        database: `sqlite` or `postgresql`.
        seed: of every choice.
        keep: folder for data and logs that stay; a temporary one if None.
    """

    rounds: int = 3
    tasks: int = 4
    away_s: float = 60.0
    patience_s: float = 300.0
    requests: int = 2000
    clients: int = 50
    slow: int = 100
    rate: int = 200
    load_s: float = 60.0
    events: int = 1_000_000
    jobs: int = 100_000
    week: int = 100
    bulk: int = 200
    database: Database = "sqlite"
    seed: int = 0
    keep: Path | None = None

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Yield an empty folder for one drill."""
        if self.keep is None:
            with tempfile.TemporaryDirectory(prefix="svac-drill-", ignore_cleanup_errors=True) as made:
                yield Path(made)
        else:
            self.keep.mkdir(parents=True, exist_ok=True)
            yield Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.keep))


@dataclass(frozen=True)
class Figure:
    """A figure, the most that it may be (None: it is only told), and its unit."""

    name: str
    value: float
    most: float | None = None
    unit: str = ""

    @property
    def held(self) -> bool:
        """Whether it is within what is wanted."""
        return self.most is None or self.value <= self.most

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g}{' ' if self.unit else ''}{self.unit}"


@dataclass
class Outcome:
    """What one drill found.

    Attributes:
        name: of the drill.
        figures: what was counted and measured.
        note: how it was done where that is not always the same, and what people should look at.
    """

    name: str
    figures: list[Figure] = field(default_factory=list)
    note: str = ""

    @property
    def held(self) -> bool:
        """Whether all is as it should be."""
        return all(figure.held for figure in self.figures)

    @classmethod
    def broken(cls, name: str, why: str) -> Outcome:
        """Return what is said of a drill that could not be ended."""
        return cls(name, [Figure("not ended", 1, 0)], why)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """Read what `to_json` wrote."""
        figures = [Figure(**{k: v for k, v in one.items() if k != "held"}) for one in data["figures"]]
        return cls(data["name"], figures, data["note"])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        figures = [{**asdict(figure), "held": figure.held} for figure in self.figures]
        return {"name": self.name, "held": self.held, "figures": figures, "note": self.note}


@dataclass(frozen=True)
class Drill:
    """A drill: its name, what is done in a few words, what does it, and about how many seconds that takes."""

    name: str
    what: str
    run: Callable[[Options], Outcome]
    seconds: Callable[[Options], float]


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return what drills found; what did not hold says what was wanted."""
    found = Table(title="The drill", show_lines=True)
    for column in ("drill", "verdict", "figures", "note"):
        found.add_column(column, overflow="fold")
    for one in outcomes:
        figures = [f"{f}{'' if f.held else f', wanted at most {f.most:g}'}" for f in one.figures]
        found.add_row(one.name, "held" if one.held else "BROKEN", "\n".join(figures), one.note)
    return found
