"""Videos made by PyAV whose pictures carry their own number, and real clips where the shared folder exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

REAL_VIDEOS = Path(__file__).parents[2] / ".." / "shared" / "videos"

MakeVideo = Callable[..., Path]


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return u8 [H, W, 3]: the lower half shows the number as 10 black or white bars, the upper half moves."""
    image = np.empty((height, width, 3), np.uint8)
    across = np.arange(width)
    image[:] = ((across * 5 + number * 9) % 256)[None, :, None]
    image[..., 1] = ((np.arange(height) * 3 + number * 4) % 256)[:, None]
    image[height // 2 :] = np.where(number >> (across * 10 // width) & 1, 235, 20)[None, :, None]
    return image


def read_number(image: NDArray[np.uint8]) -> int:
    """Return the number that a picture carries, also after lossy coding and scaling."""
    height, width = image.shape[:2]
    rows = image[height * 3 // 5 : height * 9 // 10].mean(axis=(0, 2))
    centers = [int((bar + 0.5) * width / 10) for bar in range(10)]
    return sum(1 << bar for bar, x in enumerate(centers) if rows[x] > 128)


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Return a function that writes a numbered video and returns its path."""

    def make(
        name: str = "video.mp4",
        count: int = 30,
        *,
        size: tuple[int, int] = (128, 96),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        rate: Fraction | int = 25,
        pts_ms: Sequence[int] | None = None,
        rotation: float | None = None,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            stream.options = options or {}
            stream.codec_context.time_base = Fraction(1, 1000) if pts_ms else 1 / Fraction(rate)
            if rotation is not None:
                stream.set_display_rotation(rotation)
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(picture(i, *size))
                frame.pts = pts_ms[i] if pts_ms else i
                frame.time_base = stream.codec_context.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture
def sequential() -> Callable[[Path], list[NDArray[np.uint8]]]:
    """Return a function that decodes a whole file from its start, in the plainest way: the reference."""

    def decode(path: Path) -> list[NDArray[np.uint8]]:
        with av.open(str(path)) as container:
            return [
                np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                for frame in container.decode(video=0)
            ]

    return decode


@pytest.fixture
def number_of() -> Callable[[NDArray[np.uint8]], int]:
    """Return the function that reads a picture's number."""
    return read_number


@pytest.fixture
def real_videos() -> Path:
    """Return the folder of real clips; skips where it is absent."""
    if not REAL_VIDEOS.is_dir():
        pytest.skip("the shared folder with real clips (../shared/videos) is absent")
    return REAL_VIDEOS
