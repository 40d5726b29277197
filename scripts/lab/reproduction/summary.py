"""From the lines of `results.jsonl` to means over sentences and their spread over seeds. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from lab.reproduction.results import Line

# The first of these that is there is what the others of its claim are compared with.
REFERENCE = {"frames": "full-1", "tokens": "astc", "csa": "one"}
# Mean speed of the target in the frame, in short sides per clip: bounds are not above, and the name.
SPEEDS: tuple[tuple[float, str], ...] = (
    (0.18, "still: up to 0.18"),
    (0.5, "slow: 0.18 to 0.5"),
    (0.8, "medium: 0.5 to 0.8"),
    (float("inf"), "fast: over 0.8"),
)
GROUPS: dict[str, str] = {
    "all": "all sentences",
    "time": "needs time",
    "moment": "needs no time",
    "absent": "absent",
    **{name: name for _, name in SPEEDS},
}


@dataclass(frozen=True)
class Spread:
    """Seeds' values.

    Attributes:
        mean: over the seeds.
        deviation: their standard deviation (n - 1); None of one seed.
        count: sentences, over all seeds.
    """

    mean: float
    deviation: float | None
    count: int

    def __str__(self) -> str:
        """Return `mean ± deviation`."""
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


@dataclass(frozen=True)
class SummaryRow:
    """A variant over its seeds.

    Attributes:
        line: its first line, for what does not depend on the seed.
        seeds: whose lines there are.
        groups: J&F of the groups of sentences that there are.
        differences: J&F minus that of the claim's reference, seed by seed; of the seeds that both have.
        cost: medians of `vision_ms`, `prefill_ms` and `peak_mb`; None where nothing is known.
    """

    line: Line
    seeds: tuple[int, ...]
    groups: dict[str, Spread]
    differences: dict[str, Spread]
    cost: dict[str, float | None]

    @property
    def borrowed(self) -> bool:
        """Whether it was run with weights that were adapted to another variant."""
        return self.line["weights_of"] != self.line["variant"] and adapted(self.line)


def adapted(line: Line) -> bool:
    """Return whether anything was trained for the line."""
    return bool(line["settings"]["adaptation"]["steps"])


def rows_of(lines: Sequence[Line], claim: str) -> list[SummaryRow]:
    """Return the variants of a claim, in the order in which they came."""
    by_variant: dict[str, dict[int, Line]] = {}
    for line in sorted((x for x in lines if x["claim"] == claim), key=lambda x: x["seed"]):
        by_variant.setdefault(line["variant"], {})[line["seed"]] = line
    reference = by_variant.get(REFERENCE[claim], {})
    rows = []
    for name, by_seed in by_variant.items():
        means = {seed: _means(line["scores"]) for seed, line in by_seed.items()}
        known = {seed: _means(line["scores"]) for seed, line in reference.items() if seed in by_seed}
        shared = {
            seed: {g: (means[seed][g][0] - old[g][0], old[g][1]) for g in old.keys() & means[seed].keys()}
            for seed, old in known.items()
        }
        rows.append(
            SummaryRow(
                line=next(iter(by_seed.values())),
                seeds=tuple(by_seed),
                groups=_spreads(means),
                differences={} if name == REFERENCE[claim] else _spreads(shared),
                cost={k: _median(by_seed.values(), k) for k in ("vision_ms", "prefill_ms", "peak_mb")},
            )
        )
    return rows


def speed_name(speed: float) -> str:
    """Return the name of the bin of a speed."""
    return next(name for bound, name in SPEEDS if speed <= bound)


def _means(scores: Sequence[Sequence[Any]]) -> dict[str, tuple[float, int]]:
    """Return the mean and number of each group of one seed's sentences."""
    tests: dict[str, Callable[[Any], bool]] = {
        "all": lambda row: True,
        "time": lambda row: bool(row[1]) and row[0] != "absent",
        "moment": lambda row: not row[1] and row[0] != "absent",
        "absent": lambda row: row[0] == "absent",
        **{n: lambda row, n=n: row[2] is not None and speed_name(row[2]) == n for _, n in SPEEDS},  # type: ignore[misc]
    }
    found = {name: [row[3] for row in scores if test(row)] for name, test in tests.items()}
    return {name: (fmean(values), len(values)) for name, values in found.items() if values}


def _spreads(by_seed: dict[int, dict[str, tuple[float, int]]]) -> dict[str, Spread]:
    found = {}
    for group in GROUPS:
        values = [means[group] for means in by_seed.values() if group in means]
        if values:
            means_only = [mean for mean, _ in values]
            deviation = stdev(means_only) if len(means_only) > 1 else None
            found[group] = Spread(fmean(means_only), deviation, sum(count for _, count in values))
    return found


def _median(lines: Any, key: str) -> float | None:
    values = [line[key] for line in lines if line[key] is not None]
    return median(values) if values else None
