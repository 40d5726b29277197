"""Generated videos of the study: what is scored, and what is trained on. Frames are painted when they are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lab.mevis import choose
from lab.reproduction.variants import middles
from svac_backend.errors import SvacError
from svac_backend.svac import astc
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import FrameFeatures, encode_frames
from svac_backend.synthetic.rich.description import Description, measure
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED, VALIDATION_SEEDS

# Validation scenes of the study; other measurements of the project use those before.
FIRST_SEED, SEEDS_EACH = 7000, 200
# The aspects that the embedded model is trained on.
ASPECTS = (1.0, 4 / 3, 16 / 9, 9 / 16)


def look(model: Svac, length: int, split: Literal["train", "validation"]) -> RichConfig:
    """Return scenes at SAM-2's size, which nothing is resized for but what the MLLM sees."""
    side = model.config.sam.image_size
    return RichConfig(width=side, height=side, frames=length, split=split, aspects=ASPECTS, per_kind=4)


@dataclass
class Scored:
    """A scene that is scored.

    Attributes:
        seed, config: what its frames are painted from.
        expressions: E of its sentences.
        speeds: how fast the target of each moves, short sides of the frame per clip; None of what is not there.
        scored: the F frames that are scored.
        truth: bool [E, F, H, W].
        features: SAM-2's features of these frames.
    """

    seed: int
    config: RichConfig
    expressions: tuple[RichExpression, ...]
    speeds: tuple[float | None, ...]
    scored: tuple[int, ...]
    truth: NDArray[np.bool_]
    features: FrameFeatures

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Paint frames, u8 [k, H, W, 3]."""
        return make_rich_scene(self.seed, self.config, indices, words=False).frames


def scored_scenes(
    model: Svac, *, seed: int, count: int, length: int, scored: int, sentences: int
) -> list[Scored]:
    """Return the validation scenes of a seed, with SAM-2's features of the frames that are scored.

    Args:
        model: its SAM-2 stays as it is in the whole study.
        seed: another seed has other scenes.
        count: scenes.
        length: frames of a clip.
        scored: frames of each that are scored.
        sentences: of each scene; kinds are kept balanced over the scenes.

    Raises:
        SvacError: there are not so many scenes or seeds.
    """
    first = FIRST_SEED + seed * SEEDS_EACH
    if seed < 0 or count > SEEDS_EACH or first + count > VALIDATION_SEEDS.stop:
        most = (VALIDATION_SEEDS.stop - FIRST_SEED) // SEEDS_EACH
        raise SvacError(
            f"There are no {count} validation scenes of seed {seed}.",
            f"Use seeds 0 to {most - 1} and at most {SEEDS_EACH} scenes.",
        )
    config, at = look(model, length, "validation"), middles(scored, length)
    taken: Counter[str] = Counter()
    return [_scored(model, first + n, config, at, taken, sentences) for n in range(count)]


def _scored(
    model: Svac, seed: int, config: RichConfig, at: tuple[int, ...], taken: Counter[str], sentences: int
) -> Scored:
    scene = make_rich_scene(seed, config, at)
    said = tuple(choose(scene.expressions, taken, sentences))
    moved = speeds_of(scene.description)
    with torch.inference_mode():
        features = encode_frames(model.sam, astc.sam_pixels(scene.frames))
    return Scored(
        seed=seed,
        config=config,
        expressions=said,
        speeds=tuple(float(moved[list(e.targets)].mean()) if e.targets else None for e in said),
        scored=at,
        truth=np.stack([scene.target(e) for e in said]),
        features=features,
    )


def speeds_of(scene: Description) -> NDArray[np.float64]:
    """Return how fast each thing moves in the frame while it is seen: short sides of the frame per clip, f64 [N]."""
    # Reading 0 is the frame's; speeds outside the frame are NaN.
    speed = measure(scene).speed[0]
    known = ~np.isnan(speed)
    return np.asarray(np.nansum(speed, axis=1) / np.maximum(known.sum(axis=1), 1))


@dataclass
class Lesson:
    """A scene that is trained on.

    Attributes:
        frames: u8 [k, H, W, 3], what the MLLM sees.
        expressions: E sentences.
        taught: the F frames whose masks are trained.
        pixels: f32 [F, 3, S, S], these frames for SAM-2.
        target: f32 [E, F, S/2, S/2], the share of each cell that the target covers.
    """

    frames: NDArray[np.uint8]
    expressions: tuple[RichExpression, ...]
    taught: tuple[int, ...]
    pixels: Tensor
    target: Tensor


def lesson(
    config: RichConfig, rng: np.random.Generator, seen: Sequence[int], *, frames: int, sentences: int
) -> Lesson:
    """Make a training scene. Which scene, sentences and trained frames does not depend on what is seen.

    Args:
        config: what it looks like.
        rng: the same state gives the same lesson for every variant.
        seen: frames that the MLLM sees.
        frames: how many frames' masks are trained, one out of each of so many equal parts of the clip.
        sentences: how many sentences.
    """
    seed = int(FIRST_TRAIN_SEED + rng.integers(2**31))
    bounds = np.linspace(0, config.frames, frames + 1).astype(int)
    taught = tuple(int(rng.integers(low, high)) for low, high in pairwise(bounds))
    order = rng.permutation(1000)
    painted = sorted({*seen, *taught})
    scene = make_rich_scene(seed, replace(config, split="train"), painted)
    row = {index: k for k, index in enumerate(painted)}
    # `order` is drawn before anything depends on the scene, so that the generator stays in step.
    chosen = sorted(range(len(scene.expressions)), key=lambda k: order[k])[:sentences]
    said = tuple(scene.expressions[k] for k in chosen)
    rows = [row[i] for i in taught]
    masks = torch.from_numpy(np.stack([scene.target(e)[rows] for e in said])).float()
    return Lesson(
        frames=scene.frames[[row[i] for i in seen]],
        expressions=said,
        taught=taught,
        pixels=astc.sam_pixels(scene.frames[rows]),
        target=F.avg_pool2d(masks, 2),
    )
