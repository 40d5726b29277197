"""What is compared: which frames the MLLM sees, as how many images and visual tokens, and how many [SEG] answer.

Pure integers; nothing here knows torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from svac_backend.errors import SvacError
from svac_backend.svac.astc import plan
from svac_backend.svac.config import MethodConfig, SvacConfig

Way = Literal["full", "astc", "pool", "merge"]
CLAIMS = ("frames", "tokens", "csa")
FRAME_COUNTS = (1, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Variant:
    """One way to show a video to the MLLM.

    Attributes:
        name: of the variant within its claim.
        label: for tables and plots.
        way: `full`: every frame is an image; `astc`: anchor frames and composites; `pool`, `merge`: every frame is an
            image whose tokens are pooled or merged to `tokens_per_image`.
        frames: how many frames the MLLM sees.
        tokens_per_image: visual tokens of one image that reach the language model.
        segs: [SEG] tokens of the answer; each owns an equal part of the video.
        clip: frames of one clip, for `astc`.
        grid: rows and columns of the composite, for `astc`.
        series: what belongs together as the number of frames grows.
        weights_of: name of the variant of the claim whose adapted weights are used; its own name as a rule.
    """

    name: str
    label: str
    way: Way
    frames: int
    tokens_per_image: int
    segs: int
    clip: int = 1
    grid: tuple[int, int] = (1, 1)
    series: str = ""
    weights_of: str = ""

    @property
    def images(self) -> int:
        """Images that the language model sees."""
        return self.frames // self.clip * min(2, self.clip) if self.way == "astc" else self.frames

    @property
    def tokens(self) -> int:
        """Visual tokens that the language model sees."""
        return self.images * self.tokens_per_image

    @property
    def identity(self) -> tuple[object, ...]:
        """What is equal for variants of two claims that are the same thing."""
        return self.way, self.frames, self.tokens_per_image, self.segs, self.clip, self.grid

    def seen(self, length: int) -> tuple[int, ...]:
        """Return the frames that the MLLM sees of a video of `length` frames, 0-based, ascending."""
        return middles(self.frames, length)

    def owners(self, length: int) -> dict[int, int]:
        """Return which [SEG] each frame of the video is decoded with; the package's own rule (CSA)."""
        method = MethodConfig(num_clips=self.segs, frames_per_clip=1, astc=False)
        return dict(plan(length, method).decode)


def middles(count: int, length: int) -> tuple[int, ...]:
    """Return the middle frame of each of `count` equal parts of a video of `length` frames.

    Raises:
        SvacError: more frames than there are.
    """
    if not 1 <= count <= length:
        raise SvacError(
            f"{count} different frames can't be taken from {length}.", "Use a longer clip, or fewer frames."
        )
    return tuple((2 * k + 1) * length // (2 * count) for k in range(count))


def nearest_grid(tokens: int, side: int) -> tuple[int, int]:
    """Return rows <= columns <= side with the largest product that is not above `tokens`; of equals the squarest."""
    fits = [(r, c) for c in range(1, side + 1) for r in range(1, c + 1) if r * c <= tokens]
    if not fits:
        raise SvacError(
            "Not even one token an image is within the budget.",
            "Use a model with more clips or fewer frames.",
        )
    return max(fits, key=lambda cell: (cell[0] * cell[1], cell[0] - cell[1]))


def variants_of(claim: str, config: SvacConfig, *, length: int, limit: int = 0) -> tuple[Variant, ...]:
    """Return what a claim compares, on a model of this configuration.

    Args:
        claim: one of `CLAIMS`.
        config: of the model; its method must be ASTC with clips of more than one frame.
        length: frames of the video.
        limit: variants with more visual tokens are not adapted; they take the weights of the largest one of their
            series that is. 0: every variant is adapted.

    Raises:
        SvacError: no such claim, or a model that is run another way.
    """
    method = config.method
    if not method.astc or method.frames_per_clip < 2:
        raise SvacError(
            "The study needs a model that is run with ASTC, in clips of two frames or more.",
            "Use svac-tiny, or a model with the preset svac or sasasa2va.",
        )
    if claim == "frames":
        return _frames(config, length, limit)
    if claim == "tokens":
        return _tokens(config)
    if claim == "csa":
        return _csa(config)
    raise SvacError(f"There is no claim {claim!r}.", f"Choose from {', '.join(CLAIMS)}.")


def own_astc(config: SvacConfig, frames: int | None = None) -> Variant:
    """Return the model's own way, or the same with another number of frames (a multiple of its clips' length)."""
    method = config.method
    count = frames or method.num_clips * method.frames_per_clip
    return Variant(
        name=f"astc-{count}",
        label=f"ASTC, {count} frames",
        way="astc",
        frames=count,
        tokens_per_image=config.tokens_per_image,
        segs=method.num_clips,
        clip=method.frames_per_clip,
        grid=method.grid,
        series="ASTC",
        weights_of=f"astc-{count}",
    )


def _full(config: SvacConfig, frames: int) -> Variant:
    return Variant(
        name=f"full-{frames}",
        label=f"{frames} full frame{'s' if frames > 1 else ''}",
        way="full",
        frames=frames,
        tokens_per_image=config.tokens_per_image,
        segs=config.method.num_clips,
        series="full frames",
        weights_of=f"full-{frames}",
    )


def _frames(config: SvacConfig, length: int, limit: int) -> tuple[Variant, ...]:
    own = own_astc(config).frames
    full = [_full(config, count) for count in FRAME_COUNTS if count <= length]
    more = [n for n in FRAME_COUNTS if own < n <= length and n % config.method.frames_per_clip == 0]
    astc = [own_astc(config, count) for count in (own, *more)]
    return (*_limited(full, limit), *_limited(astc, limit))


def _limited(series: list[Variant], limit: int) -> list[Variant]:
    """Let those above the limit take the weights of the largest one below it, or of the smallest one of all."""
    adapted = [v for v in series if not limit or v.tokens <= limit] or series[:1]
    return [v if v in adapted else replace(v, weights_of=adapted[-1].name) for v in series]


def _tokens(config: SvacConfig) -> tuple[Variant, ...]:
    astc = own_astc(config)
    side = round(config.tokens_per_image**0.5)
    rows, columns = nearest_grid(astc.tokens // astc.frames, side)
    few = replace(
        astc,
        way="pool",
        name="pool",
        tokens_per_image=rows * columns,
        clip=1,
        grid=(rows, columns),
        series="",
    )
    named = (
        replace(astc, name="astc", label="ASTC"),
        replace(_full(config, astc.images), name="sparse", label="sparse full frames"),
        replace(few, label=f"average pooling to {rows}x{columns}"),
        replace(few, name="merge", way="merge", label=f"token merging to {rows * columns}", grid=(1, 1)),
    )
    return tuple(replace(v, series=v.label, weights_of=v.name) for v in named)


def _csa(config: SvacConfig) -> tuple[Variant, ...]:
    astc = own_astc(config)
    many = f"one [SEG] per clip ({astc.segs})"
    return (
        replace(astc, name="per-clip", label=many, series=many, weights_of="per-clip"),
        replace(
            astc,
            name="one",
            label="one [SEG] for the video",
            series="one [SEG] for the video",
            segs=1,
            weights_of="one",
        ),
    )
