"""What can be measured about the things of a scene, from its description alone.

Motions are measured twice where the camera moves: in the frame and in the world. What differs between the two is
not said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.rich.description import Array, Description
from svac_backend.synthetic.rich.kinds import ROUND

Bool = NDArray[np.bool_]
# Speeds in short sides per clip: from where on something moves, and up to where it stands still.
MOVING, STANDING = 0.18, 0.085
# The share of a thing within the frame from which on it counts as seen.
_IN = 0.5
NEVER = np.inf


@dataclass(frozen=True)
class Facts:
    """Measurements of N things over T frames, in R readings (frame, and world if the camera moves).

    Attributes:
        xy: f64 [R, N, T, 2], centres; while a thing is outside the frame, where it was seen first or last.
        radius: f64 [R, N, T], likewise.
        speed: f64 [R, N, T - 1], short sides per clip; NaN outside the frame.
        observed: bool [N, T], within the frame.
        inside: f64 [N, T], share within the frame.
        gone: bool [N, T], wholly outside.
        angle: f64 [N, T].
        round: bool [N], of a kind whose turning nobody can see.
        covered: f64 [N, N, T], share of the row's thing that the column's thing hides.
        span: of the frame.
        first, last: i64 [N], first and last frame on which it is observed.
    """

    xy: Array
    radius: Array
    speed: Array
    observed: Bool
    inside: Array
    gone: Bool
    angle: Array
    round: Bool
    covered: Array
    span: tuple[float, float]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of things."""
        return len(self.observed)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.observed.shape[1]

    def rise(self, x: Array) -> Array:
        """Return the largest way forward between two times, [..., T] -> [...]."""
        return np.asarray((x - np.minimum.accumulate(x, axis=-1)).max(axis=-1))


def measure(scene: Description) -> Facts:
    """Measure a scene."""
    inside = scene.inside()
    observed = inside > 0.3
    first = observed.argmax(axis=1)
    last = observed.shape[1] - 1 - observed[:, ::-1].argmax(axis=1)
    image_xy, image_radius = scene.image_xy(), scene.image_radius()
    readings = [(image_xy, image_radius)]
    if not scene.camera.steady:
        tracks = [thing.track for thing in scene.things]
        readings.append((np.stack([k.xy for k in tracks]), np.stack([k.radius for k in tracks])))
    xy, radius = np.stack([r[0] for r in readings]), np.stack([r[1] for r in readings])
    frames = observed.shape[1]
    times = np.clip(np.arange(frames), first[:, None], last[:, None])  # [N, T]
    xy = np.take_along_axis(xy, times[None, :, :, None], axis=2)
    radius = np.take_along_axis(radius, times[None], axis=2)
    speed = np.linalg.norm(np.diff(xy, axis=2), axis=-1) * max(frames - 1, 1)
    pairs = np.arange(max(frames - 1, 0))
    within = (pairs >= first[:, None]) & (pairs < last[:, None])
    return Facts(
        xy=xy,
        radius=radius,
        speed=np.where(within, speed, np.nan),
        observed=observed,
        inside=inside,
        gone=scene.gone(),
        angle=np.stack([thing.track.angle for thing in scene.things]),
        round=np.array([thing.look.kind in ROUND for thing in scene.things]),
        covered=scene.covered(),
        span=scene.span,
        first=first,
        last=last,
    )


@dataclass(frozen=True)
class Events:
    """When things happen, in frames; f64 [N] each. `NEVER`: certainly not; NaN: not certain.

    Attributes:
        starts: it stood still, then moves on to the end or nearly so. First frame of moving.
        stops: it moved, then stands still to the end. First frame of standing.
        enters: it was not in the frame and comes in. First frame on which it is seen.
        leaves: it was in the frame and goes out. First frame on which it is gone.
        moves: first frame of moving, 0 for what moves from the beginning.
    """

    starts: Array
    stops: Array
    enters: Array
    leaves: Array
    moves: Array


def events_of(facts: Facts) -> Events:
    """Find the events of each thing; readings that differ by more than a frame make it uncertain."""
    rows: dict[str, list[float]] = {name: [] for name in ("starts", "stops", "enters", "leaves", "moves")}
    for n in range(facts.count):
        found = [_motion_events(facts.speed[r, n], facts.frames) for r in range(len(facts.xy))]
        for name in ("starts", "stops", "moves"):
            values = [f[name] for f in found]
            same = all(v == values[0] or abs(v - values[0]) <= 1 for v in values)
            rows[name].append(values[0] if same else np.nan)
        rows["enters"].append(_entry(facts.inside[n], facts.gone[n]))
        rows["leaves"].append(_exit(facts.inside[n], facts.gone[n]))
        if rows["enters"][-1] != NEVER:
            # Whether it moved before it came in nobody knows.
            rows["moves"][-1] = rows["starts"][-1] = np.nan
        if np.isnan(rows["leaves"][-1]):
            rows["stops"][-1] = np.nan
    return Events(**{name: np.array(values) for name, values in rows.items()})


def _motion_events(speed: Array, frames: int) -> dict[str, float]:
    """Return when one thing starts, stops and moves, from its speeds f64 [T - 1]."""
    seen = np.flatnonzero(~np.isnan(speed))
    if len(seen) < 3:
        return {"starts": np.nan, "stops": np.nan, "moves": np.nan}
    begin, end = int(seen[0]), int(seen[-1])
    moving = np.flatnonzero(np.nan_to_num(speed) > MOVING)
    still = np.nan_to_num(speed, nan=1.0) < STANDING
    edge = max(3, round(0.15 * frames))
    if not len(moving):
        sure = NEVER if still[seen].all() else np.nan
        return {"starts": sure, "stops": sure, "moves": sure}
    first, last = int(moving[0]), int(moving[-1])
    enough = last - first + 1 >= edge and len(moving) >= 0.85 * (last - first + 1)
    result = {}
    if first == begin:
        result["starts"] = NEVER
    else:
        # One step in between may be half and half.
        clear = still[begin : max(first - 1, begin + 1)].all() and first - begin >= edge and enough
        result["starts"] = float(first) if clear else np.nan
    if last == end:
        result["stops"] = NEVER
    else:
        clear = still[min(last + 2, end) : end + 1].all() and end - last >= edge and enough
        result["stops"] = float(last + 1) if clear else np.nan
    result["moves"] = 0.0 if first == begin else result["starts"]
    return result


def _entry(inside: Array, gone: Bool) -> float:
    """Return when a thing comes in."""
    if inside[0] >= _IN:
        return NEVER
    come = np.flatnonzero(inside > _IN)
    if not gone[0] or not len(come):
        return np.nan
    return float(come[0]) if gone[: come[0]].sum() >= max(1, 0.08 * len(inside)) else np.nan


def _exit(inside: Array, gone: Bool) -> float:
    """Return when a thing goes out."""
    back = _entry(inside[::-1], gone[::-1])
    return back if not np.isfinite(back) else len(inside) - back
