"""Superlatives and order in time: what is true of one thing among those that a noun means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from svac_backend.synthetic.rich.clauses import Truth
from svac_backend.synthetic.rich.description import Array
from svac_backend.synthetic.rich.facts import NEVER, Events, Facts


@dataclass(frozen=True)
class Comparison:
    """A superlative: the thing with the largest value wins, if it wins clearly however one measures.

    Attributes:
        key, kind, needs_time, anchors: as in `clauses.Clause`.
        low, high: f64 [N], bounds of each thing's value; NaN where it is not certain. -inf never wins.
        ratio: the winner's `low` is at least so many times the others' `high`.
        margin: and larger by at least this.
        rivals: at least so many things (the winner among them) have a value at all.
    """

    key: str
    kind: str
    needs_time: bool
    low: Array
    high: Array
    ratio: float = 1.0
    margin: float = 0.0
    rivals: int = 2
    anchors: tuple[int, ...] = ()

    def among(self, members: Truth) -> Truth | None:
        """Return who wins among `members`, i8 [N]; None where nobody clearly does."""
        possible = np.flatnonzero(members >= 0)
        for anchor in self.anchors:
            possible = possible[possible != anchor]
        if len(possible) < 2 or np.isnan(self.low[possible]).any():
            return None
        low, high = self.low[possible], self.high[possible]
        if np.isfinite(high).sum() < self.rivals:
            return None
        best = int(low.argmax())
        others = max(h for n, h in enumerate(high.tolist()) if n != best)
        if members[possible[best]] != 1 or not np.isfinite(low[best]):
            return None
        if low[best] < others + self.margin or (self.ratio > 1 and low[best] < self.ratio * others):
            return None
        truth = np.full(len(members), -1, np.int8)
        truth[possible[best]] = 1
        return truth


def speeds_of(facts: Facts) -> tuple[Array, Array]:
    """Return bounds of each thing's speed, f64 [N] each: over all the time, and only while it moves."""
    speed = np.nan_to_num(facts.speed)
    seen = ~np.isnan(facts.speed)
    count = np.maximum(seen.sum(axis=-1), 1)
    overall = speed.sum(axis=-1) / count
    moving = seen & (speed > 0.12)
    busy = np.where(moving, speed, 0).sum(axis=-1) / np.maximum(moving.sum(axis=-1), 1)
    both = np.concatenate([overall, np.where(moving.any(axis=-1), busy, overall)])
    return both.min(axis=0), both.max(axis=0)


def comparisons(facts: Facts, events: Events, anchors: list[int]) -> Iterator[Comparison]:
    """Return all superlatives; `anchors` are things that can be named."""
    low, high = facts.radius[0].min(axis=1), facts.radius[0].max(axis=1)
    yield Comparison("largest", "size", False, low, high, ratio=1.22)
    yield Comparison("smallest", "size", False, 1 / high, 1 / low, ratio=1.22)
    # While something is out of the frame, where it is does not count; its nearest seen place stands for it.
    place = facts.xy[0]
    for key, axis, sign in (("leftmost", 0, -1), ("rightmost", 0, 1), ("highest", 1, -1), ("lowest", 1, 1)):
        x = sign * place[..., axis]
        yield Comparison(key, "position", False, x.min(axis=1), x.max(axis=1), margin=0.1)
    for x in anchors:
        distance = np.linalg.norm(place - place[x], axis=-1)
        near, far = distance.min(axis=1), np.maximum(distance.max(axis=1), 1e-6)
        together = (facts.observed & facts.observed[x]).mean(axis=1) >= 0.4
        near, far = np.where(together, near, np.nan), np.where(together, far, np.nan)
        yield Comparison(
            "nearest", "relation", False, 1 / far, 1 / np.maximum(near, 1e-6), ratio=1.25, anchors=(x,)
        )
        yield Comparison("farthest from", "relation", False, near, far, ratio=1.25, anchors=(x,))
    if facts.frames < 6:
        return
    slow, fast = speeds_of(facts)
    yield Comparison("fastest", "speed", True, np.where(slow > 0.25, slow, -np.inf), fast, ratio=1.4)
    crawl = np.where(slow >= 0.15, 1 / np.maximum(fast, 1e-6), np.nan)
    yield Comparison("slowest", "speed", True, crawl, 1 / np.maximum(slow, 1e-6), ratio=1.4)
    path = np.linalg.norm(np.diff(facts.xy, axis=2), axis=-1).sum(axis=-1)
    least = np.where(facts.observed.mean(axis=1) > 0.8, path.min(axis=0), np.nan)
    yield Comparison("moves farthest", "speed", True, least, path.max(axis=0), ratio=1.4, margin=0.15)
    gap = max(2.0, 0.11 * facts.frames)
    for key, when, kind in (
        ("to move", events.moves, "order"),
        ("to stop", events.stops, "order"),
        ("to enter", events.enters, "order"),
        ("to leave", events.leaves, "order"),
    ):
        # What never does it comes neither first nor last.
        early = np.where(when == NEVER, -np.inf, -when)
        late = np.where(when == NEVER, -np.inf, when)
        yield Comparison(f"first {key}", kind, True, early, early, margin=gap)
        yield Comparison(f"last {key}", kind, True, late, late, margin=gap)
