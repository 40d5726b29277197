"""Pixel values for the MLLM and for SAM-2.

Both models were trained on PIL's bicubic filter. torch's antialiased bicubic differs from it by 1-2 grey levels and
OpenCV's by up to 17, so PIL is what is used here; it releases the GIL, and images are resized in threads.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
POOL = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="resize")


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize u8 [H, W, 3] to u8 [size, size, 3], bicubic with antialiasing, without keeping the aspect ratio."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def mllm_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Normalise u8 [n, S, S, 3] for the vision tower; returns f32 [n, 3, S, S] on the CPU."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float().div_(255)
    return pixels.sub_(mean).div_(std)


def sam_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Normalise u8 [n, S, S, 3] for SAM-2; returns f32 [n, 3, S, S] on the CPU.

    The published models keep mean and std in bf16, and their pixels carry that rounding.
    """
    mean = torch.tensor(IMAGENET_MEAN).bfloat16().float().view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).bfloat16().float().view(3, 1, 1)
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float().div_(255)
    return pixels.sub_(mean).div_(std)
