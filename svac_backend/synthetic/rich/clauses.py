"""What can be said of a thing by itself: each statement is true, false or doubtful of every thing.

Between true and false lies a margin in which people would differ; there a statement is doubtful, and a sentence that it
would decide is not made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.rich.description import NEVER, Array, Events, Facts
from svac_backend.synthetic.rich.programs import UNIT

Truth = NDArray[np.int8]


@dataclass(frozen=True)
class Clause:
    """A statement.

    Attributes:
        key: which words say it, see `wording`.
        kind: of the expression that it makes.
        truth: i8 [N]: 1 true, 0 doubtful, -1 false.
        needs_time: whether more than one frame is needed to know.
        anchors: the other things that it speaks of.
    """

    key: str
    kind: str
    truth: Truth
    needs_time: bool
    anchors: tuple[int, ...] = ()


def verdict(true: NDArray[np.bool_], false: NDArray[np.bool_]) -> Truth:
    """Join the readings [R, N]: true or false where all of them are."""
    return np.where(true.all(axis=0), 1, np.where(false.all(axis=0), -1, 0)).astype(np.int8)


def own_clauses(facts: Facts, events: Events) -> Iterator[Clause]:
    """Return all that is said of a thing without comparing it to others."""
    yield from _positions(facts)
    yield from _sizes(facts)
    if facts.frames >= 6:
        yield from _directions(facts)
        yield from _paths(facts, events)
        yield from _changes(facts)
        yield from _events(facts, events)


def _directions(facts: Facts) -> Iterator[Clause]:
    forward: dict[str, Array] = {}
    for name, unit in UNIT.items():
        along, across = facts.xy @ np.array(unit), facts.xy @ np.array(unit[::-1])
        forth, back, aside = facts.rise(along), facts.rise(-along), np.ptp(across, axis=-1)
        forward[name] = forth
        true = (forth >= 0.2) & (back <= 0.02 + 0.1 * forth) & (aside <= 0.45 * forth)
        yield Clause(f"move {name}", "motion", verdict(true, forth <= 0.08), True)
    for vertical in ("up", "down"):
        for sideways in ("left", "right"):
            one, other = forward[vertical], forward[sideways]
            low, high = np.minimum(one, other), np.maximum(one, other)
            back = np.maximum(forward[_OPPOSITE[vertical]], forward[_OPPOSITE[sideways]])
            true = (low >= 0.18) & (high <= 2.0 * low) & (back <= 0.04) & _straight(facts)
            yield Clause(f"move {vertical} {sideways}", "motion", verdict(true, low <= 0.07), True)


_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


def _straight(facts: Facts) -> NDArray[np.bool_]:
    """Return whether the way is hardly longer than the line from start to end, bool [R, N]."""
    steps = np.linalg.norm(np.diff(facts.xy, axis=2), axis=-1).sum(axis=-1)
    line = np.linalg.norm(facts.xy[:, :, -1] - facts.xy[:, :, 0], axis=-1)
    return np.asarray(steps <= 1.08 * line + 0.01)


def _paths(facts: Facts, events: Events) -> Iterator[Clause]:
    extent = np.ptp(facts.xy, axis=2).max(axis=-1)
    turned = np.abs(facts.angle - facts.angle[:, :1]).max(axis=1)
    scaled = facts.radius.max(axis=2) / facts.radius.min(axis=2)
    alive = (turned > 0.35) | (scaled > 1.2)  # it moves in a way, though it stays where it is
    still = (extent <= 0.03) & ~alive
    moves = (extent >= 0.16) & (np.nanmax(facts.speed, axis=-1, initial=0.0) > 0.2)
    yield Clause("still", "motion", verdict(still, extent >= 0.12), True)
    yield Clause("moving", "motion", verdict(moves, still), True)

    turns = np.array(
        [[_turning(track[a : b + 1]) for track, a, b in _seen(facts, r)] for r in _readings(facts)]
    )
    total, signed, sharpest, reversals, depth = np.moveaxis(turns, -1, 0)
    round_ = (np.abs(signed) >= 1.6 * np.pi) & (total <= 1.12 * np.abs(signed)) & (sharpest <= 0.3 * np.pi)
    plain = total <= 0.6 * np.pi
    yield Clause("circle", "motion", verdict(round_, (plain & (reversals == 0)) | (extent <= 0.05)), True)
    # What spins "turns" too.
    calm = ((extent <= 0.05) | ((reversals == 0) & (depth <= 0.03))) & (turned <= 0.35)
    once, often = reversals == 1, reversals >= 2
    line = ~round_ & (sharpest > 0.6 * np.pi)
    yield Clause("turn round", "motion", verdict(once & line & (total <= 1.3 * np.pi), calm), True)
    yield Clause("back and forth", "motion", verdict(often & line, calm), True)
    changes = line | ((sharpest > 0.3 * np.pi) & (total <= 0.8 * np.pi) & (total >= 0.35 * np.pi))
    straight = (total <= 0.12 * np.pi) | (extent <= 0.03)
    yield Clause("change direction", "motion", verdict(changes & (extent > 0.15), straight & calm), True)
    yield Clause("bounce", "motion", _bounces(facts), True)


def _readings(facts: Facts) -> range:
    return range(len(facts.xy))


def _seen(facts: Facts, reading: int) -> Iterator[tuple[Array, int, int]]:
    return zip(facts.xy[reading], facts.first.tolist(), facts.last.tolist(), strict=True)


def _turning(track: Array) -> tuple[float, float, float, float, float]:
    """Return of one track [T, 2]: sum of turns, signed sum, sharpest turn (radians), reversals, depth of the largest.

    Steps too short to have a direction are joined to the next. A reversal is a turning point along the longer
    axis after at least 0.13 each way.
    """
    kept = [track[0]]
    for point in track[1:]:
        if abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) > 0.012:
            kept.append(point)
    points = np.array(kept)
    total = signed = sharpest = 0.0
    if len(points) >= 3:
        steps = np.diff(points, axis=0)
        heading = np.arctan2(steps[:, 1], steps[:, 0])
        turns = (np.diff(heading) + np.pi) % (2 * np.pi) - np.pi
        total, signed = float(np.abs(turns).sum()), float(turns.sum())
        sharpest = float(np.abs(turns).max())
    axis = int(np.ptp(track, axis=0).argmax())
    count, depth = _reversals(track[:, axis].tolist())
    return total, signed, sharpest, float(count), depth


def _reversals(values: list[float], least: float = 0.13) -> tuple[int, float]:
    """Return the number of turning points with at least `least` of way on both sides, and the largest way back."""
    sign = 1.0 if values[-1] >= values[0] else -1.0
    low, back = np.inf, 0.0
    for value in values[::-1]:
        low = min(low, sign * value)
        back = max(back, sign * value - low)
    extreme, direction, count = values[0], 0.0, 0
    lowest = highest = values[0]
    for value in values:
        if direction == 0:
            lowest, highest = min(lowest, value), max(highest, value)
            if highest - lowest >= least:
                direction = 1.0 if value == highest else -1.0
                extreme = value
        elif direction * (value - extreme) >= 0:
            extreme = value
        elif direction * (extreme - value) >= least:
            count, direction, extreme = count + 1, -direction, value
    return count, back


def _bounces(facts: Facts) -> Truth:
    """Return who turns back at the frame's edge; the frame's reading alone knows the edge."""
    found = np.zeros(facts.count, np.int8)
    for n in range(facts.count):
        xy, radius = facts.xy[0, n], facts.radius[0, n]
        clear = False
        for axis in (0, 1):
            x = xy[:, axis]
            for low in (True, False):
                t = int(x.argmin() if low else x.argmax())
                edge = x[t] if low else facts.span[axis] - x[t]
                back = min(np.abs(x[: t + 1] - x[t]).max(), np.abs(x[t:] - x[t]).max())
                clear |= bool(back >= 0.12 and edge <= 1.3 * radius[t])
        straight = all(_reversals(xy[:, axis].tolist())[1] <= 0.03 for axis in (0, 1))
        found[n] = 1 if clear else -int(straight)
    return found


def _changes(facts: Facts) -> Iterator[Clause]:
    log = np.log(facts.radius)
    up, down = facts.rise(log), facts.rise(-log)
    big, none = np.log(1.45), np.log(1.1)
    yield Clause("grow", "change", verdict((up >= big) & (down <= none), up <= none), True)
    yield Clause("shrink", "change", verdict((down >= big) & (up <= none), down <= none), True)
    turned = np.abs(facts.angle[:, -1] - facts.angle[:, 0])[None]
    # What is out of sight for a part of its turn shows less of it.
    whole = facts.observed.mean(axis=1)[None] > 0.8
    yield Clause(
        "spin",
        "change",
        verdict((turned >= 1.6 * np.pi) & whole, (turned <= 0.1 * np.pi) & ~facts.round),
        True,
    )


def _events(facts: Facts, events: Events) -> Iterator[Clause]:
    for key, when, kind in (
        ("start", events.starts, "speed"),
        ("stop", events.stops, "speed"),
        ("enter", events.enters, "presence"),
        ("leave", events.leaves, "presence"),
    ):
        truth = np.where(np.isnan(when), 0, np.where(when == NEVER, -1, 1)).astype(np.int8)
        yield Clause(key, kind, truth, True)
    inside = facts.inside.min(axis=1)
    whole = np.where(inside > 0.7, 1, np.where(facts.gone.any(axis=1), -1, 0)).astype(np.int8)
    yield Clause("whole time", "presence", whole, True)
    for name in UNIT:
        # It comes from the left if it first shows at the left edge and moves to the right.
        opposite = np.array(UNIT[_OPPOSITE[name]])
        inwards = facts.rise(facts.xy[0] @ opposite)
        edge = _depth(facts, name)
        near, far = np.take_along_axis(edge, facts.first[:, None], 1)[:, 0], edge.max(axis=1)
        came = np.isfinite(events.enters)
        sure = came & (near <= 0.12) & (inwards >= 0.15) & (far >= 0)
        elsewhere = (events.enters == NEVER) | (came & (near > 0.3))
        yield Clause(f"enter {name}", "presence", verdict(sure[None], elsewhere[None]), True)


def _depth(facts: Facts, side: str) -> Array:
    """Return how far a thing's centre is from an edge, f64 [N, T]."""
    axis = 0 if side in {"left", "right"} else 1
    x = facts.xy[0, :, :, axis]
    return x if side in {"left", "up"} else facts.span[axis] - x


