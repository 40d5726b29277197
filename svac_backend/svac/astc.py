"""Anchor-Based Spatio-Temporal Compression (SVAC, section 3.3 and README; SaSaSa2VA's published code).

A clip of m frames becomes two images: its first frame, and one composite in which the other m - 1 frames are tiled
row by row at their native size. Both are then resized to the MLLM's image size, so that a clip costs two images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def composite(frames: Sequence[NDArray[np.uint8]], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Tile frames row by row; cells without a frame stay black.

    Args:
        frames: u8 [H, W, 3] each, at most rows x columns of them.
        grid: rows, columns.

    Returns:
        u8 [rows * H, columns * W, 3].
    """
    rows, columns = grid
    height, width = frames[0].shape[:2]
    # Zeros would be written, and then overwritten.
    make = np.empty if len(frames) == rows * columns else np.zeros
    canvas = make((rows * height, columns * width, 3), dtype=np.uint8)
    for cell, frame in enumerate(frames):
        top, left = cell // columns * height, cell % columns * width
        canvas[top : top + height, left : left + width] = frame
    return canvas


def clip_images(
    frames: Sequence[NDArray[np.uint8]], grid: tuple[int, int], *, compress: bool = True
) -> list[NDArray[np.uint8]]:
    """Return the images that the MLLM sees of one clip: anchor frame and composite, or every frame.

    Args:
        frames: the clip's frames, u8 [H, W, 3] each, the anchor frame first.
        grid: rows, columns of the composite.
        compress: False gives every frame as an image of its own (Sa2VA).
    """
    if not compress or len(frames) == 1:
        return list(frames)
    return [frames[0], composite(frames[1:], grid)]
