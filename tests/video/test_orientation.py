from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from svac_backend.video.container import Orientation
from svac_backend.video.reader import VideoReader

ALL = [Orientation(*flags) for flags in product((False, True), repeat=3)]


@pytest.mark.parametrize("orientation", ALL)
def test_a_corner_goes_where_the_matrix_sends_it(orientation: Orientation) -> None:
    """Each stored point (p, q) must land at (a p + c q, b p + d q), up to a shift."""
    height, width = 3, 5
    stored = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    x_sign, y_sign = -1 if orientation.flip_x else 1, -1 if orientation.flip_y else 1
    a, b, c, d = (0, y_sign, x_sign, 0) if orientation.transposed else (x_sign, 0, 0, y_sign)
    points = {(p, q): (a * p + c * q, b * p + d * q) for p in range(width) for q in range(height)}
    left, top = (min(point[axis] for point in points.values()) for axis in (0, 1))
    shown = orientation.apply(stored)
    assert shown.flags.c_contiguous
    assert shown.shape == ((width, height, 3) if orientation.transposed else stored.shape)
    for (p, q), (x, y) in points.items():
        assert np.array_equal(shown[y - top, x - left], stored[q, p])


@pytest.mark.parametrize("turns", range(4))
def test_clockwise_angle(turns: int) -> None:
    stored = np.arange(30, dtype=np.uint8).reshape(2, 5, 3)
    found = next(o for o in ALL if np.array_equal(o.apply(stored), np.rot90(stored, -turns)))
    assert found.clockwise == 90 * turns


@pytest.mark.parametrize(
    ("degrees", "hflip", "vflip", "expected"),
    [
        (0, False, False, lambda image: image),
        (90, False, False, lambda image: np.rot90(image, 1)),
        (180, False, False, lambda image: np.rot90(image, 2)),
        (270, False, False, lambda image: np.rot90(image, 3)),
        (0, True, False, lambda image: image[:, ::-1]),
        (0, False, True, lambda image: image[::-1]),
        (3, False, False, lambda image: image),  # a tilted camera is not rotated
    ],
)
def test_read_from_a_file(
    tmp_path: Path,
    degrees: float,
    hflip: bool,
    vflip: bool,
    expected: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
        image = np.zeros((48, 64, 3), np.uint8)
        image[:16, :32] = 255
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(VideoReader(path).frame(0), expected(stored))
