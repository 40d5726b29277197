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
from svac_backend.svac.model import Svac
from svac_backend.svac.streaming import FrameFeed
from svac_backend.video.reader import VideoSource


@dataclass(frozen=True)
class Look:
    """One prompt's images, and whose [SEG] tokens they make.

    Attributes:
        frames: N x m frames, clip after clip, in any order and as often as wanted.
        clips: (place in the prompt, clip of the video that its [SEG] is used for).
        video: where the frames come from; None: the video itself.
    """

    frames: tuple[int, ...]
    clips: tuple[tuple[int, int], ...]
    video: VideoSource | None = None


View = Callable[[ClipPlan], list[Look]]


def as_it_is(clips: ClipPlan) -> list[Look]:
    """Show what the model is shown otherwise."""
    return [Look(clips.selected, _straight(clips))]


def frozen(at: float) -> View:
    """Show one frame wherever a frame is shown: that at the fraction `at` of the video, 0..1."""

    def view(clips: ClipPlan) -> list[Look]:
        frame = round(at * (clips.num_frames - 1))
        return [Look((frame,) * len(clips.selected), _straight(clips))]

    return view


def own_frame(clips: ClipPlan) -> list[Look]:
    """Show each clip its anchor frame alone, wherever a frame is shown: places are right, and there is no time."""
    return [Look((clips.clip(n)[0],) * len(clips.selected), ((n, n),)) for n in range(clips.num_clips)]


def shuffled(seed: int) -> View:
    """Show the clips in another order, and the frames of each behind its anchor frame, too.

    Each clip's [SEG] is that of the place where the clip was shown, so that it has seen the right frames.
    """

    def view(clips: ClipPlan) -> list[Look]:
        rng = np.random.default_rng(seed)
        order = rng.permutation(clips.num_clips).tolist()
        while clips.num_clips > 1 and order == sorted(order):
            order = rng.permutation(clips.num_clips).tolist()
        frames: list[int] = []
        for number in order:
            anchor, *others = clips.clip(number)
            frames += [anchor, *(int(frame) for frame in rng.permutation(others))]
        return [Look(tuple(frames), tuple(enumerate(order)))]

    return view


def of_another(video: VideoSource, config: SvacConfig) -> View:
    """Show another video."""
    other = plan(len(video), config.method)
    return lambda clips: [Look(other.selected, _straight(clips), video)]


class ViewedSvac(Svac):
    """A model whose expressions come in blocks of equal size, each block under a view of its own.

    Set `views` before `segment`; the expressions of view k are the k-th block. The frames are encoded once for all.
    """

    views: Sequence[View] = (as_it_is,)

    def _objects(
        self,
        feed: FrameFeed,
        expressions: Sequence[str],
        answers: Sequence[str | None] | None,
        workers: Workers,
    ) -> tuple[Tensor, list[int]]:
        """Return what `Svac._objects` does, each block under its view."""
        feed.clip_pixels()  # reads the frames for SAM-2, too
        size, rest = divmod(len(expressions), len(self.views))
        if rest or answers is not None:
            raise SvacError(
                "Each view needs as many expressions as the others, and no answers.",
                "Repeat the expressions once per view.",
            )
        with all_threads(workers):
            blocks = [
                self._block(feed, look_at(feed.clips), expressions[k * size : (k + 1) * size])
                for k, look_at in enumerate(self.views)
            ]
        return torch.cat(blocks), list(range(len(expressions)))

    def _block(self, feed: FrameFeed, looks: Sequence[Look], expressions: Sequence[str]) -> Tensor:
        """Return the embeddings f32 [E, N, d_model] of a block."""
        found: Tensor | None = None
        for look in looks:
            images = self._images(look.video or feed.video, look.frames, feed.clips.frames_per_clip)
            states, owners = self._seen(images, feed.clips.num_clips, expressions, None)
            if owners != list(range(len(expressions))):
                raise SvacError(
                    "Under views every expression is one object.", "Use a method with a [SEG] per clip."
                )
            found = torch.zeros_like(states) if found is None else found
            for place, clip in look.clips:
                found[:, clip] = states[:, place]
        if found is None:
            raise SvacError("A view shows nothing.", "Return at least one look.")
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
