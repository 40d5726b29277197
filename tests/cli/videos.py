"""Small videos for the commands' tests: good ones, and what people give by mistake."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FRAMES, FPS = 64, 48, 8, 10


def write_video(path: Path, *, frames: int = FRAMES, shade: int = 0) -> Path:
    """Write a square that moves over a background; another shade makes another video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(frames):
            picture = np.full((HEIGHT, WIDTH, 3), 60 + shade, np.uint8)
            picture[12:28, 4 + 4 * i : 20 + 4 * i] = (220, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_wide_video(path: Path) -> Path:
    """Write a video of 20,000 x 16 pixels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 20_000, 16, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame(20_000, 16, "yuvj420p")))
        container.mux(stream.encode())
    return path


def write_truncated_video(path: Path) -> Path:
    """Write a Matroska file of 60 frames, and keep its first half."""
    write_video(path, frames=60)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path
