"""Painting a described scene: frames and masks of any of its frames, each the same whichever others are asked for.

Things are drawn once per scene: shapes with textures, and glyphs in their own or another colour.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.synthetic.backgrounds import NOISE_MARGIN, draw_backdrop, noise_bank
from svac_backend.synthetic.rich.description import Description, Look
from svac_backend.synthetic.rich.kinds import KINDS, draw_glyph
from svac_backend.synthetic.rich.staging import RichConfig
from svac_backend.synthetic.shapes import Sprite, extent, fill, lay, outline, trace

_RING_HOLE = 0.55
_SECOND = {"white": 238.0, "black": 26.0}


def draw_thing(look: Look, radius_px: float, rng: np.random.Generator) -> Sprite:
    """Draw a thing upright.

    Args:
        look: what it looks like.
        radius_px: radius of the circle of equal area, in pixels.
        rng: of shading and grain, which change nothing that is said.

    Returns:
        The sprite, RGB multiplied by coverage.
    """
    shade, grain = rng.uniform(0.0, 0.16), rng.uniform(0.0, 0.07)
    turn, rim = rng.uniform(0, 2 * np.pi), rng.random() < 0.25
    cells = rng.uniform(-1, 1, (12, 12)).astype(np.float32)
    if KINDS[look.kind].family != "shape":
        return _glyph(look, radius_px, shade * np.cos(turn))
    return _shape(look, radius_px, shade, grain, turn, rim, cells)


def _shape(
    look: Look,
    radius_px: float,
    shade: float,
    grain: float,
    turn: float,
    rim: bool,
    cells: NDArray[np.float32],
) -> Sprite:
    reach = extent(look.kind) * radius_px + 2.5  # OpenCV fills up to a pixel beyond
    side = 2 * int(np.ceil(reach)) + 1
    centre = (side - 1) / 2
    coverage = np.zeros((side, side), np.uint8)
    points = outline(look.kind) * radius_px + centre
    fill(coverage, points, 255)
    if look.kind == "ring":
        fill(coverage, outline("circle") * (radius_px * _RING_HOLE) + centre, 0)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    light = 1 + shade * (np.cos(turn) * ramp[None, :] + np.sin(turn) * ramp[:, None])
    amount = 0.3 if look.texture == "grainy" else grain
    light = light + amount * cv2.resize(cells, (side, side), interpolation=cv2.INTER_LINEAR)
    surface = light[:, :, None] * np.asarray(look.rgb, np.float32) + ((light - 1) * 40)[:, :, None]
    pattern = _pattern(look, side, radius_px)
    if pattern is not None:
        surface += pattern[:, :, None] * (_SECOND[look.second] * light[:, :, None] - surface)
    if rim and radius_px >= 9 and look.kind != "ring":
        line = np.zeros((side, side), np.uint8)
        trace(line, points, max(1, round(0.15 * radius_px)))
        surface *= (1 - line.astype(np.float32) * (0.4 / 255))[:, :, None]
    np.clip(surface, 0, 255, out=surface)
    surface *= (coverage.astype(np.float32) / 255)[:, :, None]
    return Sprite(np.dstack([surface.astype(np.uint8), coverage]), reach)


def _pattern(look: Look, side: int, radius_px: float) -> NDArray[np.float32] | None:
    """Return the share of the second colour, f32 [side, side]; None where there is none."""
    if look.texture not in {"striped", "dotted", "checked"}:
        return None
    line = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / radius_px
    x = np.cos(look.turn) * line[None, :] + np.sin(look.turn) * line[:, None]
    y = -np.sin(look.turn) * line[None, :] + np.cos(look.turn) * line[:, None]
    u, v = np.sin(np.pi * look.cells * x), np.sin(np.pi * look.cells * y)
    sharp = np.float32(radius_px / 5)
    if look.texture == "striped":
        value = u - 0.25
    elif look.texture == "checked":
        value = u * v * 1.5
    else:
        value = np.cos(np.pi * look.cells * 1.15 * x) * np.cos(np.pi * look.cells * 1.15 * y) - 0.45
    return np.clip(value * sharp + 0.5, 0, 1).astype(np.float32)


def _glyph(look: Look, radius_px: float, light: float) -> Sprite:
    rgba, radius = _dyed(look.kind, look.rgb if look.color else None)
    size = max(3, round(rgba.shape[0] * radius_px / radius))
    way = cv2.INTER_AREA if size < rgba.shape[0] else cv2.INTER_LINEAR
    small = cv2.resize(rgba, (size, size), interpolation=way)
    if look.flip:
        small = np.ascontiguousarray(small[:, ::-1])
    colors = np.minimum(small[..., :3].astype(np.float32) * (1 + light), small[..., 3:])
    return Sprite(np.dstack([colors.astype(np.uint8), small[..., 3]]), size / 2 + 1.0)


@lru_cache(maxsize=256)
def _dyed(kind: str, rgb: tuple[int, int, int] | None) -> tuple[NDArray[np.uint8], float]:
    """Return a glyph, multiplied by coverage, in its own colours or in light and shade of one."""
    glyph = draw_glyph(kind)
    colors = glyph.rgba[..., :3].astype(np.float32)
    cover = glyph.rgba[..., 3:].astype(np.float32) / 255
    if rgb is not None:
        bright = colors @ np.array([0.299, 0.587, 0.114], np.float32)
        inside = cover[..., 0] > 0.5
        mean = float(bright[inside].mean())
        share = np.clip((bright / max(mean, 1.0) - 1) * 0.75 + 1, 0.4, 1.3)[..., None]
        colors = np.clip(share * np.asarray(rgb, np.float32) + np.maximum(share - 1, 0) * 90, 0, 255)
    return np.dstack([(colors * cover).astype(np.uint8), glyph.rgba[..., 3]]), glyph.radius


U8 = NDArray[np.uint8]
# The shutter is open for this share of a frame, in scenes that have motion blur.
_SHUTTER = 0.55
_LONGEST_BLUR = 15


def paint(
    scene: Description, config: RichConfig, indices: tuple[int, ...], rng: np.random.Generator
) -> tuple[U8, NDArray[np.bool_]]:
    """Paint frames.

    Args:
        scene: what to paint.
        config: the size of the frames, which the scene is stretched to, and what the camera adds.
        indices: which frames.
        rng: of looks that no sentence speaks of; all is drawn before the first frame.

    Returns:
        Frames u8 [T, H, W, 3] RGB, and bool [N, T, H, W], the visible part of each thing.
    """
    width, height = config.width, config.height
    scale = np.array([width / scene.span[0], height / scene.span[1]])
    sprites = [draw_thing(t.look, _largest(scene, n) * scale.max(), rng) for n, t in enumerate(scene.things)]
    avoid = np.array([t.look.rgb for t in scene.things if t.look.color], np.float32).reshape(-1, 3)
    backdrop, margin = _backdrop(scene, width, height, scale, avoid, rng)
    contrast, brightness = rng.uniform(0.9, 1.08), rng.uniform(-10, 10)
    amplitude = rng.uniform(0.0, config.noise) / 32
    soft = rng.uniform(0.4, 0.8) * max(1.0, min(height, width) / 128) if rng.random() < config.blur else 0.0
    shutter = _SHUTTER if rng.random() < config.motion_blur else 0.0
    offsets = rng.integers(0, NOISE_MARGIN, (scene.frames, 2))
    profile = rng.uniform(0.75, 1.15, 7).astype(np.float32)
    noise = noise_bank(height, width)

    places, radii = scene.image_xy() * scale - 0.5, scene.image_radius()
    ways = np.gradient(places, axis=1) * shutter if scene.frames > 1 else np.zeros_like(places)
    frames = np.empty((len(indices), height, width, 3), np.uint8)
    masks = np.zeros((len(scene.things), len(indices), height, width), np.bool_)
    for k, t in enumerate(indices):
        frame = _behind(scene, t, backdrop, margin, scale, (width, height))
        for n, thing in enumerate(scene.things):
            matrix = _matrix(sprites[n], float(thing.track.angle[t]), radii[n, t] / _largest(scene, n), scale)
            _paste(frame, masks[:, k], n, sprites[n], matrix, places[n, t], ways[n, t])
        for bar in _bars(scene, t, scale):
            _cross(frame, masks[:, k], *bar, profile)
        if soft:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), soft), np.uint8)
        top, left = offsets[t]
        grain = noise[top : top + height, left : left + width]
        cv2.addWeighted(frame, contrast, grain, amplitude, brightness - 128 * amplitude, dst=frames[k])
    return frames, masks


def _largest(scene: Description, n: int) -> float:
    """Return the radius that a sprite is drawn at."""
    return float((scene.things[n].track.radius * scene.camera.zoom).max())


def _backdrop(
    scene: Description,
    width: int,
    height: int,
    scale: NDArray[np.float64],
    avoid: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[U8, int]:
    """Return a background that covers all that the camera shows, and by how many pixels it is larger on each side."""
    margin = int(np.ceil((np.abs(scene.camera.shift) * scale).max())) + 1
    margin += int(np.ceil(max(1 / scene.camera.zoom.min() - 1, 0) * max(width, height) / 2)) + 1
    return draw_backdrop(height + 2 * margin, width + 2 * margin, avoid, rng), margin


def _behind(
    scene: Description,
    t: int,
    backdrop: U8,
    margin: int,
    scale: NDArray[np.float64],
    size: tuple[int, int],
) -> U8:
    if scene.camera.steady:
        return backdrop[margin:-margin, margin:-margin].copy()
    zoom = float(scene.camera.zoom[t])
    centre = (np.array(size) - 1) / 2
    matrix = np.zeros((2, 3))
    matrix[0, 0] = matrix[1, 1] = zoom
    matrix[:, 2] = (scene.camera.shift[t] * scale - centre - margin) * zoom + centre
    moved = cv2.warpAffine(backdrop, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _matrix(sprite: Sprite, angle: float, grown: float, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the turn, growth and squeeze from sprite pixels to frame pixels, f64 [2, 2]."""
    squeeze = scale / scale.max() * grown
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[squeeze[0] * cos, -squeeze[0] * sin], [squeeze[1] * sin, squeeze[1] * cos]])


