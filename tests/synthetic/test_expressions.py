"""Expressions mean exactly what they say they mean."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from svac_backend.synthetic.expressions import Expression, Kind, expressions_of
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.synthetic.shapes import ObjectSpec

RED_CIRCLE = ObjectSpec("red", "circle", "large", "left", radius=0.2, directions=frozenset({"left"}))
RED_SQUARE = ObjectSpec("red", "square", "small", "still", radius=0.08)
BLUE_CIRCLE = ObjectSpec(
    "blue", "circle", "small", "diagonal", radius=0.08, directions=frozenset({"left", "up"})
)


def texts(objects: list[ObjectSpec]) -> dict[str, tuple[int, ...]]:
    """All wordings of all expressions -> targets."""
    found = expressions_of(objects, np.random.default_rng(0), paraphrases=None)
    return {e.text: e.targets for e in found}


def matches(spec: ObjectSpec, e: Expression, objects: tuple[ObjectSpec, ...]) -> bool:
    """Judge, from the attributes alone, whether an expression is true of an object."""
    if e.color not in (None, spec.color) or e.shape not in (None, spec.shape):
        return False
    if e.motion is not None and not (spec.motion == e.motion or e.motion in spec.directions):
        return False
    peers = [o.radius for o in objects if e.shape in (None, o.shape)]
    if e.size == "largest":
        return spec.radius == max(peers)
    if e.size == "smallest":
        return spec.radius == min(peers)
    return e.size in (None, spec.size)


def test_a_shared_color_is_not_offered_alone() -> None:
    found = texts([RED_CIRCLE, RED_SQUARE, BLUE_CIRCLE])
    assert found["the blue object"] == (2,)
    assert found["the red circle"] == (0,)
    assert found["the square"] == (1,)
    assert "the red object" not in found
    assert "the circle" not in found


def test_size_compares_and_needs_a_clear_difference() -> None:
    found = texts([RED_CIRCLE, RED_SQUARE, BLUE_CIRCLE])
    assert found["the largest object"] == (0,)
    assert found["the large circle"] == (0,)
    assert found["the smallest circle"] == (2,)
    assert "the smallest object" not in found  # two are equally small
    assert "the small object" not in found


def test_motion_is_not_offered_where_another_object_drifts_the_same_way() -> None:
    found = texts([RED_CIRCLE, RED_SQUARE, BLUE_CIRCLE])
    assert found["the object that stays still"] == (1,)
    assert found["the red object moving left"] == (0,)
    assert "the object moving left" not in found  # the blue circle moves left and up
    assert texts([RED_CIRCLE, RED_SQUARE])["the object moving left"] == (0,)


def test_every_expression_of_many_scenes_is_true_of_its_target_only() -> None:
    kinds = set()
    for seed in range(150):
        scene = make_scene(seed, indices=(0,))
        for e in scene.expressions:
            kinds.add(e.kind)
            true_of = tuple(i for i, o in enumerate(scene.objects) if matches(o, e, scene.objects))
            assert true_of == e.targets, (seed, e)
    assert kinds == set(get_args(Kind))


def test_every_wording_is_filled_in() -> None:
    for seed in range(60):
        objects = make_scene(seed, indices=()).objects
        for paraphrases in (None, 3):
            for e in expressions_of(objects, np.random.default_rng(seed), paraphrases=paraphrases):
                assert "{" not in e.text


def test_the_article_fits_the_noun() -> None:
    said = texts([ObjectSpec("orange", "ellipse", "small", "still"), RED_SQUARE])
    assert "an orange ellipse" in said
    assert "an ellipse" in said
    assert not any(" a o" in f" {text}" or " a e" in f" {text}" for text in said)


@pytest.mark.parametrize("paraphrases", [1, 2])
def test_paraphrases_bound_the_wordings_of_each_meaning(paraphrases: int) -> None:
    found = expressions_of([RED_CIRCLE, RED_SQUARE], np.random.default_rng(3), paraphrases=paraphrases)
    meanings = [(e.kind, e.targets, e.color, e.shape, e.size, e.motion) for e in found]
    assert all(1 <= meanings.count(m) <= paraphrases for m in meanings)
    assert len({e.text for e in found}) == len(found)


def test_single_object_needs_no_comparison() -> None:
    config = SceneConfig(min_objects=1, max_objects=1)
    assert all(e.size is None for seed in range(10) for e in make_scene(seed, config, indices=()).expressions)
