"""From a video to what the MLLM and SAM-2 see: clips, Anchor-Based Spatio-Temporal Compression (ASTC), pixel values.

Clips (pure integers): which frames the MLLM sees, which clip each frame belongs to, and which [SEG] decodes it. The
rules of `uniform`, `uniform_plus`, `wrap_around` and `wrap_around_plus` are those of the published SaSaSa2VA code;
`first` is Sa2VA's, `linspace` Sa2VA-i's.

ASTC (SVAC, section 3.3 and README; SaSaSa2VA's published code): a clip of m frames becomes two images, its first frame
and one composite in which the other m - 1 frames are tiled row by row at their native size. Both are then resized to
the MLLM's image size, so that a clip costs two images.

Pixel values: both models were trained on PIL's bicubic filter. torch's antialiased bicubic differs from it by 1-2 grey
levels and OpenCV's by up to 17, so PIL's pixels are what is used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from svac_backend.errors import SvacError
from svac_backend.svac.config import MethodConfig


@dataclass(frozen=True)
class ClipPlan:
    """The plan of one video.

    Attributes:
        selected: 0-based indices of the N x m frames that the MLLM sees, clip after clip, ascending.
        decode: (frame, clip) pairs that are decoded with a [SEG] embedding; ascending by frame. A frame can stand in
            several pairs (`uniform_plus` on short videos); its logits are then averaged, as the published code does.
        propagated: first frame that SAM-2's memory has to reach, or None when every frame is decoded.
        frames_per_clip: m.
        num_frames: frames of the video.
    """

    selected: tuple[int, ...]
    decode: tuple[tuple[int, int], ...]
    propagated: int | None
    frames_per_clip: int
    num_frames: int

    @property
    def num_clips(self) -> int:
        """N."""
        return len(self.selected) // self.frames_per_clip

    @property
    def anchors(self) -> tuple[int, ...]:
        """The anchor frame of each clip."""
        return self.selected[:: self.frames_per_clip]

    def clip(self, number: int) -> tuple[int, ...]:
        """Return the frames of one clip, the anchor frame first."""
        start = number * self.frames_per_clip
        return self.selected[start : start + self.frames_per_clip]


def plan(num_frames: int, method: MethodConfig) -> ClipPlan:
    """Plan a video of `num_frames` frames.

    Raises:
        SvacError: the video has no frame.
    """
    if num_frames < 1:
        raise SvacError("The video has no frame.", "Check that the file plays in a video player.")
    m, n = method.frames_per_clip, method.num_clips
    total = n * m
    if method.sampling in ("first", "linspace"):
        # The first frames, or first and last and evenly spaced ones between, cut to whole numbers as in Sa2VA-i's code.
        # A short video has fewer images, not repeated ones.
        spread = range(total)
        if method.sampling == "linspace":
            spread = np.linspace(0, num_frames - 1, total, dtype=int).tolist()
        seen = tuple(sorted({i for i in spread if i < num_frames}))
        rest = next((i for i in range(num_frames) if i not in seen), None)
        return ClipPlan(seen, tuple((i, 0) for i in seen), rest, len(seen), num_frames)
    wraps = method.sampling in ("wrap_around", "wrap_around_plus") and num_frames < total
    if wraps:
        selected = tuple(sorted(k % num_frames for k in range(total)))
    elif method.sampling == "wrap_around":
        selected = tuple(range(total))
    else:
        selected = tuple(k * num_frames // total for k in range(total))

    propagated: int | None = None
    if method.sampling == "uniform_plus" and num_frames < total:
        decode = tuple((frame, k // m) for k, frame in enumerate(selected))
    elif wraps:
        first: dict[int, int] = {}
        for k, frame in enumerate(selected):
            first.setdefault(frame, k // m)
        decode = tuple(sorted(first.items()))
    elif method.sampling == "wrap_around" and num_frames > total:
        decode = tuple((i, i // m) for i in range(total))
        propagated = total
    else:
        decode = tuple((i, i * n // num_frames) for i in range(num_frames))
    if method.propagation == "memory" and propagated is None and len({f for f, _ in decode}) < num_frames:
        propagated = decode[-1][0] + 1
    return ClipPlan(selected, decode, propagated, frames_per_clip=m, num_frames=num_frames)


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


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize u8 [H, W, 3] to u8 [size, size, 3], bicubic with antialiasing, without keeping the aspect ratio."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def mllm_pixels(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Normalise n images u8 [S, S, 3] for InternViT; returns f32 [n, 3, S, S] on the CPU."""
    return _normalised(np.stack(images), torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))


def sam_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Normalise u8 [n, S, S, 3] for SAM-2; returns f32 [n, 3, S, S] on the CPU.

    The published models keep mean and std in bf16, and their pixels carry that rounding.
    """
    mean, std = (torch.tensor(values).bfloat16().float() for values in (IMAGENET_MEAN, IMAGENET_STD))
    return _normalised(images, mean, std)


def _normalised(images: NDArray[np.uint8], mean: Tensor, std: Tensor) -> Tensor:
    planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return planes.float().div_(255).sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))
