"""Nouns that no mask shows: what a teacher says of cells is kept as a linear map, and words learn it beside masks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lab.train_tiny.photo_nouns import (
    NOUN_CLASSES,
    TEACHER_NOUNS,
    NounLesson,
    View,
    noun_logits,
    read_teacher,
    view_of,
)
from lab.train_tiny.photo_sentences import Words
from torch import Tensor

from svac_backend.errors import SvacError
from svac_backend.svac.config import SamConfig
from svac_backend.svac.sam.grounding import build_sam
from svac_backend.svac.sam.matching import SegMatching
from tests.lab.train_tiny.test_photo_words import photographs

TEACHER = Path(__file__).parents[4] / "shared/real/teacher/mobilenet_v2_1.0_224_quant.tflite"


def cells_of(coarse: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(coarse.float()[None], 7)[0]


@pytest.fixture(scope="module")
def views() -> list[View]:
    """Views of which the teacher says what a few directions of the coarse maps hold, and noise."""
    rng = torch.Generator().manual_seed(0)
    directions = torch.randn(len(TEACHER_NOUNS), 40, generator=rng)
    made = []
    for _ in range(60):
        coarse = torch.randn(320, 2, 2, generator=rng) * 2 + 1
        nouns = torch.einsum("nc,chw->nhw", directions, cells_of(coarse)[:40])
        nouns += 0.3 * torch.randn(nouns.shape, generator=rng) + 5
        made.append(View(torch.randn(96, 4, 4, generator=rng).half(), coarse.half(), nouns.half()))
    return made


def test_every_noun_means_classes_that_there_are() -> None:
    assert len(TEACHER_NOUNS) > 300
    assert all(classes and 0 <= min(classes) <= max(classes) < 1000 for classes in NOUN_CLASSES.values())
    assert NOUN_CLASSES["camel"] == (354,)
    assert set(NOUN_CLASSES["cat"]) < set(NOUN_CLASSES["animal"])


def test_a_noun_is_as_likely_as_its_classes_are_together() -> None:
    classes = np.full((7, 7, 1000), -20, np.float32)
    classes[2, 3, 281] = classes[2, 3, 285] = 4
    said = noun_logits(classes)
    assert said.shape == (len(TEACHER_NOUNS), 7, 7)
    assert said[TEACHER_NOUNS.index("cat"), 2, 3] == pytest.approx(4 + np.log(2), abs=1e-4)
    assert said[TEACHER_NOUNS.index("camel"), 2, 3] == pytest.approx(-20)


def test_cells_begin_with_what_the_teacher_says(views: list[View]) -> None:
    lesson = NounLesson(views)
    torch.manual_seed(0)
    matching = SegMatching([96, 320], 16, 128)
    lesson.begin(matching)
    fine, coarse = (torch.stack([getattr(v, name) for v in views[:4]]).float() for name in ("fine", "coarse"))
    with torch.no_grad():
        cells = matching.cells(fine, coarse)
    # Any noun is a product with the cells: the best one, by least squares, misses next to nothing.
    known = torch.cat([cells.movedim(1, -1).flatten(0, 2), torch.ones(cells[:, 0].numel(), 1)], 1)
    wanted = lesson.goal(coarse).movedim(1, -1).flatten(0, 2)
    inside = (wanted > -4.4) & (wanted < 3.9)
    found = known @ torch.linalg.lstsq(known, wanted, driver="gelsd").solution
    assert float((found - wanted)[inside].abs().mean()) < 0.25 * float(wanted.std())


def test_words_learn_nouns_and_a_noun_of_masks_counts_less(views: list[View]) -> None:
    lesson = NounLesson(views, ["the camel", "the red dog"])
    torch.manual_seed(0)
    matching, words = SegMatching([96, 320], 16, 128), Words(16)
    lesson.begin(matching)
    optimizer = torch.optim.AdamW([*matching.parameters(), *words.parameters()], 1e-2)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(25):
        loss = lesson.loss(matching, words, lesson.batch(rng, count=4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    weights = dict(zip(TEACHER_NOUNS, lesson._weight.tolist(), strict=True))
    assert weights["camel"] < weights["dog"] == 1


def test_a_view_is_a_part_of_a_photograph_as_teacher_and_trunk_see_it() -> None:
    sam = build_sam(SamConfig(image_size=64, d_model=64, memory_layers=1, trunk="mobilenet_v2", match_dim=12))
    shown = []

    def classify(image: np.ndarray) -> np.ndarray:
        shown.append(image.shape)
        return np.zeros((7, 7, 1000), np.float32)

    made = [view_of(np.random.default_rng(n), photographs(), sam.eval(), classify) for n in range(4)]
    assert len(set(shown)) > 1
    assert made[0].fine.shape == (96, 4, 4)
    assert made[0].coarse.shape == (320, 2, 2)
    assert made[0].nouns.shape == (len(TEACHER_NOUNS), 7, 7)


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SvacError, match=r"missing|no teacher"):
        read_teacher(tmp_path / "teacher.tflite")


@pytest.mark.skipif(
    not TEACHER.is_file() or not importlib.util.find_spec("ai_edge_litert"),
    reason="needs ../shared/real/teacher and the package ai-edge-litert, which only training uses",
)
def test_the_teacher_knows_a_cat() -> None:
    classify = read_teacher(TEACHER)
    cats = sorted((TEACHER.parents[1] / "photos/cats").rglob("*.jpg"))[:6]
    names = []
    for path in cats:
        said = noun_logits(classify(np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]))).amax((1, 2))
        names += [TEACHER_NOUNS[k] for k in said.topk(8).indices]
    assert names.count("cat") >= 4
