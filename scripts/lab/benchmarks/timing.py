"""Timing of several ways to do one thing, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Case = TypeVar("Case")


@dataclass(frozen=True)
class Timing:
    """How long one contender took.

    Attributes:
        best_ms: mean over the cases of the fastest of the rounds, in milliseconds: what the code can do.
        median_ms: mean over the cases of the median of the rounds: what to expect on this machine as it is now.
    """

    best_ms: float
    median_ms: float


def side_by_side(
    contenders: Mapping[str, Callable[[Case], object]], cases: Iterable[Case], *, rounds: int = 5
) -> dict[str, Timing]:
    """Time every contender on every case.

    The contenders take turns within each round, so that whatever else the machine does meets all of them alike. The
    first call of each on the first case is not counted.

    Args:
        contenders: name -> function of one case; its result is dropped.
        cases: inputs, one at a time, at least one.
        rounds: repetitions of each case, at least 1.

    Raises:
        ValueError: no case or no round.
    """
    if rounds < 1:
        raise ValueError("Give at least one round.")
    best: dict[str, list[float]] = {name: [] for name in contenders}
    median: dict[str, list[float]] = {name: [] for name in contenders}
    warm = False
    for case in cases:
        if not warm:
            for run in contenders.values():
                run(case)
            warm = True
        spent: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                start = time.perf_counter()
                run(case)
                spent[name].append((time.perf_counter() - start) * 1000)
        for name, times in spent.items():
            best[name].append(min(times))
            median[name].append(statistics.median(times))
    if not warm:
        raise ValueError("Give at least one case.")
    return {name: Timing(statistics.fmean(best[name]), statistics.fmean(median[name])) for name in contenders}