def _paste(
    frame: U8,
    masks: NDArray[np.bool_],
    n: int,
    sprite: Sprite,
    matrix: NDArray[np.float64],
    place: NDArray[np.float64],
    way: NDArray[np.float64],
) -> None:
    """Draw thing n on the frame and into masks [N, H, W], taking what it hides from those below."""
    height, width = frame.shape[:2]
    reach = np.abs(matrix).sum(axis=1) * sprite.reach + 1 + np.abs(way) / 2
    left, top = (max(int(c), 0) for c in place - reach)
    right, bottom = (min(int(c) + 2, side) for c, side in zip(place + reach, (width, height), strict=True))
    if right <= left or bottom <= top:
        return
    centre = (sprite.rgba.shape[0] - 1) / 2
    full = np.empty((2, 3))
    full[:, :2] = matrix
    full[:, 2] = place - (left, top) - matrix.sum(axis=1) * centre
    warped = cv2.warpAffine(sprite.rgba, full, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    length = float(np.linalg.norm(way))
    if length >= 1.5:
        warped = cv2.filter2D(warped, -1, _streak(way, length), borderType=cv2.BORDER_REPLICATE)
    lay(frame, masks, n, np.asarray(warped, np.uint8), left, top)


def _streak(way: NDArray[np.float64], length: float) -> NDArray[np.float32]:
    """Return the kernel that smears along a way of pixels, centred."""
    reach = min(length, _LONGEST_BLUR) / 2
    side = 2 * int(np.ceil(reach)) + 1
    kernel = np.zeros((side, side), np.float32)
    for share in np.linspace(-1, 1, 2 * side):
        x, y = way / length * reach * share + side // 2
        kernel[round(float(y)), round(float(x))] += 1
    return kernel / kernel.sum()


def _bars(
    scene: Description, t: int, scale: NDArray[np.float64]
) -> list[tuple[bool, int, int, tuple[int, int, int]]]:
    """Return upright, first pixel, pixel after the last and colour of each bar in a frame."""
    found = []
    for bar in scene.bars:
        axis = 0 if bar.upright else 1
        shift, zoom = scene.camera.shift[t, axis], scene.camera.zoom[t]
        middle = scene.span[axis] / 2
        ends = [(bar.at + s * bar.width / 2 + shift - middle) * zoom + middle for s in (-1, 1)]
        low, high = (max(round(float(end * scale[axis])), 0) for end in ends)
        if high > low:
            found.append((bar.upright, low, high, bar.rgb))
    return found


def _cross(
    frame: U8,
    masks: NDArray[np.bool_],
    upright: bool,
    low: int,
    high: int,
    rgb: tuple[int, int, int],
    profile: NDArray[np.float32],
) -> None:
    """Draw a bar over everything."""
    light = cv2.resize(profile[None], (high - low, 1), interpolation=cv2.INTER_LINEAR)[0]
    tone = np.clip(light[:, None] * np.asarray(rgb, np.float32), 0, 255).astype(np.uint8)
    view = frame if upright else frame.transpose(1, 0, 2)
    view[:, low:high] = tone[: max(view.shape[1] - low, 0)]
    (masks if upright else masks.transpose(0, 2, 1))[:, :, low:high] = False
