"""What a rich scene is before it is painted: things, their tracks, camera and bars. No pixels and no words.

Lengths are in units of the frame's short side, x to the right and y down, the frame's top left corner at (0, 0). World
positions are what the frame would show if the camera never moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.rich.glyphs import reach_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """How a thing looks.

    Attributes:
        kind: a name out of `kinds.KINDS`.
        color: a colour's name; None for a glyph in its own colours.
        texture: `plain`, `striped`, `dotted`, `checked` or `grainy`.
        rgb: the colour, 0..255; of no use where `color` is None.
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
class Track:
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
    track: Track


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

    def still(self, frame: int, things: Sequence[int]) -> Description:
        """Return one frame of it as a clip of its own, with these of its things only."""
        tracks = [self.things[n].track for n in things]
        seen = [
            replace(k, xy=k.xy[[frame]], radius=k.radius[[frame]], angle=k.angle[[frame]]) for k in tracks
        ]
        camera = Camera(self.camera.shift[[frame]], self.camera.zoom[[frame]])
        kept = tuple(replace(self.things[n], track=track) for n, track in zip(things, seen, strict=True))
        return replace(self, things=kept, camera=camera)

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
