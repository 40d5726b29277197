"""SAM-2's image encoder over windows of frames, begun before the features are needed where there are cores for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base

from svac_backend.svac import preprocess
from svac_backend.svac.config import SamConfig
from svac_backend.svac.grounding import FrameFeatures, encode_frames
from svac_backend.svac.parallel import Workers

Picture = Callable[[], NDArray[np.uint8]]

# A video whose features are smaller than this is encoded while it is still being read.
HELD_FEATURES = 128 << 20


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

    def start(self, pictures: Sequence[Picture]) -> Callable[[], FrameFeatures]:
        """Begin to encode frames; what this returns waits for their features.

        Args:
            pictures: one function for each frame, which returns (and may wait for) u8 [S, S, 3].
        """
        shares = [pictures[share.start : share.stop] for share in self.workers.shares(len(pictures))]
        waiting = [self.workers.start(self._encode, share) for share in shares]
        return lambda: FrameFeatures.joined([wait() for wait in waiting])

    def _encode(self, pictures: Sequence[Picture]) -> FrameFeatures:
        return encode_frames(self.sam, preprocess.sam_pixels(np.stack([picture() for picture in pictures])))


def feature_bytes(config: SamConfig) -> int:
    """Return what one frame's features need in fp32: `low` and its positions, and the two maps of high resolution."""
    d, side = config.d_model, config.image_size
    return 4 * d * (2 * (side // 16) ** 2 + (side // 4) ** 2 // 8 + (side // 8) ** 2 // 4)
