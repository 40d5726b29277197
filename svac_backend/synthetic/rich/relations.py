"""What can be said of a thing beside others: relations to one, superlatives and order in time among many.

Each is true, false or doubtful, as in `clauses`; a superlative is meant among the things that a noun means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.rich.clauses import Clause, Truth, verdict
from svac_backend.synthetic.rich.description import NEVER, Array, Events, Facts


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


_SIDES = {"left of": (-1.0, 0.0), "right of": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}
# Both things must be seen together on this share of the clip.
_TOGETHER = 0.4


def relation_clauses(facts: Facts, anchors: Iterator[int] | list[int]) -> Iterator[Clause]:
    """Return what is said of things beside the things `anchors`, which can be named."""
    named = list(anchors)
    for x in named:
        together = facts.observed & facts.observed[x]
        enough = together.mean(axis=1) >= _TOGETHER
        yield from _sides(facts, x, together, enough)
        yield from _layers(facts, x, together)
        yield from _sizes(facts, x)
        if facts.frames >= 6:
            yield from _moving(facts, x, enough)
    for x, y in combinations(named, 2):
        yield Clause("between", "relation", _between(facts, x, y), False, (x, y))


def _except(truth: Truth, *others: int) -> Truth:
    """Nothing stands in a relation to itself."""
    truth[list(others)] = -1
    return truth


def _sides(facts: Facts, x: int, together: NDArray[np.bool_], enough: NDArray[np.bool_]) -> Iterator[Clause]:
    offset = facts.xy[0] - facts.xy[0, x]  # [N, T, 2]
    for key, unit in _SIDES.items():
        along, across = offset @ np.array(unit), np.abs(offset @ np.array(unit[::-1]))
        yes = (along >= 0.1) & (across <= 1.4 * along)
        true = (yes | ~together).all(axis=1) & enough
        false = ((along <= -0.02) | ~together).all(axis=1) & enough
        yield Clause(key, "relation", _except(verdict(true[None], false[None]), x), False, (x,))


def _layers(facts: Facts, x: int, together: NDArray[np.bool_]) -> Iterator[Clause]:
    # Discs say little about how far a guitar reaches: only those far apart surely never touch.
    distance = np.linalg.norm(facts.xy[0] - facts.xy[0, x], axis=-1)
    apart = (distance >= 1.6 * (facts.radius[0] + facts.radius[0, x])).all(axis=1)
    order = np.arange(facts.count)
    for key, share, other_way in (
        ("in front of", facts.covered[x], order < x),
        ("behind", facts.covered[:, x], order > x),
    ):
        some = ((share >= 0.5) & together).mean(axis=1) >= 0.15
        yield Clause(key, "relation", _except(verdict(some[None], (apart | other_way)[None]), x), False, (x,))


def _sizes(facts: Facts, x: int) -> Iterator[Clause]:
    low, high = facts.radius[0].min(axis=1), facts.radius[0].max(axis=1)
    larger, smaller = low >= 1.22 * high[x], high * 1.22 <= low[x]
    yield Clause("larger than", "size", _except(verdict(larger[None], smaller[None]), x), False, (x,))
    yield Clause("smaller than", "size", _except(verdict(smaller[None], larger[None]), x), False, (x,))


def _moving(facts: Facts, x: int, enough: NDArray[np.bool_]) -> Iterator[Clause]:
    low, high = speeds_of(facts)
    faster, slower = (low >= 1.4 * high[x]) & (low > 0.2), high * 1.4 <= low[x]
    if low[x] >= 0.15:
        yield Clause("faster than", "speed", _except(verdict(faster[None], slower[None]), x), True, (x,))
        slow = slower & (low >= 0.15)
        yield Clause("slower than", "speed", _except(verdict(slow[None], faster[None]), x), True, (x,))
    follows = np.stack([_follow(facts, x, n) for n in range(facts.count)])
    yield Clause("follow", "relation_time", _except(follows, x), True, (x,))
    followed = np.stack([_follow(facts, n, x) for n in range(facts.count)])
    yield Clause("followed by", "relation_time", _except(followed, x), True, (x,))
    passes = np.stack([_passes(facts, x, n) for n in range(facts.count)])
    yield Clause("pass", "relation_time", _except(passes, x), True, (x,))

    distance = np.linalg.norm(facts.xy - facts.xy[:, x][:, None], axis=-1)  # [R, N, T]
    rests = np.ptp(facts.xy[:, x], axis=1).max() <= 0.04
    nearer, farther = facts.rise(-distance), facts.rise(distance)
    for key, way, back in (("approach", nearer, farther), ("away", farther, nearer)):
        true = (way >= 0.25) & (back <= 0.04) & enough & rests
        if key == "approach":
            true &= distance[..., -1] <= 0.5
        yield Clause(key, "relation_time", _except(verdict(true, way <= 0.06), x), True, (x,))


def _net(facts: Facts, n: int) -> tuple[Array, Array]:
    """Return way and heading of a thing from its first to its last frame, [R], [R, 2]."""
    way = facts.xy[:, n, -1] - facts.xy[:, n, 0]
    length = np.linalg.norm(way, axis=-1)
    return length, way / np.maximum(length, 1e-9)[:, None]


def _follow(facts: Facts, x: int, n: int) -> np.int8:
    """Judge whether n follows x: the same way, straight, and behind it all the time."""
    (mine, heading), (other, lead) = _net(facts, n), _net(facts, x)
    together = facts.observed[n] & facts.observed[x]
    if n == x or together.mean() < _TOGETHER:
        return np.int8(0)
    offset = (facts.xy[:, x] - facts.xy[:, n])[:, together]  # [R, t, 2]
    ahead = np.einsum("rtk,rk->rt", offset, heading)
    aside = np.abs(np.einsum("rtk,rk->rt", offset, heading[:, ::-1] * [1, -1]))
    reach = facts.radius[:, n].max() + facts.radius[:, x].max()
    same = np.einsum("rk,rk->r", heading, lead)
    moving = (mine >= 0.2) & (other >= 0.2)
    close = (ahead.min(axis=1) >= 0.4 * reach) & (ahead.max(axis=1) <= 1.7 * reach + 0.05)
    true = moving & (same >= 0.92) & close & (aside.max(axis=1) <= 0.12)
    false = (mine <= 0.06) | (other <= 0.06) | (same <= 0.3) | (ahead.max(axis=1) <= 0)
    false |= aside.min(axis=1) >= 0.35
    return np.int8(1 if true.all() else -1 if false.all() else 0)


def _passes(facts: Facts, x: int, n: int) -> np.int8:
    """Judge whether n moves past x, which stays where it is."""
    way, heading = _net(facts, n)
    together = facts.observed[n] & facts.observed[x]
    extent = np.ptp(facts.xy[:, n], axis=1).max()
    if n == x or (together.mean() < _TOGETHER and extent > 0.04):
        return np.int8(0)
    offset = facts.xy[:, n] - facts.xy[:, x]  # [R, T, 2]
    along = np.einsum("rtk,rk->rt", offset, heading)
    aside = np.abs(np.einsum("rtk,rk->rt", offset, heading[:, ::-1] * [1, -1]))
    rests = np.ptp(facts.xy[:, x], axis=1).max() <= 0.04
    before, after = -along[:, 0], along[:, -1]
    path = np.linalg.norm(np.diff(facts.xy[:, n], axis=1), axis=-1).sum(axis=-1)
    straight = path <= 1.1 * way + 0.01
    true = (way >= 0.3) & (np.minimum(before, after) >= 0.12) & (aside.max(axis=1) <= 0.38) & straight & rests
    false = (extent <= 0.04) | (
        ((before <= -0.05) | (after <= -0.05) | (aside.min(axis=1) >= 0.6)) & straight
    )
    return np.int8(1 if true.all() else -1 if false.all() else 0)


def _between(facts: Facts, x: int, y: int) -> Truth:
    """Judge which things stand between x and y on all frames that show the three."""
    truth = np.zeros(facts.count, np.int8)
    a, b = facts.xy[0, x], facts.xy[0, y]
    line = b - a
    length = np.maximum(np.linalg.norm(line, axis=-1), 1e-9)
    for n in range(facts.count):
        together = facts.observed[n] & facts.observed[x] & facts.observed[y]
        if together.mean() < _TOGETHER:
            continue
        offset = facts.xy[0, n] - a
        share = (offset * line).sum(axis=-1) / length**2
        aside = np.abs(offset[:, 0] * line[:, 1] - offset[:, 1] * line[:, 0]) / length
        yes = (share >= 0.2) & (share <= 0.8) & (aside <= 0.16) & (aside <= 0.4 * length)
        no = (share <= 0.03) | (share >= 0.97) | (aside >= 0.34)
        truth[n] = 1 if yes[together].all() else -1 if no[together].all() else 0
    return _except(truth, x, y)
