"""SAM-2's image encoder over windows of frames, begun before the features are needed where there are cores for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base

from svac_backend.svac import preprocess
from svac_backend.svac.grounding import FrameFeatures, encode_frames
from svac_backend.svac.parallel import Workers


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

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], FrameFeatures]:
        """Begin to encode frames, u8 [n, S, S, 3]; what this returns waits for their features."""
        shares = [pixels[share.start : share.stop] for share in self.workers.shares(len(pixels))]
        waiting = [self.workers.start(self._encode, share) for share in shares]
        return lambda: FrameFeatures.joined([wait() for wait in waiting])

    def _encode(self, pixels: NDArray[np.uint8]) -> FrameFeatures:
        return encode_frames(self.sam, preprocess.sam_pixels(pixels))
