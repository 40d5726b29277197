"""Staging: which things a scene has, what they do, and what the camera does, so that words are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from svac_backend.errors import SvacError
from svac_backend.synthetic.rich.description import Array, Bar, Camera, Description, Look, Thing, Trajectory
from svac_backend.synthetic.rich.kinds import (
    DYES,
    HELD_OUT_KINDS,
    KINDS,
    ROUND,
    allowed,
    font_file,
    has_things,
    reach_of,
)
from svac_backend.synthetic.rich.programs import PROGRAMS, UNIT, Stage, approach, follow, pass_by, play
from svac_backend.synthetic.shapes import COLORS, MAX_TILT, sample_rgb

_TRIES = 8
# Every thing is at least this visible for at least this share of the clip, and never more hidden by others for long.
_SEEN, _SEEN_SHARE, _HIDDEN_SHARE = 0.5, 0.4, 0.2
_TEXTURED = 0.4
_TEXTURES = ("striped", "dotted", "checked", "grainy")
# No black or white stripes on these: they would get another name.
_NEUTRAL = frozenset({"white", "black", "gray", "brown"})
_RADII = ((0.08, 0.098), (0.115, 0.145), (0.175, 0.215))

# What the motions of a scene are about, and how often.
THEMES: dict[str, float] = {
    "directions": 1.6,
    "speeds": 1.0,
    "starts": 1.8,
    "stops": 1.8,
    "entries": 1.9,
    "exits": 1.6,
    "turns": 1.2,
    "changes": 1.9,
    "following": 1.7,
    "passing": 1.4,
    "approaching": 1.4,
    "static": 1.0,
    "mixed": 1.6,
}


@dataclass(frozen=True)
class RichConfig:
    """What rich scenes look like.

    Attributes:
        width, height: size of the frames in pixels.
        frames: length of the clip; motions cover the whole of it. Under 6, nothing is said that needs time.
        min_objects, max_objects: bounds of the number of things; where there is no room there are fewer.
        fps: frame rate that the clip is written with.
        split: `train` leaves out what is kept for `validation`.
        things: pictures of things beside shapes. None: where the font is installed. True demands it.
        aspects: display aspect ratios to choose from, as in `SceneConfig`. None: square pixels.
        per_kind: at most so many expressions of a kind and scene.
        mixed: every thing is of a kind of its own; else things often share kind or colour.
        camera: share of scenes whose camera moves.
        bars: share of scenes with bars in front of everything.
        noise: largest standard deviation of the camera's noise, in grey levels.
        blur, motion_blur: shares of scenes out of focus, and with motion blur.
    """

    width: int = 128
    height: int = 128
    frames: int = 20
    min_objects: int = 3
    max_objects: int = 6
    fps: float = 12.0
    split: Literal["train", "validation"] = "train"
    things: bool | None = None
    aspects: tuple[float, ...] | None = None
    per_kind: int = 3
    mixed: bool = False
    camera: float = 0.3
    bars: float = 0.2
    noise: float = 6.0
    blur: float = 0.2
    motion_blur: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what no scene can be made of.

        Raises:
            SvacError: for sizes, counts or shares that make no sense, or things without their font.
        """
        if min(self.width, self.height) < 32 or self.frames < 1 or self.fps <= 0 or self.per_kind < 1:
            raise SvacError(
                f"No rich scene of {self.width}x{self.height}, {self.frames} frames, {self.fps} fps can be made.",
                "Use at least 32x32 pixels, one frame, a positive frame rate and one expression per kind.",
            )
        if not 1 <= self.min_objects <= self.max_objects <= 16:
            raise SvacError(
                f"A rich scene cannot have {self.min_objects} to {self.max_objects} objects.",
                "Use 1 <= min_objects <= max_objects <= 16.",
            )
        if self.noise < 0 or not all(
            0 <= s <= 1 for s in (self.camera, self.bars, self.blur, self.motion_blur)
        ):
            raise SvacError(
                "The shares of a rich scene are out of range.", "Use 0 to 1, and a noise of 0 or more."
            )
        if self.aspects is not None and (not self.aspects or not all(0.2 <= a <= 5 for a in self.aspects)):
            raise SvacError(f"A scene cannot have the aspects {self.aspects}.", "Use ratios from 0.2 to 5.")
        if self.split not in ("train", "validation"):
            raise SvacError(f"There is no split {self.split!r}.", "Use train or validation.")
        if self.things and font_file() is None:
            raise SvacError(
                "Rich scenes with things need the font Noto Color Emoji, which is not installed.",
                "Install fonts-noto-color-emoji, or use things=False for shapes only.",
            )

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds that are drawn."""
        things = has_things() if self.things is None else self.things
        chosen = [k for k in KINDS.values() if things or not k.code]
        return tuple(k.name for k in chosen if self.split != "train" or k.name not in HELD_OUT_KINDS)


def stage_scene(config: RichConfig, span: tuple[float, float], rng: np.random.Generator) -> Description:
    """Choose a scene; of a few attempts the first that has room for enough things."""
    found = _stage_once(config, span, rng)
    for _ in range(_TRIES):
        if len(found.things) >= config.min_objects:
            break
        again = _stage_once(config, span, rng)
        found = max(found, again, key=lambda d: len(d.things))
    return found


def _stage_once(config: RichConfig, span: tuple[float, float], rng: np.random.Generator) -> Description:
    frames = config.frames
    stage = Stage(span, frames, rng)
    names = tuple(THEMES)
    weights = np.array(list(THEMES.values()))
    theme = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    camera = _camera(stage) if rng.random() < config.camera and frames > 1 else _steady(frames)
    bars = _bars(stage) if rng.random() < config.bars else ()
    looks = _looks(count, config, rng)
    sizes = _sizes(count, rng)
    tracks: list[Trajectory] = []
    plans = _plans(theme, count, rng)
    for n, plan in enumerate(plans):
        best, least = None, 2.0
        for attempt in range(_TRIES):
            radius = sizes[n] if attempt < _TRIES // 2 else min(sizes[n], 0.12)
            candidate = _track(plan, radius, looks[n].kind, tracks, stage)
            things = tuple(Thing(look, t) for look, t in zip(looks, [*tracks, candidate], strict=False))
            trial = Description(things, camera, bars, span, theme)
            lost = _lost(trial)
            if lost < least:
                best, least = candidate, lost
            if lost == 0:
                break
        if best is not None and least == 0:
            tracks.append(best)
        elif n == 0:
            tracks.append(_track(("still", {}), 0.12, looks[n].kind, tracks, stage))
        else:
            # What found no place is left out, with all that was planned around it.
            break
    things = tuple(Thing(look, track) for look, track in zip(looks, tracks, strict=False))
    return Description(things, camera, bars, span, theme)


def _lost(trial: Description) -> float:
    """Return by how much the worst seen thing falls short of what is asked; 0: all can be seen."""
    inside, visible = trial.inside(), trial.visible()
    present = inside > _SEEN
    seen = (visible > _SEEN).mean(axis=1)
    ever = inside > 0.3
    # What goes out stays out: nobody could say what it did meanwhile.
    away = np.maximum.accumulate(ever, axis=1) & np.maximum.accumulate(ever[:, ::-1], axis=1)[:, ::-1] & ~ever
    hidden = (present & (visible < 0.6 * inside)).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    short = np.maximum(_SEEN_SHARE - seen, 0) + np.maximum(hidden - _HIDDEN_SHARE, 0) + away.mean(axis=1)
    return float(short.max())


def _plans(theme: str, count: int, rng: np.random.Generator) -> list[tuple[str, dict[str, float | str]]]:
    """Return a program and its settings for each thing."""

    def some(names: Sequence[str]) -> str:
        return names[int(rng.integers(len(names)))]

    directions = tuple(UNIT)
    plans: list[tuple[str, dict[str, float | str]]] = []
    moments = rng.permutation(np.linspace(0.12, 0.72, max(count, 2)))
    way = some(directions)
    speeds = rng.permutation(0.22 * 1.75 ** np.arange(count).clip(max=3))
    for n in range(count):
        free = some((*directions, "still", "diagonal", "circle"))
        plan: tuple[str, dict[str, float | str]] = (free, {})
        if theme == "directions":
            plan = (some((*directions, *directions, "diagonal", "still", "turn round")), {})
        elif theme == "speeds":
            plan = (some((way, way, some(directions), "still")), {"speed": float(speeds[n])})
        elif theme == "starts":
            plan = (some(("start",) * 4 + ("still",)), {"when": float(moments[n])})
        elif theme == "stops":
            plan = (some(("stop",) * 4 + (free,)), {"when": float(moments[n]) + 0.1})
        elif theme == "entries":
            plan = (some(("enter",) * 5 + (free, "through")), {"when": float(moments[n])})
        elif theme == "exits":
            plan = (some(("leave",) * 6 + (free,)), {"when": 0.75 * float(moments[n]) + 0.32})
        elif theme == "turns":
            plan = (some(("turn round", "back and forth", "corner", "bounce", "circle", free)), {})
        elif theme == "changes":
            plan = (some(("grow", "shrink", "spin", "still", free)), {})
        elif theme == "following" and n == 0:
            plan = (way, {"speed": 0.5})
        elif theme == "following" and (n == 1 or (n == 3 and rng.random() < 0.5)):
            plan = ("follow", {"other": str(n - 1)})
        elif theme == "following":
            plan = (some((way, free)), {})
        elif theme in {"passing", "approaching"} and n == 0:
            plan = ("still", {})
        elif theme == "passing" and (n == 1 or rng.random() < 0.3):
            plan = ("pass", {"other": "0"})
        elif theme == "approaching" and (n < 3 or rng.random() < 0.3):
            plan = (some(("approach", "away")), {"other": "0"})
        elif theme == "static":
            plan = ("still" if rng.random() < 0.8 else free, {})
        elif theme == "mixed":
            plan = (some(PROGRAMS), {})
        plans.append(plan)
    return plans


def _track(
    plan: tuple[str, dict[str, float | str]], radius: float, kind: str, tracks: list[Trajectory], stage: Stage
) -> Trajectory:
    """Play a plan."""
    program, options = plan
    other = tracks[int(options["other"])] if "other" in options else None
    if program == "spin" and kind in ROUND:
        program = "still"
    if other is not None and program == "follow":
        track = follow(other, radius, stage)
    elif other is not None and program == "pass":
        track = pass_by(other, radius, stage)
    elif other is not None:
        track = approach(other, radius, stage, away=program == "away")
    else:
        settings = {key: float(value) for key, value in options.items()}
        track = play(program, radius, stage, reach=reach_of(kind), **settings)  # type: ignore[arg-type]
    tilt = np.deg2rad(MAX_TILT.get(kind, 180.0) if KINDS[kind].family == "shape" else 12.0)
    if kind not in ROUND:
        turned = track.angle + stage.rng.uniform(-tilt, tilt)
        return Trajectory(track.xy, track.radius, turned, track.program)
    return track


def _looks(count: int, config: RichConfig, rng: np.random.Generator) -> list[Look]:
    """Return looks that often share kind, colour or both, so that one word alone is seldom enough."""
    shapes = [k for k in config.kinds if KINDS[k].family == "shape"]
    glyphs = [k for k in config.kinds if KINDS[k].code]
    mode = 1.0 if config.mixed else rng.random()
    few = int(rng.integers(1, 3)) if mode < 0.35 else (2 if mode < 0.7 else count)
    kinds: list[str] = []
    family = rng.random() < 0.35
    while len(kinds) < few:
        pool = glyphs if glyphs and (not shapes or rng.random() < 0.62) else shapes
        if family and kinds:
            pool = [k for k in config.kinds if KINDS[k].family == KINDS[kinds[0]].family]
        kinds.append(pool[int(rng.integers(len(pool)))])
    colors = [COLORS[i] for i in rng.permutation(len(COLORS))[: int(rng.integers(2, 4)) if mode < 0.7 else 6]]
    train = config.split == "train"
    if config.mixed:
        return [_look(kind, colors, train, rng) for kind in kinds]
    return [_look(kinds[int(rng.integers(len(kinds)))], colors, train, rng) for _ in range(count)]


def _look(kind: str, colors: list[str], train: bool, rng: np.random.Generator) -> Look:
    choice = [c for c in colors if not train or allowed(c, kind)]
    is_shape = KINDS[kind].family == "shape"
    if not is_shape:
        choice = [c for c in choice if c in DYES]
        if not choice or rng.random() < 0.45:
            return Look(kind, None, flip=bool(rng.random() < 0.5))
    if not choice:
        choice = [c for c in COLORS if not train or allowed(c, kind)]
    color = choice[int(rng.integers(len(choice)))]
    texture = "plain"
    if is_shape and color not in _NEUTRAL and rng.random() < _TEXTURED:
        texture = _TEXTURES[int(rng.integers(len(_TEXTURES)))]
    return Look(
        kind,
        color,
        texture,
        sample_rgb(color, rng),
        second="white" if rng.random() < 0.5 and color not in {"yellow", "pink", "cyan"} else "black",
        flip=bool(rng.random() < 0.5),
        turn=float(rng.uniform(0, np.pi)),
        cells=float(rng.uniform(1.6, 2.4)),
    )


def _sizes(count: int, rng: np.random.Generator) -> list[float]:
    """Return radii: all alike, or of clearly different sizes."""
    if rng.random() < 0.45:
        return [float(rng.uniform(0.1, 0.15))] * count
    return [float(rng.uniform(*_RADII[int(i)])) for i in rng.integers(0, 3, count)]


def _steady(frames: int) -> Camera:
    return Camera(np.zeros((frames, 2)), np.ones(frames))


def _camera(stage: Stage) -> Camera:
    """Return a camera that pans, zooms or shakes."""
    rng, t = stage.rng, stage.time
    shift: Array = np.zeros((stage.frames, 2))
    zoom: Array = np.ones(stage.frames)
    what = rng.random()
    if what < 0.45:
        shift = (t[:, None] - 0.5) * rng.uniform(-0.22, 0.22, 2)
    elif what < 0.7:
        zoom = float(rng.uniform(0.85, 1.22)) ** (t - rng.random())
    if what > 0.6:
        cycles, phase = rng.uniform(1, 3.5, 2), rng.uniform(0, 2 * np.pi, 2)
        shift = shift + rng.uniform(0.002, 0.005) * np.sin(2 * np.pi * cycles * t[:, None] + phase)
    return Camera(shift, zoom)


def _bars(stage: Stage) -> tuple[Bar, ...]:
    rng = stage.rng
    upright = bool(rng.random() < 0.75)
    along = stage.span[0 if upright else 1]
    rgb = tuple(int(c) for c in rng.integers(40, 150) + rng.integers(-12, 13, 3))
    count = int(rng.integers(1, 3))
    places = (np.arange(count) + rng.uniform(0.25, 0.75, count)) * along / count
    return tuple(Bar(upright, float(p), float(rng.uniform(0.03, 0.09)), rgb) for p in places)  # type: ignore[arg-type]
