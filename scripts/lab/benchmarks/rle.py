"""Brush RLE: our codec against that of the Label Studio SDK, on the same masks in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from label_studio_sdk.converter import brush as sdk
from numpy.typing import NDArray

from lab.benchmarks.timing import Timing, side_by_side
from svac_backend.errors import SvacError
from svac_backend.masks.rle import decode_brush, encode_brush

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CodecResult:
    """One comparison: what was timed, how long the SDK took and how long we took."""

    task: str
    sdk: Timing
    ours: Timing

    @property
    def ratio(self) -> float:
        """How many times faster ours is, by the best rounds."""
        return self.sdk.best_ms / self.ours.best_ms


def load_masks(folder: Path | None, count: int) -> tuple[list[Mask], str]:
    """Return `count` masks spread evenly over the PNGs below a folder, or generated ones, and what they are."""
    if folder is None:
        return [_blobs(seed) for seed in range(count)], "generated blobs"
    files = sorted(folder.rglob("*.png"))
    if not files:
        raise SvacError(f"There is no PNG below {folder}.", "Give a folder of 8-bit mask pictures.")
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, count).astype(int))]
    masks = []
    for file in chosen:
        picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise SvacError(f"{file} is no picture that can be read.", "Remove it, or give another folder.")
        masks.append(picture > 0)
    return masks, f"masks of {folder.resolve()}"


def compare(masks: list[Mask], *, rounds: int) -> list[CodecResult]:
    """Time both codecs on every mask; first make sure that they agree.

    Raises:
        SvacError: the codecs disagree on a mask; no time means anything then.
    """
    pictures = [mask.astype(np.uint8) * 255 for mask in masks]  # the SDK's input: not part of its time
    encoded = [encode_brush(mask) for mask in masks]
    for mask, picture, rle in zip(masks, pictures, encoded, strict=True):
        # The SDK adds an empty byte where its bits end on a byte; the editor adds none, and neither do we.
        same = sdk.mask2rle(picture) in (rle, [*rle, 0])
        if not same or not np.array_equal(_sdk_decode(rle, *mask.shape), mask):
            raise SvacError("The SDK's codec and ours disagree on a mask.", "Run the tests in tests/masks.")
    cases = list(range(len(masks)))
    encode: dict[str, Callable[[int], object]] = {
        "sdk": lambda i: sdk.mask2rle(pictures[i]),
        "ours": lambda i: encode_brush(masks[i]),
    }
    decode: dict[str, Callable[[int], object]] = {
        "sdk": lambda i: _sdk_decode(encoded[i], *masks[i].shape),
        "ours": lambda i: decode_brush(encoded[i], *masks[i].shape),
    }
    results = []
    for task, contenders in (("encode", encode), ("decode", decode)):
        timings = side_by_side(contenders, cases, rounds=rounds)
        results.append(CodecResult(task, timings["sdk"], timings["ours"]))
    return results


def _sdk_decode(rle: list[int], height: int, width: int) -> Mask:
    alpha: NDArray[np.uint8] = sdk.decode_rle(rle).reshape(height, width, 4)[..., 3]
    return alpha >= 128


def _blobs(seed: int, height: int = 480, width: int = 854) -> Mask:
    """Return a mask like a segmented object's: a few overlapping ellipses with a ragged edge."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), 6) * 12
    picture = np.zeros((height, width), np.float32)
    for _ in range(4):
        centre = (
            int(rng.integers(width // 4, 3 * width // 4)),
            int(rng.integers(height // 4, 3 * height // 4)),
        )
        axes = (int(rng.integers(30, 140)), int(rng.integers(30, 120)))
        cv2.ellipse(picture, centre, axes, float(rng.integers(0, 180)), 0, 360, 1.0, -1)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 8) + field * 0.2 > 0.5)
