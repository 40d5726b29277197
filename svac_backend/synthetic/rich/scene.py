"""Rich scenes: referring videos from a seed whose sentences need their words, and many of them time.

The same seed and configuration give the same bytes on the same numpy, OpenCV, Pillow and font. Seeds are split by use
as in `svac_backend.synthetic.scene`; kinds, pairs of colour and kind, and wordings that are kept from training
appear with `split="validation"` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.synthetic.rich.description import Description, Look
from svac_backend.synthetic.rich.painter import paint
from svac_backend.synthetic.rich.phrases import RichExpression, expressions_of
from svac_backend.synthetic.rich.staging import RichConfig, stage_scene


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
    scene = stage_scene(config, span, layout_rng)
    if not words:
        return scene, ()
    return scene, tuple(
        expressions_of(scene, words_rng, train=config.split == "train", per_kind=config.per_kind)
    )


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
    frames, masks = paint(scene, config, chosen, _streams(seed)[2])
    return RichScene(frames, masks, scene, expressions, chosen, seed, config.fps)


def _streams(seed: int) -> list[np.random.Generator]:
    """Return the random numbers of layout, words and looks."""
    return [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(3)]
