"""Scores of the rich benchmark by kind of expression: rows of single expressions, and their means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from svac_backend.errors import SvacError
from svac_backend.synthetic.rich.phrases import GROUPS

ABSENT = "absent"
MOTION = "motion"
GROUP_NAMES: tuple[str, ...] = tuple(dict.fromkeys(GROUPS.values()))


@dataclass(frozen=True)
class ExpressionResult:
    """One expression and how it was met.

    Attributes:
        video, expression: its keys in the benchmark.
        text, kind, group, needs_time, novel: as in `synthetic.rich.phrases`.
        j, f: 0..100; of something absent, 100 on each frame whose mask is empty.
        chance: J&F of a thing of the scene taken at random, the right one included, 0..100.
        other: J&F of a thing that is not meant, taken at random; without one, 0.
        frames: frames of the video.
        drawn: frames with a mask, where the expression is of something absent; else None.
    """

    video: str
    expression: str
    text: str
    kind: str
    group: str
    needs_time: bool
    novel: tuple[str, ...]
    j: float
    f: float
    chance: float
    other: float
    frames: int
    drawn: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What names it within the benchmark."""
        return self.video, self.expression

    @property
    def j_and_f(self) -> float:
        """Mean of J and F, 0..100."""
        return (self.j + self.f) / 2


@dataclass(frozen=True)
class MeanResult:
    """Means over expressions, 0..100; see `ExpressionResult`."""

    name: str
    count: int
    j: float
    f: float
    j_and_f: float
    chance: float
    other: float


@dataclass(frozen=True)
class Absence:
    """What happens to expressions of things that are not there.

    Attributes:
        count: such expressions.
        drawn: per cent of them that get a mask on any frame.
        frames: per cent of their frames that get a mask.
    """

    count: int
    drawn: float
    frames: float


def mean_of(name: str, rows: Sequence[ExpressionResult]) -> MeanResult:
    """Return the means of rows, at least one."""
    keys = ("j", "f", "j_and_f", "chance", "other")
    return MeanResult(name, len(rows), *(float(np.mean([getattr(row, key) for row in rows])) for key in keys))


def by(
    rows: Iterable[ExpressionResult], key: Callable[[ExpressionResult], str], order: Sequence[str]
) -> dict[str, MeanResult]:
    """Return the means of rows that have one key in common, in the given order; keys without a row are left out."""
    sorted_in: dict[str, list[ExpressionResult]] = {}
    for row in rows:
        sorted_in.setdefault(key(row), []).append(row)
    return {name: mean_of(name, sorted_in[name]) for name in order if name in sorted_in}


def by_kind(rows: Iterable[ExpressionResult]) -> dict[str, MeanResult]:
    """Return the means by kind of expression."""
    return by(rows, lambda row: row.kind, tuple(GROUPS))


def by_group(rows: Iterable[ExpressionResult]) -> dict[str, MeanResult]:
    """Return the means by group of kinds."""
    return by(rows, lambda row: row.group, GROUP_NAMES)


def absence_of(rows: Iterable[ExpressionResult]) -> Absence | None:
    """Return what happens to things that are not there; None without such an expression."""
    found = [(row.drawn, row.frames) for row in rows if row.drawn is not None]
    if not found:
        return None
    drawn = float(np.mean([100.0 * (count > 0) for count, _ in found]))
    return Absence(len(found), drawn, float(np.mean([100.0 * count / frames for count, frames in found])))


@dataclass(frozen=True)
class Measured:
    """What a model was measured at.

    Attributes:
        model_version: name and hash of the weights.
        rows: one per expression, by video.
    """

    model_version: str
    rows: tuple[ExpressionResult, ...]

    @property
    def videos(self) -> int:
        """Number of videos."""
        return len({row.video for row in self.rows})

    def save(self, path: Path) -> None:
        """Write it as JSON, with the means beside the rows."""
        content: dict[str, Any] = {
            "model_version": self.model_version,
            "overall": asdict(mean_of("overall", self.rows)),
            "groups": [asdict(figures) for figures in by_group(self.rows).values()],
            "kinds": [asdict(figures) for figures in by_kind(self.rows).values()],
        }
        content["rows"] = [asdict(row) for row in self.rows]
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Measured:
        """Read what `save` wrote.

        Raises:
            SvacError: it is missing or something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(content["model_version"], tuple(row_of(entry) for entry in content["rows"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SvacError(
                f"{path} holds no measured figures ({error}).", "Measure the model again."
            ) from error


def row_of(entry: dict[str, Any]) -> ExpressionResult:
    """Return a row that was written as JSON. Raises TypeError where fields are others."""
    return ExpressionResult(**{**entry, "novel": tuple(entry["novel"])})
