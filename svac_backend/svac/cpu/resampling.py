"""Pictures resized in threads: Pillow's bicubic pixels, as products of integer matrices, two to four times sooner.

Pillow works in fixed point: weights of 22 fractional bits, one pass along the rows, whose result is rounded to a byte,
and one down the columns (its `Resample.c`). Both passes are banded matrix products, and each weight is three signed
bytes, so that the byte products of current processors (VNNI, AMX) give the same sums. Where they saturate, as without
VNNI, `is_exact` says so.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache
from threading import Lock
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svac_backend.svac import astc
from svac_backend.svac.cpu.parallel import single_threads

_BITS = 22
_HALF = 1 << (_BITS - 1)
# Signed bytes: pixels are shifted by this, and the sums shifted back.
_SHIFT = 128
# Target pixels whose products are computed together: more of them have more zeros in their band.
_BAND = 32
# Where bands begin and end in the picture, as the processor's byte products take them.
_STEP = 64
# Sizes of pictures for which a thread keeps its memory: frames and composites of one video, or of two.
_HELD = 4
_THREAD = threading.local()


class _Pass(NamedTuple):
    """One pass, in n bands of target places, the last of which may have more places than there are.

    Attributes:
        low, high: for each band the source places that it is made from.
        weights: for each band i8, its places and their three bytes: the lowest of all, the middle ones, the highest.
        offset: i32, added to the sums: Pillow's half, and what the shifts of the pixels amount to.
    """

    low: list[int]
    high: list[int]
    weights: list[Tensor]
    offset: Tensor


@cache
def is_exact() -> bool:
    """Whether this machine multiplies bytes without saturating on the way."""
    left, right = torch.full((16, 64), 127, dtype=torch.int8), torch.full((64, 16), 127, dtype=torch.int8)
    return bool((torch._int_mm(left, right) == 127 * 127 * 64).all())


@cache
def is_quick() -> bool:
    """Whether this machine multiplies bytes about as fast as floats: without VNNI torch does it one by one.

    Pixels are the same either way, so a measurement may decide.
    """
    left, right = torch.ones((512, 256), dtype=torch.int8), torch.ones((256, 96), dtype=torch.int8)

    def seconds(work: Callable[[], Tensor]) -> float:
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        return min(times)

    floats = left.float(), right.float()
    return seconds(lambda: torch._int_mm(left, right)) < 4 * seconds(lambda: torch.mm(*floats))


def shrink(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize u8 [H, W, 3] to u8 [size, size, 3] as Pillow's `resize` does with `BICUBIC`, to the bit.

    For pictures at least as wide as high and as high as `size`: with others, version 13 of Pillow may go down the
    columns first, which rounds otherwise. `is_exact` must hold. Meant for one torch thread.
    """
    held: dict[tuple[int, ...], _Shrinker] = _THREAD.__dict__.setdefault("shrinkers", {})
    key = (*image.shape, size)
    if key not in held:
        while len(held) >= _HELD:
            held.pop(next(iter(held)))
        held[key] = _Shrinker(*key)
    return held[key](image)


class _Shrinker:
    """The products for one size of pictures, and memory for what lies between; for one thread.

    Few and large operations on memory that stays: threads that resize beside each other would wait for Python's lock
    between small ones, and for the kernel's when they take memory.

    Args:
        height, width, channels: of the pictures.
        size: of what they become.
    """

    def __init__(self, height: int, width: int, channels: int, size: int) -> None:
        self.across, self.down = _across(width, size), _down(height, size)
        bands, columns = len(self.across.low), channels * len(self.across.low) * _BAND
        self.planes = torch.empty(channels, height, width, dtype=torch.int8)
        self.channels = [plane.view(torch.uint8).numpy() for plane in self.planes]
        rows = self.planes.view(-1, width)
        self.wide = [rows[:, low:high] for low, high in zip(self.across.low, self.across.high, strict=True)]
        self.sums_across = torch.empty(bands, channels * height, 3, _BAND, dtype=torch.int32)
        self.joined_across = torch.empty(bands, channels * height, _BAND, dtype=torch.int32)
        self.rows = torch.empty(height, columns, dtype=torch.int8)
        self.tall = [self.rows[low:high] for low, high in zip(self.down.low, self.down.high, strict=True)]
        self.sums_down = torch.empty(len(self.down.low), 3, _BAND, columns, dtype=torch.int32)
        self.joined_down = torch.empty(len(self.down.low), _BAND, columns, dtype=torch.int32)
        self.rows_out = self.rows.view(height, channels, bands, _BAND)
        self.rows_in = self.joined_across.view(bands, channels, height, _BAND).permute(2, 1, 0, 3)
        self.result = self.joined_down.view(-1, channels, bands * _BAND)[:size, :, :size].transpose(1, 2)
        self.outs_across = list(self.sums_across.flatten(2))
        self.outs_down = list(self.sums_down.flatten(1, 2))
        self.digits_across = self.sums_across.unbind(2)
        self.digits_down = self.sums_down.unbind(1)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the picture resized, in memory of its own."""
        cv2.split(np.ascontiguousarray(image), self.channels)
        self.planes.bitwise_xor_(-_SHIFT)
        for pixels, weights, out in zip(self.wide, self.across.weights, self.outs_across, strict=True):
            torch._int_mm(pixels, weights, out=out)
        _join(self.digits_across, self.across.offset, self.joined_across).clamp_(-_SHIFT, _SHIFT - 1)
        self.rows_out.copy_(self.rows_in)
        for pixels, weights, out in zip(self.tall, self.down.weights, self.outs_down, strict=True):
            torch._int_mm(weights, pixels, out=out)
        _join(self.digits_down, self.down.offset, self.joined_down).clamp_(0, 255)
        return self.result.to(torch.uint8, memory_format=torch.contiguous_format).numpy()


def _join(digits: Sequence[Tensor], offset: Tensor, out: Tensor) -> Tensor:
    """Join the sums of the weights' bytes, the lowest first, i32 each, and drop the fractional bits."""
    low, middle, high = digits
    torch.add(middle, high, alpha=256, out=out)
    return torch.add(low, out, alpha=256, out=out).add_(offset).bitwise_right_shift_(_BITS)


