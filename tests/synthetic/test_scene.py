"""Scenes are deterministic, their masks lie where the colours are, and their targets can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.synthetic.scene import (
    DEMO_SEEDS,
    FIRST_TRAIN_SEED,
    VALIDATION_SEEDS,
    SceneConfig,
    make_scene,
)
from svac_backend.synthetic.shapes import COLORS, DIRECTION_THRESHOLD, SHAPES, ObjectSpec


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    first, second, other = make_scene(7), make_scene(7), make_scene(8)
    assert first.frames.tobytes() == second.frames.tobytes()
    assert first.masks.tobytes() == second.masks.tobytes()
    assert first.expressions == second.expressions
    assert first.frames.tobytes() != other.frames.tobytes()


def test_shapes_and_types() -> None:
    config = SceneConfig(width=96, height=64, frames=7, min_objects=3, max_objects=3)
    scene = make_scene(3, config)
    assert scene.frames.shape == (7, 64, 96, 3)
    assert scene.frames.dtype == np.uint8
    assert scene.masks.shape == (3, 7, 64, 96)
    assert scene.masks.dtype == np.bool_
    assert len(scene.objects) == 3
    assert all(o.path.shape == (7, 2) and o.angles.shape == (7,) for o in scene.objects)


@pytest.mark.parametrize("seed", range(12))
def test_a_subset_equals_the_whole(seed: int) -> None:
    indices = (0, 3, 19, 8)
    whole, part = make_scene(seed), make_scene(seed, indices=indices)
    assert part.indices == indices
    assert np.array_equal(part.frames, whole.frames[list(indices)])
    assert np.array_equal(part.masks, whole.masks[:, list(indices)])
    assert part.expressions == whole.expressions
    assert part.objects == whole.objects


def test_masks_of_a_frame_do_not_overlap_and_lie_on_the_objects_color() -> None:
    config = SceneConfig(noise=0.0, blur=0.0)
    for seed in range(40):
        scene = make_scene(seed, config, indices=(0, 10))
        assert scene.masks.sum(axis=0).max() <= 1
        for spec, masks in zip(scene.objects, scene.masks, strict=True):
            pixels = scene.frames[masks]
            if len(pixels) > 50:
                # Median: edges, rims and shading move some pixels. 55 levels: brightness and contrast jitter.
                assert np.abs(np.median(pixels, axis=0) - spec.rgb).max() < 55, (seed, spec)


def test_mask_centres_follow_the_path() -> None:
    config = SceneConfig(
        min_objects=1, max_objects=1, shapes=("circle",), sizes=("small",), motions=("diagonal",)
    )
    scene = make_scene(5, config)
    for t in range(config.frames):
        ys, xs = np.nonzero(scene.masks[0, t])
        assert (
            np.hypot(xs.mean() - scene.objects[0].path[t, 0], ys.mean() - scene.objects[0].path[t, 1]) < 1.0
        )


def test_objects_are_visible_on_most_frames() -> None:
    total = weak = 0
    for seed in range(60):
        scene = make_scene(seed)
        share = scene.masks.mean(axis=(2, 3))  # [N, T]
        total += len(share)
        weak += int(((share >= 0.004).mean(axis=1) < 0.75).sum())
    assert weak <= 0.01 * total


@pytest.mark.parametrize("motion", ["left", "right", "up", "down", "still"])
def test_named_motions_move_that_way_and_no_other(motion: str) -> None:
    config = SceneConfig(motions=(motion,), drift=0.0)
    expected = frozenset() if motion == "still" else frozenset({motion})
    for seed in range(15):
        for spec in make_scene(seed, config, indices=()).objects:
            assert spec.directions == expected
            moved = (spec.path[-1] - spec.path[0]) / config.height
            assert _towards(moved, motion) >= DIRECTION_THRESHOLD or motion == "still"
            assert np.linalg.norm(moved) < 0.01 or motion != "still"


def _towards(moved: np.ndarray, motion: str) -> float:
    dx, dy = (float(v) for v in moved)
    return {"left": -dx, "right": dx, "up": -dy, "down": dy, "still": 0.0}[motion]


def test_counts_and_names_stay_within_the_configuration() -> None:
    config = SceneConfig(min_objects=2, max_objects=4, colors=("red", "blue"), shapes=("star", "ring"))
    counts = set()
    for seed in range(60):
        objects = make_scene(seed, config, indices=()).objects
        counts.add(len(objects))
        assert {o.color for o in objects} <= {"red", "blue"}
        assert {o.shape for o in objects} <= {"star", "ring"}
    assert counts == {2, 3, 4}


def test_all_names_occur() -> None:
    seen: list[ObjectSpec] = [o for seed in range(100) for o in make_scene(seed, indices=()).objects]
    assert {o.color for o in seen} == set(COLORS)
    assert {o.shape for o in seen} == set(SHAPES)


def test_a_squashed_clip_has_squashed_shapes() -> None:
    config = SceneConfig(
        min_objects=1,
        max_objects=1,
        shapes=("circle",),
        sizes=("large",),
        motions=("still",),
        aspects=(16 / 9,),
    )
    ys, xs = np.nonzero(make_scene(2, config, indices=(0,)).masks[0, 0])
    ratio = (xs.max() - xs.min() + 1) / (ys.max() - ys.min() + 1)
    assert ratio == pytest.approx(9 / 16, abs=0.06)


def test_a_ring_has_a_hole() -> None:
    config = SceneConfig(min_objects=1, max_objects=1, shapes=("ring",), sizes=("large",), motions=("still",))
    scene = make_scene(1, config, indices=(0,))
    x, y = np.round(scene.objects[0].path[0]).astype(int)
    assert not scene.masks[0, 0, y, x]
    assert scene.masks[0, 0].sum() > 500


def test_seed_ranges_do_not_meet() -> None:
    assert not set(VALIDATION_SEEDS) & set(DEMO_SEEDS)
    assert max(VALIDATION_SEEDS.stop, DEMO_SEEDS.stop) <= FIRST_TRAIN_SEED


@pytest.mark.parametrize(
    "change",
    [
        {"width": 8},
        {"frames": 0},
        {"min_objects": 3, "max_objects": 2},
        {"colors": ("mauve",)},
        {"shapes": ()},
        {"fps": 0.0},
        {"aspects": (0.0,)},
        {"blur": 1.5},
    ],
)
def test_a_senseless_configuration_is_refused(change: dict) -> None:
    with pytest.raises(SvacError):
        SceneConfig(**change)


@pytest.mark.parametrize(("seed", "indices"), [(-1, None), (0, (20,)), (0, (-1,))])
def test_seeds_and_indices_out_of_range_are_refused(seed: int, indices: tuple[int, ...] | None) -> None:
    with pytest.raises(SvacError):
        make_scene(seed, indices=indices)
