"""J and F against the official evaluation's numbers, and against masks whose scores are known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.masks import metrics
from svac_backend.masks.metrics import boundary_f, iou, j_and_f, jaccard


def square(left: int, top: int, side: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


EMPTY = np.zeros((100, 100), bool)


@pytest.mark.parametrize("sequence", ["dog", "camel", "bmx-trees", "cows", "lab-coat"])
def test_every_frame_equals_the_official_evaluation(shared_masks: Path, sequence: str) -> None:
    official = json.loads((shared_masks / "davis_jf.json").read_text())[sequence]
    folder = shared_masks / sequence

    def read(part: str) -> list[np.ndarray]:
        files = [folder / official[part] / f"{i:05d}.png" for i in range(official["frames"])]
        return [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0 for file in files]

    score = j_and_f(read("pred"), read("gt"))
    np.testing.assert_allclose(score.j_per_frame, official["J"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(score.f_per_frame, official["F"], atol=1e-6, rtol=0)
    assert score.j == pytest.approx(official["J_mean"], abs=1e-6)
    assert score.f == pytest.approx(official["F_mean"], abs=1e-6)
    assert score.j_and_f == pytest.approx((official["J_mean"] + official["F_mean"]) / 2, abs=1e-6)


def test_region_similarity() -> None:
    a, b = square(10, 10, 20), square(20, 10, 20)
    assert iou(a, b) == jaccard(a, b) == 200 / 600
    assert iou(a, a) == 1
    assert iou(a, EMPTY) == 0
    assert iou(EMPTY, EMPTY) == 1


def test_boundary_accuracy_of_equal_empty_and_far_masks() -> None:
    a = square(10, 10, 20)
    assert boundary_f(a, a) == 1
    assert boundary_f(EMPTY, EMPTY) == 1
    assert boundary_f(a, EMPTY) == boundary_f(EMPTY, a) == 0
    assert boundary_f(a, square(60, 60, 20)) == 0


def test_boundaries_match_up_to_the_tolerance_and_no_further() -> None:
    a = square(20, 20, 40)  # the reach is ceil(0.008 * 141.4) = 2 pixels
    assert boundary_f(a, square(22, 20, 40)) == 1
    assert boundary_f(a, square(23, 20, 40)) < 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BOUNDARY_TOLERANCE", 0.03)
        assert boundary_f(a, square(23, 20, 40)) == 1


def test_precision_and_recall_are_weighed_by_the_length_of_each_boundary() -> None:
    truth = square(10, 10, 20)
    both = truth | square(60, 60, 20)
    assert boundary_f(both, truth) == boundary_f(truth, both) == pytest.approx(2 / 3)


def test_a_mask_of_the_whole_image_has_no_boundary() -> None:
    assert boundary_f(~EMPTY, ~EMPTY) == 1
    assert boundary_f(~EMPTY, square(10, 10, 20)) == 0


def test_masks_at_the_border_of_the_image() -> None:
    corner, shifted = square(80, 80, 20), square(79, 79, 21)
    assert boundary_f(corner, corner) == 1
    assert boundary_f(corner, shifted) == 1
    assert boundary_f(corner, square(60, 80, 40)) < 1


def by_definition(prediction: np.ndarray, truth: np.ndarray, reach: int) -> float:
    """F from the distance of every pixel of one boundary to every pixel of the other, without a window."""

    def boundary(mask: np.ndarray) -> np.ndarray:
        right, below = np.roll(mask, -1, 1), np.roll(mask, -1, 0)
        right[:, -1], below[-1] = mask[:, -1], mask[-1]
        corner = np.roll(below, -1, 1)
        corner[:, -1], corner[-1] = mask[:, -1], mask[-1]
        return np.argwhere((mask != right) | (mask != below) | (mask != corner))

    found, expected = boundary(prediction), boundary(truth)
    if not len(found) or not len(expected):
        return float(len(found) == len(expected))
    near = ((found[:, None] - expected[None]) ** 2).sum(2) <= reach**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


HEIGHT, WIDTH = 32, 40
BOX = st.tuples(
    st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, HEIGHT), st.integers(1, WIDTH)
)


@st.composite
def few_boxes(draw: st.DrawFn) -> np.ndarray:
    """Far from each other often, unlike masks of random pixels."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for top, left, height, width in draw(st.lists(BOX, max_size=2)):
        mask[top : top + height, left : left + width] = True
    return mask


@pytest.mark.parametrize("reach", [1, 4, 14, 15, 20])  # up to 14 by a disc, then by a distance transform
@settings(max_examples=200)
@given(prediction=few_boxes(), truth=few_boxes())
def test_it_is_what_the_definition_says(prediction: np.ndarray, truth: np.ndarray, reach: int) -> None:
    tolerance = (reach - 0.5) / np.hypot(*truth.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BOUNDARY_TOLERANCE", tolerance)
        found = boundary_f(prediction, truth)
    assert found == pytest.approx(by_definition(prediction, truth, reach), abs=1e-12)


def test_a_clip_counts_all_frames() -> None:
    a = square(10, 10, 20)
    score = j_and_f(iter([a, a, EMPTY, EMPTY]), np.stack([a, EMPTY, EMPTY, a]))
    assert score.j_per_frame.tolist() == score.f_per_frame.tolist() == [1, 0, 1, 0]
    assert score.j_and_f == 0.5


def test_bad_input_is_refused() -> None:
    a = square(10, 10, 20)
    with pytest.raises(SvacError, match="different sizes"):
        iou(a, a[:50])
    with pytest.raises(SvacError, match="bool array"):
        boundary_f(a.astype(np.uint8), a)  # type: ignore[arg-type]
    with pytest.raises(SvacError, match="different number of frames: one ends after 1"):
        j_and_f([a, a], [a])
    with pytest.raises(SvacError, match="no frame"):
        j_and_f([], [])
