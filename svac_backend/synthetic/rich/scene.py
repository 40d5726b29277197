"""Rich scenes: referring videos from a seed whose sentences need their words, and many of them time.

The same seed and configuration give the same bytes on the same numpy, OpenCV, Pillow and font. Seeds are split by use
as in `svac_backend.synthetic.scene`; kinds, pairs of colour and kind, and wordings that are kept from training
appear with `split="validation"` only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.synthetic.rich.description import Description, Look
from svac_backend.synthetic.rich.kinds import HELD_OUT_KINDS, KINDS, font_file
from svac_backend.synthetic.rich.painter import Film, paint
from svac_backend.synthetic.rich.phrases import RichExpression, expressions_of
from svac_backend.synthetic.rich.staging import Cast, stage_scene

_log = logging.getLogger(__name__)


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
        noise, blur, motion_blur: as in `painter.Film`.
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


@dataclass
class RichScene:
    """A clip with its truth.

    Attributes:
        frames: u8 [T, H, W, 3] RGB.
        masks: bool [N, T, H, W], the visible part of every thing; empty while it is out of the frame or hidden.
        description: the N things and the camera, over the whole clip.
        expressions: what is said of it.
        indices: which frames of the whole clip these T are, 0-based.
        seed: where it came from.
        fps: frame rate of the whole clip.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    description: Description
    expressions: tuple[RichExpression, ...]
    indices: tuple[int, ...]
    seed: int
    fps: float

    @property
    def objects(self) -> tuple[Look, ...]:
        """What the things look like."""
        return tuple(thing.look for thing in self.description.things)

    def target(self, expression: RichExpression) -> NDArray[np.bool_]:
        """Return the union of what an expression means, bool [T, H, W]; empty for absent things."""
        return np.asarray(self.masks[list(expression.targets)].any(axis=0))


@lru_cache(maxsize=1)
def has_things() -> bool:
    """Return whether pictures of things can be drawn; says so once where they cannot."""
    if font_file() is None:
        _log.warning(
            "Noto Color Emoji is not installed: rich scenes have shapes only. Install fonts-noto-color-emoji."
        )
        return False
    return True


def describe(
    seed: int, config: RichConfig, *, words: bool = True
) -> tuple[Description, tuple[RichExpression, ...]]:
    """Return a scene and what is said of it, without painting it.

    Args:
        seed, config: as in `make_rich_scene`.
        words: False says nothing, which takes most of the time.

    Raises:
        SvacError: for a negative seed.
    """
    if seed < 0:
        raise SvacError(f"There is no scene {seed}.", "Use a seed of 0 or more.")
    layout_rng, words_rng, _ = _streams(seed)
    aspects = config.aspects or (config.width / config.height,)
    aspect = aspects[int(layout_rng.integers(len(aspects)))]
    span = (aspect, 1.0) if aspect >= 1 else (1.0, 1.0 / aspect)
    train = config.split == "train"
    counts = (config.min_objects, config.max_objects)
    cast = Cast(config.kinds, train, counts, config.camera, config.bars, config.mixed)
    scene = stage_scene(cast, span, config.frames, layout_rng)
    if not words:
        return scene, ()
    return scene, tuple(expressions_of(scene, words_rng, train=train, per_kind=config.per_kind))


def make_rich_scene(
    seed: int,
    config: RichConfig | None = None,
    indices: Sequence[int] | None = None,
    *,
    words: bool = True,
) -> RichScene:
    """Make the scene of a seed.

    Args:
        seed: see `svac_backend.synthetic.scene` for which seeds serve what.
        config: what it looks like; None takes the defaults.
        indices: paint these frames of the clip only, 0-based, in this order; each is the same as in the
            whole clip. None paints all.
        words: False leaves `expressions` empty.

    Raises:
        SvacError: for a negative seed or an index outside the clip.
    """
    config = config or RichConfig()
    chosen = tuple(range(config.frames)) if indices is None else tuple(int(i) for i in indices)
    if any(not 0 <= i < config.frames for i in chosen):
        raise SvacError(
            f"Scene {seed} has no such frames: the clip has {config.frames}.", "Use frame indices within it."
        )
    scene, expressions = describe(seed, config, words=words)
    film = Film(config.noise, config.blur, config.motion_blur)
    frames, masks = paint(scene, config.width, config.height, chosen, film, _streams(seed)[2])
    return RichScene(frames, masks, scene, expressions, chosen, seed, config.fps)


def _streams(seed: int) -> list[np.random.Generator]:
    """Return the random numbers of layout, words and looks."""
    return [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(3)]
