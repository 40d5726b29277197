"""What the claims compare: budgets of visual tokens, seen frames, and which [SEG] owns which frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.svac.config import MethodConfig, SvacConfig, VisionConfig

# The embedded model's method; 64 visual tokens an image.
CONFIG = SvacConfig(
    vision=VisionConfig(image_size=128, patch_size=8),
    method=MethodConfig(num_clips=4, frames_per_clip=5, grid=(2, 2)),
)


@pytest.mark.parametrize(("size", "exact"), [(128, (512, 512, 500, 500)), (64, (128, 128, 120, 120))])
def test_budgets_of_tokens_are_equal(size: int, exact: tuple[int, ...]) -> None:
    from lab.reproduction.variants import variants_of

    config = replace(CONFIG, vision=replace(CONFIG.vision, image_size=size))
    variants = variants_of("tokens", config, length=100)
    assert tuple(v.tokens for v in variants) == exact
    assert [(v.way, v.frames, v.images) for v in variants] == [
        ("astc", 20, 8),
        ("full", 8, 8),
        ("pool", 20, 20),
        ("merge", 20, 20),
    ]
    assert {v.segs for v in variants} == {4}
    assert all(v.weights_of == v.name for v in variants)


@given(tokens=st.integers(1, 80), side=st.integers(1, 9))
def test_no_grid_within_the_budget_is_larger(tokens: int, side: int) -> None:
    from lab.reproduction.variants import nearest_grid

    rows, columns = nearest_grid(tokens, side)
    assert rows <= columns <= side
    assert rows * columns == max(
        r * c for r in range(1, side + 1) for c in range(1, side + 1) if r * c <= tokens
    )


def test_more_frames_are_shown_in_full_and_compressed() -> None:
    from lab.reproduction.variants import variants_of

    variants = variants_of("frames", CONFIG, length=100)
    assert [(v.name, v.images, v.tokens) for v in variants] == [
        ("full-1", 1, 64),
        ("full-5", 5, 320),
        ("full-10", 10, 640),
        ("full-20", 20, 1280),
        ("full-50", 50, 3200),
        ("full-100", 100, 6400),
        ("astc-20", 8, 512),
        ("astc-50", 20, 1280),
        ("astc-100", 40, 2560),
    ]
    assert {v.segs for v in variants} == {4}


def test_what_is_too_long_to_train_takes_weights_of_its_own_series() -> None:
    from lab.reproduction.variants import variants_of

    limited = {v.name: v.weights_of for v in variants_of("frames", CONFIG, length=100, limit=1500)}
    assert {name: weights for name, weights in limited.items() if name != weights} == {
        "full-50": "full-20",
        "full-100": "full-20",
        "astc-100": "astc-50",
    }
    least = variants_of("frames", CONFIG, length=100, limit=1)
    assert {v.weights_of for v in least} == {"full-1", "astc-20"}
    free = variants_of("frames", CONFIG, length=100)
    assert all(v.weights_of == v.name for v in free)


def test_a_shorter_clip_has_fewer_variants() -> None:
    from lab.reproduction.variants import variants_of

    assert [v.name for v in variants_of("frames", CONFIG, length=20)] == [
        "full-1",
        "full-5",
        "full-10",
        "full-20",
        "astc-20",
    ]


def test_one_seg_and_one_per_clip_see_the_same_and_differ_in_owners() -> None:
    from lab.reproduction.variants import variants_of

    many, one = variants_of("csa", CONFIG, length=100)
    assert (many.way, many.seen(100), many.tokens) == (one.way, one.seen(100), one.tokens)
    assert one.owners(100) == dict.fromkeys(range(100), 0)
    assert many.owners(100) == {frame: frame // 25 for frame in range(100)}
    # A clip's [SEG] decodes the frames that the clip's images were taken from.
    assert [many.owners(100)[frame] for frame in many.seen(100)] == [k // 5 for k in range(20)]


@given(count=st.integers(1, 60), more=st.integers(0, 60))
def test_seen_frames_are_the_middles_of_equal_parts(count: int, more: int) -> None:
    from lab.reproduction.variants import middles

    length = count + more
    found = middles(count, length)
    assert len(set(found)) == count
    for k, frame in enumerate(found):
        assert k * length / count <= frame + 0.5 <= (k + 1) * length / count


def test_middles_of_too_few_frames_are_refused() -> None:
    from lab.reproduction.variants import middles

    with pytest.raises(SvacError):
        middles(7, 6)


@pytest.mark.parametrize("method", [MethodConfig(astc=False), MethodConfig(frames_per_clip=1)])
def test_a_model_without_composites_is_refused(method: MethodConfig) -> None:
    from lab.reproduction.variants import variants_of

    with pytest.raises(SvacError):
        variants_of("tokens", replace(CONFIG, method=method), length=100)
