"""Pixel values for the MLLM and for SAM-2.

Both models were trained on PIL's bicubic filter. torch's antialiased bicubic differs from it by 1-2 grey levels and
OpenCV's by up to 17, so PIL's pixels are what is used here.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize u8 [H, W, 3] to u8 [size, size, 3], bicubic with antialiasing, without keeping the aspect ratio."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def mllm_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Normalise u8 [n, S, S, 3] for the vision tower; returns f32 [n, 3, S, S] on the CPU."""
    return _normalised(images, torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))


def sam_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Normalise u8 [n, S, S, 3] for SAM-2; returns f32 [n, 3, S, S] on the CPU.

    The published models keep mean and std in bf16, and their pixels carry that rounding.
    """
    mean, std = (torch.tensor(values).bfloat16().float() for values in (IMAGENET_MEAN, IMAGENET_STD))
    return _normalised(images, mean, std)


def _normalised(images: NDArray[np.uint8], mean: Tensor, std: Tensor) -> Tensor:
    planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return planes.float().div_(255).sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))
