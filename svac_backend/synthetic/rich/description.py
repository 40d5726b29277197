"""What a rich scene is before it is painted, and what can be measured about it: no pixels and no words.

A scene is things, their trajectories, a camera and bars. Lengths are in units of the frame's short side, x to the right
and y down, the frame's top left corner at (0, 0). World positions are what the frame would show if the camera never
moved. Motions are measured twice where the camera moves: in the frame and in the world. What differs between the two is
not said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.rich.kinds import ROUND, reach_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """How a thing looks.

    Attributes:
        kind: a name out of `kinds.KINDS`.
        color: a colour's name; None for a glyph in its own colours.
        texture: `plain`, `striped`, `dotted`, `checked` or `grainy`.
        rgb: the colour, 0..255; without meaning where `color` is None.
        second: the texture's other colour: `white` or `black`.
        flip: drawn mirrored.
        turn: of the texture, in radians.
        cells: of the texture, per radius.
    """

    kind: str
    color: str | None
    texture: str = "plain"
    rgb: tuple[int, int, int] = (0, 0, 0)
    second: str = "white"
    flip: bool = False
    turn: float = 0.0
    cells: float = 2.0


@dataclass(frozen=True)
class Trajectory:
    """Where a thing is on each of T frames, in world coordinates.

    Attributes:
        xy: f64 [T, 2], centre.
        radius: f64 [T], radius of the circle of equal area.
        angle: f64 [T], radians, clockwise.
        program: name of the motion that it was made by; what is said is judged by the numbers alone.
    """

    xy: Array
    radius: Array
    angle: Array
    program: str


@dataclass(frozen=True)
class Camera:
    """What the camera does.

    Attributes:
        shift: f64 [T, 2], what is added to a world position, before zooming about the frame's centre.
        zoom: f64 [T].
    """

    shift: Array
    zoom: Array

    @property
    def steady(self) -> bool:
        """Whether it never moves."""
        return not self.shift.any() and bool((self.zoom == 1).all())


@dataclass(frozen=True)
class Bar:
    """Something in front of everything that stands in the world, from edge to edge.

    Attributes:
        upright: from top to bottom, else from left to right.
        at, width: centre and width across, world units.
        rgb: its colour.
    """

    upright: bool
    at: float
    width: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Thing:
    """One object.

    Attributes:
        look, track: what and where.
    """

    look: Look
    track: Trajectory


@dataclass(frozen=True)
class Description:
    """A scene.

    Attributes:
        things: bottom first; a later one hides an earlier one.
        camera, bars: see there.
        span: width and height of the frame; the shorter is 1.
        theme: what its motions are about.
    """

    things: tuple[Thing, ...]
    camera: Camera
    bars: tuple[Bar, ...]
    span: tuple[float, float]
    theme: str

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.camera.zoom)

    def image_xy(self) -> Array:
        """Return the centres in the frame, f64 [N, T, 2]."""
        world = np.stack([thing.track.xy for thing in self.things])
        centre = np.asarray(self.span) / 2
        return (world + self.camera.shift - centre) * self.camera.zoom[:, None] + centre

    def image_radius(self) -> Array:
        """Return the radii in the frame, f64 [N, T]."""
        return np.stack([thing.track.radius for thing in self.things]) * self.camera.zoom

    def inside(self) -> Array:
        """Return about which share of each thing lies within the frame, f64 [N, T]."""
        xy, radius = self.image_xy(), self.image_radius()[..., None]
        low = np.clip((xy + radius) / (2 * radius), 0, 1)
        high = np.clip((np.asarray(self.span) - xy + radius) / (2 * radius), 0, 1)
        return np.asarray(np.maximum(low + high - 1, 0).prod(axis=-1))

    def gone(self) -> NDArray[np.bool_]:
        """Return whether each thing lies outside the frame with all that it reaches, bool [N, T]."""
        reach = np.array([reach_of(thing.look.kind) for thing in self.things])[:, None, None]
        xy, far = self.image_xy(), self.image_radius()[..., None] * reach
        return np.asarray(((xy <= -far) | (xy >= np.asarray(self.span) + far)).any(axis=-1))

    def covered(self) -> Array:
        """Return about which share of each thing (row) each thing (column) hides, f64 [N, N, T]; discs."""
        xy, radius = self.image_xy(), self.image_radius()
        distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
        mine, other = radius[:, None], radius[None]
        depth = np.clip((mine + other - distance) / (2 * np.minimum(mine, other)), 0, 1)
        order = np.arange(len(xy))
        above = (order[None, :] > order[:, None])[..., None]
        return np.where(above, depth * np.minimum(1, (other / mine) ** 2), 0.0)

    def barred(self) -> Array:
        """Return about which share of each thing the bars hide, f64 [N, T]."""
        world = np.stack([thing.track.xy for thing in self.things])
        radius = np.stack([thing.track.radius for thing in self.things])
        total = np.zeros(radius.shape)
        for bar in self.bars:
            across = world[..., 0 if bar.upright else 1]
            low = np.maximum(across - radius, bar.at - bar.width / 2)
            high = np.minimum(across + radius, bar.at + bar.width / 2)
            total += np.maximum(high - low, 0) / (2 * radius)
        return np.minimum(total, 1)

    def visible(self) -> Array:
        """Return about which share of each thing can be seen, f64 [N, T]."""
        hidden = np.minimum(self.covered().sum(axis=1), 1)
        return self.inside() * (1 - hidden) * (1 - self.barred())


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
