"""Pictures resized in threads of their own, with the pixels that Pillow gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from svac_backend.svac import preprocess, resampling
from svac_backend.svac.parallel import single_threads

T = TypeVar("T")

# How many pixels a picture must have for each pixel of its resized one, so that matrix products beat Pillow.
_SHRINKS = 4
_LOCK = Lock()


def submit(function: Callable[..., T], *args: object) -> Future[T]:
    """Run it in one of the threads; `resize` may be called there."""
    with _LOCK:
        pool = _pool()
    return pool.submit(function, *args)


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return what `preprocess.resize` does, sooner where it can. Only for `submit`: it wants one torch thread."""
    height, width = image.shape[:2]
    if width >= height >= size and height * width >= _SHRINKS * size * size and resampling.is_exact():
        return resampling.shrink(image, size)
    return preprocess.resize(image, size)


@cache
def _pool() -> ThreadPoolExecutor:
    return single_threads(min(8, os.cpu_count() or 1), "resize")
