"""SAM-2's image encoder over windows of frames, begun before the features are needed where there are cores for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base

from svac_backend.svac import preprocess
from svac_backend.svac.grounding import FrameFeatures, encode_frames
from svac_backend.svac.parallel import Workers

T = TypeVar("T")

# A window at SAM-2's size has so many pixels, and so many frames at most: more take memory and no less time.
_WINDOW_PIXELS, _WINDOW_FRAMES = 16 * 1024**2, 32


class FrameEncoder:
    """Encodes windows of frames.

    Args:
        sam: the model.
        workers: each takes a part of a window's frames.
    """

    def __init__(self, sam: SAM2Base, workers: Workers) -> None:
        self.sam = sam
        self.workers = workers

    @property
    def ahead(self) -> bool:
        """Whether a window is encoded while the caller does something else."""
        return self.workers.count > 1

    def start(
        self, first: int, pixels: NDArray[np.uint8], then: Callable[[int, FrameFeatures], T]
    ) -> Callable[[], list[T]]:
        """Begin to encode frames, u8 [n, S, S, 3], the first of which is frame `first`.

        Each worker goes on with its own part: `then` gets the part's first frame and its features. What this returns
        waits for all parts and gives what `then` made of them, in order.
        """

        def work(share: range) -> T:
            features = encode_frames(self.sam, preprocess.sam_pixels(pixels[share.start : share.stop]))
            return then(first + share.start, features)

        waiting = [self.workers.start(work, share) for share in self.workers.shares(len(pixels))]
        return lambda: [wait() for wait in waiting]


def frames_at_a_time(size: int) -> int:
    """Return how many frames of a video are encoded at a time, where SAM-2 sees pictures of `size` px."""
    return max(1, min(_WINDOW_FRAMES, _WINDOW_PIXELS // size**2))
