"""Integer products give Pillow's pixels, and where they can't, Pillow does."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from svac_backend.svac import astc
from svac_backend.svac.cpu import resampling

pytestmark = pytest.mark.slow

EXACT = pytest.mark.skipif(
    not resampling.is_exact(), reason="this processor saturates sums of byte products: no VNNI"
)


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Noise above, and below it black and white, which overshoots."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[height // 2 :] = random.choice([0, 255], (height - height // 2, width, 3))
    return image


@EXACT
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(720, 1280, 192), (1440, 2560, 128), (1080, 1920, 448), (600, 601, 300), (600, 600, 192), (5, 7, 3)],
)
def test_pixels_are_those_of_pillow(height: int, width: int, size: int) -> None:
    image = picture(height, width, size)
    assert np.array_equal(resampling.shrink(image, size), astc.resize(image, size))


@EXACT
@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 90), st.integers(0, 9))
def test_pixels_of_any_size_are_those_of_pillow(larger: int, wider: int, size: int, seed: int) -> None:
    image = picture(size + larger, size + larger + wider, seed)
    assert np.array_equal(resampling.shrink(image, size), astc.resize(image, size))


@EXACT
def test_a_turned_picture_is_no_other() -> None:
    """Rotated videos come as views."""
    image = np.rot90(picture(300, 200, 0))
    assert np.array_equal(resampling.shrink(image, 50), astc.resize(image, 50))


@EXACT
def test_one_picture_after_another_in_the_same_thread() -> None:
    """The memory that a thread keeps holds nothing over."""
    large, small = picture(300, 400, 1), picture(90, 100, 2)
    first = resampling.shrink(large, 40)
    second = resampling.shrink(small, 20)
    assert np.array_equal(first, astc.resize(large, 40))
    assert np.array_equal(second, astc.resize(small, 20))


@pytest.mark.parametrize("lacking", ["is_exact", "is_quick"])
def test_pillow_resizes_where_bytes_saturate_or_are_emulated(
    monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    monkeypatch.setattr(resampling, "is_exact", lambda: lacking != "is_exact")
    monkeypatch.setattr(resampling, "is_quick", lambda: lacking != "is_quick")
    monkeypatch.setattr(resampling, "shrink", None)
    image = picture(300, 400, 3)
    assert np.array_equal(resampling.submit(resampling.resize, image, 64).result(), astc.resize(image, 64))


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_older_processors_get_the_same_pixels(isa: str) -> None:
    """oneDNN does as if it ran on one; AVX2 and AVX-512 without VNNI add pairs of products in 16 bits."""
    code = """if True:
        import numpy as np
        from svac_backend.svac import astc
        from svac_backend.svac.cpu import resampling
        image = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (300, 500, 3))
        small = resampling.submit(resampling.resize, image, 60).result()
        assert np.array_equal(small, astc.resize(image, 60))
    """
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa})


@pytest.mark.parametrize(
    ("height", "width", "size"), [(96, 160, 192), (300, 400, 64), (400, 300, 64), (900, 40, 64)]
)
def test_the_pool_resizes_every_picture(height: int, width: int, size: int) -> None:
    image = picture(height, width, 4)
    waiting = [resampling.submit(resampling.resize, image, size) for _ in range(5)]
    for future in waiting:
        assert np.array_equal(future.result(), astc.resize(image, size))
    assert resampling.submit(torch.get_num_threads).result() == 1
