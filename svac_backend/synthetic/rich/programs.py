"""Motions by name: where something is on every frame if it moves so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svac_backend.synthetic.rich.description import Array, Trajectory

UNIT = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
PROGRAMS: tuple[str, ...] = (
    *UNIT,
    "still",
    "diagonal",
    "circle",
    "turn round",
    "back and forth",
    "corner",
    "bounce",
    "stop",
    "start",
    "enter",
    "leave",
    "through",
    "grow",
    "shrink",
    "spin",
)


@dataclass(frozen=True)
class Stage:
    """What a program plays on.

    Attributes:
        span: width and height of the frame, in short sides.
        frames: their number.
        rng: of all choices.
    """

    span: tuple[float, float]
    frames: int
    rng: np.random.Generator

    @property
    def time(self) -> Array:
        """0 on the first frame, 1 on the last."""
        return np.linspace(0, 1, self.frames, dtype=np.float64)

    def some_unit(self) -> Array:
        """Return one of the four directions."""
        return np.array(tuple(UNIT.values())[int(self.rng.integers(4))])


def play(
    program: str,
    radius: float,
    stage: Stage,
    *,
    speed: float | None = None,
    when: float | None = None,
    unit: Array | None = None,
    reach: float = 1.3,
) -> Trajectory:
    """Return a thing's track.

    Args:
        program: one of `PROGRAMS`.
        radius: mean radius.
        speed: short sides per clip, where the program has one.
        when: share of the clip at which it stops, starts, enters or has left, where the program does so.
        unit: its direction; None chooses.
        reach: how far the thing reaches from its centre, in radii: so far outside nothing of it is seen.
    """
    rng, t = stage.rng, stage.time
    grow: Array = np.ones(stage.frames)
    angle: Array = np.zeros(stage.frames)
    way = float(rng.uniform(0.28, 0.75)) if speed is None else speed
    moment = float(rng.uniform(0.3, 0.7)) if when is None else when
    unit = np.array(UNIT.get(program, stage.some_unit())) if unit is None else unit
    if program in {"enter", "leave", "through"}:
        return Trajectory(
            _crossing(program, radius, stage, unit, way, moment, reach), radius * grow, angle, program
        )
    path: Array = np.zeros((stage.frames, 2))
    if program in UNIT:
        path = t[:, None] * (unit + rng.uniform(-0.1, 0.1) * unit[::-1]) * way
    elif program == "diagonal":
        path = t[:, None] * rng.choice((-1.0, 1.0), 2) * way * rng.uniform(0.8, 1.0, 2)
    elif program == "circle":
        orbit, sweep = rng.uniform(0.13, 0.24), rng.uniform(2.0, 2.7) * np.pi * rng.choice((-1.0, 1.0))
        phase = rng.uniform(0, 2 * np.pi) + sweep * t
        path = orbit * np.stack([np.cos(phase), np.sin(phase)], axis=1)
    elif program == "turn round":
        path = (moment - np.abs(t - moment))[:, None] * unit * 1.6 * way
    elif program == "back and forth":
        path = (np.abs((t * rng.uniform(3, 4)) % 2 - 1))[:, None] * unit * min(max(way, 0.35), 0.55)
    elif program == "corner":
        side = unit[::-1] * rng.choice((-1.0, 1.0))
        path = np.minimum(t, moment)[:, None] * unit * 1.6 * way
        path = path + np.maximum(t - moment, 0)[:, None] * side * 1.6 * way
    elif program == "bounce":
        return Trajectory(_bouncing(radius, stage, way), radius * grow, angle, program)
    elif program == "stop":
        path = np.minimum(t / moment, 1)[:, None] * unit * way
    elif program == "start":
        path = np.maximum((t - moment) / (1 - moment), 0)[:, None] * unit * way
    elif program in {"grow", "shrink"}:
        factor = rng.uniform(1.75, 2.3)
        grow = factor ** (t - 0.5)
        if program == "shrink":
            grow = grow[::-1]
        if rng.random() < 0.5:
            path = t[:, None] * unit * rng.uniform(0.1, 0.3)
    elif program == "spin":
        angle = rng.choice((-1.0, 1.0)) * rng.uniform(1.0, 2.0) * 2 * np.pi * t
        if rng.random() < 0.4:
            path = t[:, None] * unit * rng.uniform(0.1, 0.4)
    return Trajectory(_placed(path, radius * float(grow.max()), stage), radius * grow, angle, program)


def follow(leader: Trajectory, radius: float, stage: Stage) -> Trajectory:
    """Return the track of what keeps behind `leader`, which moves straight."""
    way = leader.xy[-1] - leader.xy[0]
    heading = way / max(float(np.linalg.norm(way)), 1e-9)
    gap = stage.rng.uniform(1.15, 1.5) * (radius + float(leader.radius.max())) * heading
    aside = stage.rng.uniform(-0.04, 0.04) * heading[::-1]
    return Trajectory(
        leader.xy - gap + aside, np.full(stage.frames, radius), np.zeros(stage.frames), "follow"
    )


def pass_by(other: Trajectory, radius: float, stage: Stage) -> Trajectory:
    """Return the track of what passes `other`, which stays where it is."""
    rng, unit = stage.rng, stage.some_unit()
    way = rng.uniform(0.5, 0.75)
    aside = (radius + float(other.radius.max())) * rng.uniform(0.6, 1.05) * rng.choice((-1.0, 1.0))
    middle = other.xy[0] + aside * unit[::-1]
    path = middle + (stage.time - rng.uniform(0.4, 0.6))[:, None] * unit * way
    return Trajectory(path, np.full(stage.frames, radius), np.zeros(stage.frames), "pass")


def approach(other: Trajectory, radius: float, stage: Stage, *, away: bool = False) -> Trajectory:
    """Return the track of what moves straight towards (or away from) `other`, which stays where it is."""
    rng = stage.rng
    near = (radius + float(other.radius.max())) * rng.uniform(1.0, 1.2)
    margin = np.full(2, 0.9 * radius)
    best, most = other.xy[0] + (near + 0.1, 0), -1.0
    for _ in range(8):
        far = margin + rng.random(2) * (np.asarray(stage.span) - 2 * margin)
        distance = float(np.linalg.norm(far - other.xy[0]))
        if distance > most:
            best, most = far, distance
    close = other.xy[0] + (best - other.xy[0]) * (near / max(most, near))
    t = stage.time[::-1] if away else stage.time
    path = best + t[:, None] * (close - best)
    return Trajectory(
        path, np.full(stage.frames, radius), np.zeros(stage.frames), "away" if away else "approach"
    )


def _placed(path: Array, radius: float, stage: Stage) -> Array:
    """Shrink and shift a path so that the thing stays within the frame."""
    room = np.maximum(np.asarray(stage.span) - 1.9 * radius, 1e-3)
    low, extent = path.min(axis=0), np.ptp(path, axis=0)
    path = (path - low) * min(1.0, float((0.97 * room / np.maximum(extent, 1e-9)).min()))
    slack = np.maximum(room - np.ptp(path, axis=0), 0)
    return path + 0.95 * radius + stage.rng.random(2) * slack


def _crossing(
    program: str, radius: float, stage: Stage, unit: Array, way: float, moment: float, reach: float
) -> Array:
    """Return the centres of what comes into the frame, leaves it, or both."""
    rng, span = stage.rng, np.asarray(stage.span)
    along = float(np.abs(unit) @ span)
    outside = (reach + 0.05) * radius
    t = stage.time
    if program == "through":
        position = -outside + (along + 2 * outside) * np.clip((t - 0.12) / 0.76, 0, 1)
    else:
        depth = min(outside + radius + way, outside + along - radius)
        if program == "leave":
            t = 1 - t
            moment = 1 - moment
        moment = min(max(moment, 0.15), 0.7)
        position = -outside + depth * np.clip((t - moment) / min(rng.uniform(0.25, 0.5), 1 - moment), 0, 1)
        if program == "leave":
            unit = -unit
    across = np.abs(unit[::-1])
    base = across * rng.uniform(0.95 * radius, np.maximum(span - 0.95 * radius, radius), 2)
    start = np.where(unit > 0, 0.0, span) * np.abs(unit)
    return np.asarray(start + base + position[:, None] * unit)


def _bouncing(radius: float, stage: Stage, way: float) -> Array:
    """Return the centres of what bounces off the frame's edges."""
    rng = stage.rng
    room = np.maximum(np.asarray(stage.span) - 2 * radius, 1e-3)
    heading = rng.uniform(0, 2 * np.pi)
    length = max(1.0, 1.6 * way)
    straight = rng.random(2) * room
    straight = straight + stage.time[:, None] * length * np.array([np.cos(heading), np.sin(heading)])
    return np.abs((straight + room) % (2 * room) - room) + radius
