"""The brush codec against the SDK's, and against streams that only an editor writes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from label_studio_sdk.converter import brush as sdk

from svac_backend.errors import SvacError
from svac_backend.masks.brush import decode_brush, encode_brush

PIXELS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
# Enlarged by whole factors, so that runs of every count size occur.
MASKS = st.builds(
    lambda mask, y, x: mask.repeat(y, axis=0).repeat(x, axis=1), PIXELS, *[st.integers(1, 9)] * 2
)


def sdk_encode(mask: np.ndarray) -> list[int]:
    return sdk.mask2rle(mask.astype(np.uint8) * 255)


def same_stream(ours: list[int], theirs: list[int]) -> bool:
    """Equal but for the empty byte that the SDK adds where its bits end on a byte; the editor adds none."""
    return ours == theirs or [*ours, 0] == theirs


def sdk_decode(rle: list[int], height: int, width: int) -> np.ndarray:
    return sdk.decode_rle(rle).reshape(height, width, 4)[..., 3] >= 128


def pack(
    tokens: list[tuple[int, int, list[int]]], total: int, sizes: tuple[int, ...] = (3, 4, 8, 16)
) -> list[int]:
    """Write rle-pack bit by bit, as its specification reads; a token is flag, size index, its bytes."""
    bits = f"{total:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for flag, size, values in tokens:
        bits += f"{flag}{size:02b}{len(values) - 1:0{sizes[size]}b}"
        bits += "".join(f"{value:08b}" for value in (values[:1] if flag else values))
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@given(MASKS)
def test_encode_writes_what_the_sdk_writes_and_decode_reads_it(mask: np.ndarray) -> None:
    rle = encode_brush(mask)
    assert same_stream(rle, sdk_encode(mask))
    np.testing.assert_array_equal(decode_brush(rle, *mask.shape), mask)
    np.testing.assert_array_equal(sdk_decode(rle, *mask.shape), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (2, 2), (131, 257), (300, 400)])
@pytest.mark.parametrize(
    "pattern", ["none", "all", "checkerboard", "one pixel", "all but one pixel", "columns"]
)
def test_patterns_survive(shape: tuple[int, int], pattern: str) -> None:
    y, x = np.indices(shape)
    centre = (y == shape[0] // 2) & (x == shape[1] // 2)
    mask = {
        "none": np.zeros(shape, bool),
        "all": np.ones(shape, bool),
        "checkerboard": (y + x) % 2 == 0,
        "one pixel": centre,
        "all but one pixel": ~centre,
        "columns": x % 64 < 32,
    }[pattern]
    rle = encode_brush(mask)
    assert same_stream(rle, sdk_encode(mask))
    np.testing.assert_array_equal(decode_brush(rle, *shape), mask)


@pytest.mark.parametrize("pixels", [2, 4, 64, 2**14 - 1, 2**14, 2**14 + 1, 2**15, 2**15 + 1])
def test_runs_at_the_limits_of_each_count_size(pixels: int) -> None:
    mask = np.zeros((1, pixels + 1), bool)
    mask[0, 1:] = True
    assert same_stream(encode_brush(mask), sdk_encode(mask))
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), 1, pixels + 1), mask)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=8).map(lambda shape: (*shape, 4))))
def test_any_rgba_is_cut_at_half_alpha(rgba: np.ndarray) -> None:
    rle = sdk.encode_rle(rgba.ravel().astype(int))
    np.testing.assert_array_equal(decode_brush(rle, *rgba.shape[:2]), rgba[..., 3] >= 128)


@given(st.data())
def test_any_division_into_runs_and_literals_is_read(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    sizes = tuple(data.draw(st.lists(st.integers(1, 16), min_size=4, max_size=4)))
    total = height * width * 4
    tokens: list[tuple[int, int, list[int]]] = []
    stream: list[int] = []
    while len(stream) < total:
        size = data.draw(st.integers(0, 3))
        count = data.draw(st.integers(1, min(1 << sizes[size], total - len(stream))))
        flag = data.draw(st.integers(0, 1))
        drawn = data.draw(st.binary(min_size=count, max_size=count))
        values = [drawn[0]] * count if flag else list(drawn)
        tokens.append((flag, size, values))
        stream += values
    rle = pack(tokens, total, sizes)
    expected = np.array(stream).reshape(height, width, 4)[..., 3] >= 128
    np.testing.assert_array_equal(decode_brush(rle, height, width), expected)


def test_an_anti_aliased_edge_of_the_editor_is_cut_at_half() -> None:
    alphas = [0, 100, 127, 128, 200, 255]
    values = [channel for alpha in alphas for channel in (0, 162, 255, alpha)]
    rle = pack([(0, 2, values)], len(values))
    assert decode_brush(rle, 1, 6).tolist() == [[False, False, False, True, True, True]]


def test_bytes_are_taken_as_well_as_a_list() -> None:
    mask = np.eye(5, dtype=bool)
    np.testing.assert_array_equal(decode_brush(bytes(encode_brush(mask)), 5, 5), mask)


@given(MASKS, st.data())
def test_a_stream_that_is_cut_off_is_refused(mask: np.ndarray, data: st.DataObject) -> None:
    rle = encode_brush(mask)
    kept = data.draw(st.integers(0, len(rle) - 2))  # the last byte may be nothing but fill
    with pytest.raises(SvacError, match="cut off"):
        decode_brush(rle[:kept], *mask.shape)


GOOD = encode_brush(np.eye(4, dtype=bool))


@pytest.mark.parametrize(
    ("rle", "height", "width", "reason"),
    [
        ([], 4, 4, "cut off"),
        (GOOD, 4, 5, "mask of 5x4 pixels has 80"),
        (GOOD, 0, 4, "not possible"),
        (GOOD, 4.0, 4, "not possible"),
        ([256, *GOOD[1:]], 4, 4, "no integer from 0 to 255"),
        ([-1, *GOOD[1:]], 4, 4, "no integer from 0 to 255"),
        ([0.5, *GOOD[1:]], 4, 4, "no integer from 0 to 255"),
        (["0", *GOOD[1:]], 4, 4, "no integer from 0 to 255"),
        ("0001", 4, 4, "not str"),
        (7, 4, 4, "not int"),
        (None, 4, 4, "not NoneType"),
        ([*GOOD[:4], GOOD[4] ^ 8, *GOOD[5:]], 4, 4, "words of"),
    ],
)
def test_bad_rle_is_refused(rle: object, height: int, width: int, reason: str) -> None:
    with pytest.raises(SvacError, match=reason):
        decode_brush(rle, height, width)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), bool), np.zeros((0, 3), bool), [[True]]]
)
def test_what_is_no_mask_is_refused(mask: object) -> None:
    with pytest.raises(SvacError, match="bool array"):
        encode_brush(mask)  # type: ignore[arg-type]


def test_real_masks(shared_masks: Path) -> None:
    files = sorted(shared_masks.glob("*/*/*.png"))[::60]
    assert len(files) >= 10
    for file in files:
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0
        rle = encode_brush(mask)
        assert same_stream(rle, sdk_encode(mask)), file
        np.testing.assert_array_equal(decode_brush(rle, *mask.shape), mask, err_msg=str(file))
