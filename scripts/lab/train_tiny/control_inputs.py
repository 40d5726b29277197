"""What the language model is shown of a video in a control: another video, another order, a single frame.

SAM-2 always sees the right frames; only what [SEG] can know of them changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svac_backend.errors import SvacError
from svac_backend.svac import astc
from svac_backend.svac.astc import ClipPlan, clip_images, plan
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.cpu.parallel import Workers, all_threads
from svac_backend.svac.language.mllm import Mllm
from svac_backend.svac.model import Svac
from svac_backend.svac.streaming import FrameFeed
from svac_backend.video.source import VideoSource


@dataclass(frozen=True)
class PromptImages:
    """One prompt's images, and whose [SEG] tokens they make.

    Attributes:
        frames: N x m frames, clip after clip, in any order and as often as wanted.
        clips: (place in the prompt, clip of the video that its [SEG] is used for).
        video: where the frames come from; None: the video itself.
    """

    frames: tuple[int, ...]
    clips: tuple[tuple[int, int], ...]
    video: VideoSource | None = None


ControlInput = Callable[[ClipPlan], list[PromptImages]]


def as_it_is(clips: ClipPlan) -> list[PromptImages]:
    """Show what the model is shown otherwise."""
    return [PromptImages(clips.selected, _straight(clips))]


def frozen(at: float) -> ControlInput:
    """Show one frame wherever a frame is shown: that at the fraction `at` of the video, 0..1."""

    def control(clips: ClipPlan) -> list[PromptImages]:
        frame = round(at * (clips.num_frames - 1))
        return [PromptImages((frame,) * len(clips.selected), _straight(clips))]

    return control


def own_frame(clips: ClipPlan) -> list[PromptImages]:
    """Show each clip its anchor frame alone, wherever a frame is shown: places are right, and there is no time."""
    return [
        PromptImages((clips.clip(n)[0],) * len(clips.selected), ((n, n),)) for n in range(clips.num_clips)
    ]


def shuffled(seed: int) -> ControlInput:
    """Show the clips in another order, and the frames of each behind its anchor frame, too.

    Each clip's [SEG] is that of the place where the clip was shown, so that it has seen the right frames.
    """

    def control(clips: ClipPlan) -> list[PromptImages]:
        rng = np.random.default_rng(seed)
        order = rng.permutation(clips.num_clips).tolist()
        while clips.num_clips > 1 and order == sorted(order):
            order = rng.permutation(clips.num_clips).tolist()
        frames: list[int] = []
        for number in order:
            anchor, *others = clips.clip(number)
            frames += [anchor, *(int(frame) for frame in rng.permutation(others))]
        return [PromptImages(tuple(frames), tuple(enumerate(order)))]

    return control


def of_another(video: VideoSource, config: SvacConfig) -> ControlInput:
    """Show another video."""
    other = plan(len(video), config.method)
    return lambda clips: [PromptImages(other.selected, _straight(clips), video)]


class ControlledSvac(Svac):
    """A model whose expressions come in blocks of equal size, each block with prompt images of its own.

    Set `inputs` before `segment`; the k-th block of expressions gets the k-th input. Frames are encoded once for all.
    """

    inputs: Sequence[ControlInput] = (as_it_is,)

    def _objects(
        self,
        feed: FrameFeed,
        expressions: Sequence[str],
        answers: Sequence[str | None] | None,
        workers: Workers,
        mllms: Sequence[Mllm],
    ) -> tuple[list[Tensor], list[int]]:
        """Return what `Svac._objects` does, each block with its own input."""
        feed.clip_pixels()  # reads the frames for SAM-2, too
        size, rest = divmod(len(expressions), len(self.inputs))
        if rest or answers is not None:
            raise SvacError(
                "Each control needs as many expressions as the others, and no answers.",
                "Repeat the expressions once per control.",
            )
        with all_threads(workers):
            blocks = [
                self._block(feed, control(feed.clips), expressions[k * size : (k + 1) * size], mllms)
                for k, control in enumerate(self.inputs)
            ]
        return [torch.cat(found) for found in zip(*blocks, strict=True)], list(range(len(expressions)))

    def _block(
        self,
        feed: FrameFeed,
        prompts: Sequence[PromptImages],
        expressions: Sequence[str],
        mllms: Sequence[Mllm],
    ) -> list[Tensor]:
        """Return the embeddings f32 [E, N, d_model] of a block by each of `mllms`."""
        found: list[Tensor] = []
        for prompt in prompts:
            images = self._images(prompt.video or feed.video, prompt.frames, feed.clips.frames_per_clip)
            said, owners = self._seen(images, feed.clips.num_clips, expressions, None, mllms)
            if owners != list(range(len(expressions))):
                raise SvacError(
                    "In a control every expression is one object.", "Use a method with a [SEG] per clip."
                )
            found = found or [torch.zeros_like(states) for states in said]
            for rows, states in zip(found, said, strict=True):
                for place, clip in prompt.clips:
                    rows[:, clip] = states[:, place]
        if not found:
            raise SvacError("A control shows the model no images.", "Return images for at least one prompt.")
        return found

    def _images(self, video: VideoSource, frames: Sequence[int], per_clip: int) -> NDArray[np.uint8]:
        """Return what `FrameFeed.clip_pixels` makes of frames in any order: u8 [n_images, S, S, 3]."""
        method, side = self.config.method, self.config.vision.image_size
        read = dict(video.frames(sorted(set(frames))))
        made = []
        for start in range(0, len(frames), per_clip):
            clip = [read[frame] for frame in frames[start : start + per_clip]]
            made += clip_images(clip, method.grid, compress=method.astc)
        return np.stack([astc.resize(image, side) for image in made])


def _straight(clips: ClipPlan) -> tuple[tuple[int, int], ...]:
    return tuple((n, n) for n in range(clips.num_clips))