@lru_cache(maxsize=16)
def _across(source: int, target: int) -> _Pass:
    """Return the first pass: weights right of the pixels, i8 [high - low, 3 * band]; its result stays shifted."""
    low, weights = zip(*_bands(source, target), strict=True)
    offset = np.stack([_HALF + _SHIFT * part.sum(0) - (_SHIFT << _BITS) for part in weights])
    digits = [torch.from_numpy(np.concatenate(_bytes(part), axis=1)) for part in weights]
    high = [first + len(part) for first, part in zip(low, weights, strict=True)]
    return _Pass(list(low), high, digits, torch.from_numpy(offset.astype(np.int32))[:, None])


@lru_cache(maxsize=16)
def _down(source: int, target: int) -> _Pass:
    """Return the second pass: weights left of the pixels, i8 [3 * band, high - low]."""
    low, weights = zip(*_bands(source, target), strict=True)
    offset = np.stack([_HALF + _SHIFT * part.sum(0) for part in weights])
    digits = [torch.from_numpy(np.concatenate(_bytes(part), axis=1)).T.contiguous() for part in weights]
    high = [first + len(part) for first, part in zip(low, weights, strict=True)]
    return _Pass(list(low), high, digits, torch.from_numpy(offset.astype(np.int32))[:, :, None])


def _bytes(weights: NDArray[np.int64]) -> list[NDArray[np.int8]]:
    """Return the weights' three signed bytes, the lowest first."""
    digits, rest = [], weights
    for _ in range(3):
        digit = ((rest + 128) & 255) - 128
        digits.append(digit.astype(np.int8))
        rest = (rest - digit) >> 8
    return digits


def _bands(source: int, target: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Return (first source place, weights i64 [source places, band]) of each band; places beyond the last have none."""
    places = [_weights(source, target, place) for place in range(target)]
    bands: list[tuple[int, NDArray[np.int64]]] = []
    for begin in range(0, target, _BAND):
        part = places[begin : begin + _BAND]
        low = min(first for first, _ in part) // _STEP * _STEP
        high = max(first + len(weights) for first, weights in part)
        high = min(-(-high // _STEP) * _STEP, source)
        dense = np.zeros((high - low, _BAND), dtype=np.int64)
        for column, (first, weights) in enumerate(part):
            dense[first - low : first - low + len(weights), column] = weights
        bands.append((low, dense))
    return bands


def _weights(source: int, target: int, place: int) -> tuple[int, NDArray[np.int64]]:
    """Return Pillow's fixed-point weights of one target place, and the first source place that they belong to."""
    scale = source / target
    stretch = max(scale, 1.0)
    center, support = (place + 0.5) * scale, 2.0 * stretch
    first = max(int(center - support + 0.5), 0)
    last = min(int(center + support + 0.5), source)
    places = np.arange(last - first, dtype=np.float64)
    weights = _bicubic((places + first - center + 0.5) * (1.0 / stretch))
    total = 0.0
    for weight in weights.tolist():  # in Pillow's order: numpy's sum rounds otherwise
        total += weight
    weights = weights / total
    return first, np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5)).astype(np.int64)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' filter with a = -0.5, each operation in Pillow's order."""
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


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
    """Return what `astc.resize` does, sooner where it can. Only for `submit`: it wants one torch thread."""
    height, width = image.shape[:2]
    if width >= height >= size and height * width >= _SHRINKS * size * size and is_exact() and is_quick():
        return shrink(image, size)
    return astc.resize(image, size)


@cache
def _pool() -> ThreadPoolExecutor:
    return single_threads(min(8, os.cpu_count() or 1), "resize")
