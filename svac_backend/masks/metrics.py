"""Scores of masks against the truth: region similarity J and boundary accuracy F.

Both are defined in Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation" (CVPR 2016), and computed per frame as the DAVIS evaluation computes them. Referring benchmarks
average them over all frames of an expression.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from math import ceil, hypot

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.masks.brush import check_mask

BOUNDARY_TOLERANCE = 0.008
"""Largest distance between matching boundaries, as a share of the image's diagonal."""

_LARGEST_DISC = 14


@dataclass(frozen=True)
class SequenceScore:
    """J and F of one object over a clip.

    Attributes:
        j_per_frame, f_per_frame: f64 [T], 0..1.
    """

    j_per_frame: NDArray[np.float64]
    f_per_frame: NDArray[np.float64]

    @property
    def j(self) -> float:
        """Mean region similarity, 0..1."""
        return float(self.j_per_frame.mean())

    @property
    def f(self) -> float:
        """Mean boundary accuracy, 0..1."""
        return float(self.f_per_frame.mean())

    @property
    def j_and_f(self) -> float:
        """Mean of J and F, 0..1: what the benchmarks rank by."""
        return (self.j + self.f) / 2


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return intersection over union of two masks, bool [H, W]; 1.0 if both are empty.

    Raises:
        SvacError: no bool masks [H, W], or of different sizes.
    """
    _check_pair(a, b)
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def jaccard(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return J of one frame, 0..1: intersection over union, 1.0 if both are empty. Raises as `iou`."""
    return iou(prediction, truth)


def boundary_f(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return F of one frame: how well the boundaries agree.

    Precision is the share of the predicted boundary within reach of the true one, recall the reverse, F their
    harmonic mean. The reach is `ceil(BOUNDARY_TOLERANCE * diagonal)` pixels.

    Args:
        prediction, truth: bool [H, W].

    Returns:
        0..1; 1.0 if neither mask has a boundary, 0.0 if only one has. A mask that fills the whole image has
        none, as in the DAVIS evaluation.

    Raises:
        SvacError: as `iou`.
    """
    _check_pair(prediction, truth)
    reach = ceil(BOUNDARY_TOLERANCE * hypot(*truth.shape))
    window = _window(prediction, truth)
    if window is None:
        return 1.0
    found, expected = _boundary(prediction[window]), _boundary(truth[window])
    found_count, expected_count = cv2.countNonZero(found), cv2.countNonZero(expected)
    if not found_count or not expected_count:
        return float(found_count == expected_count)
    precision = cv2.countNonZero(found & _within(expected, reach)) / found_count
    recall = cv2.countNonZero(expected & _within(found, reach)) / expected_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def j_and_f(predictions: Iterable[NDArray[np.bool_]], truths: Iterable[NDArray[np.bool_]]) -> SequenceScore:
    """Score one object over a clip, frame by frame; all frames count, the first and the last too.

    Args:
        predictions, truths: bool [T, H, W], or an iterable of T masks [H, W], which is not kept in memory.

    Raises:
        SvacError: no frame, a different number of frames, or as `iou`.
    """
    scores: list[tuple[float, float]] = []
    for prediction, truth in zip_longest(predictions, truths):
        if prediction is None or truth is None:
            raise SvacError(
                f"Prediction and truth have a different number of frames: one ends after {len(scores)}.",
                "Give an empty mask where there is no object.",
            )
        scores.append((jaccard(prediction, truth), boundary_f(prediction, truth)))
    if not scores:
        raise SvacError("There is no frame to score.", "Give at least one frame.")
    per_frame = np.array(scores)
    return SequenceScore(per_frame[:, 0], per_frame[:, 1])


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the pixels that differ from their right, lower or lower right neighbour, u8 [H, W] of 0 and 1.

    Pixels of the last row and column have only the neighbours within the image.
    """
    inside = mask.view(np.uint8)
    boundary = np.zeros_like(inside)
    boundary[:, :-1] |= inside[:, :-1] ^ inside[:, 1:]
    boundary[:-1] |= inside[:-1] ^ inside[1:]
    boundary[:-1, :-1] |= inside[:-1, :-1] ^ inside[1:, 1:]
    return boundary


def _within(boundary: NDArray[np.uint8], reach: int) -> NDArray[np.uint8]:
    """Return the pixels at most `reach` pixels away from a boundary, u8 [H, W] of 0 and 1.

    Both ways give the same pixels. Dilation costs as much as its disc has pixels, a distance transform the same for
    every reach: it is the faster one on large pictures only.
    """
    if reach <= _LARGEST_DISC:
        return np.asarray(cv2.dilate(boundary, _disc(reach)), dtype=np.uint8)
    distance = cv2.distanceTransform(1 - boundary, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= reach).view(np.uint8)


@lru_cache(maxsize=_LARGEST_DISC)
def _disc(radius: int) -> NDArray[np.uint8]:
    """Return the pixels at most `radius` away from the middle one, u8 [2 radius + 1, 2 radius + 1] of 0 and 1."""
    squares = np.arange(-radius, radius + 1) ** 2
    return np.asarray(squares[:, None] + squares <= radius**2).view(np.uint8)


def _window(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Return the rows and columns that hold every boundary of both masks; None if both are wholly empty.

    A boundary lies on a mask or on the pixel left of it, above it, or both.
    """
    left, top, width, height = cv2.boundingRect((a | b).view(np.uint8))
    if not width:
        return None
    # One further row and column at the end, if the image has them: there the mask ends, not the image.
    return slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)


def _check_pair(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> None:
    check_mask(a)
    check_mask(b)
    if a.shape != b.shape:
        raise SvacError(
            f"The masks have different sizes: {list(a.shape)} and {list(b.shape)}.",
            "Scale them to one size first.",
        )