def _always(test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether a test [N, T] holds on all frames, as one reading [1, N]."""
    return np.asarray(test.all(axis=1))[None]


def _positions(facts: Facts) -> Iterator[Clause]:
    place = facts.xy[0] / np.asarray(facts.span)  # [N, T, 2], held while out of the frame
    single: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for axis, (low, high) in enumerate((("left", "right"), ("top", "bottom"))):
        x = place[..., axis]
        single[low], single[high] = (x <= 0.36, x >= 0.56), (x >= 0.64, x <= 0.44)
    off = np.abs(place - 0.5).max(axis=-1)
    single["middle"] = (off <= 0.13, off >= 0.22)
    for name, (yes, no) in single.items():
        yield Clause(f"at {name}", "position", verdict(_always(yes), _always(no)), False)
        if name != "middle" and facts.frames >= 6:
            moved = np.ptp(place, axis=1).max(axis=-1) > 0.1
            for key, t in (("begin", 0), ("end", -1)):
                whole = np.where(facts.inside[:, t] > 0.7, 1, 0).astype(np.int8)
                at = verdict((yes[:, t] & moved)[None], no[:, t][None]) * whole
                yield Clause(f"{key} at {name}", "position", at.astype(np.int8), True)
    for vertical in ("top", "bottom"):
        for sideways in ("left", "right"):
            yes = _always(single[vertical][0] & single[sideways][0])
            no = _always(single[vertical][1] | single[sideways][1])
            yield Clause(f"at {vertical} {sideways}", "position", verdict(yes, no), False)


def _sizes(facts: Facts) -> Iterator[Clause]:
    largest, smallest = facts.radius[0].max(axis=1)[None], facts.radius[0].min(axis=1)[None]
    yield Clause("large", "size", verdict(smallest >= 0.165, largest <= 0.135), False)
    yield Clause("small", "size", verdict(largest <= 0.1, smallest >= 0.115), False)
