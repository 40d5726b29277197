"""Ten times the video takes no more memory: peak RSS on 1,000 frames of 720p and on 100, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

WIDTH, HEIGHT = 1280, 720
# Over 900 frames a tenth of the peak, about 80 MB, is less than a packed mask (115 kB) a frame would take.
FRAMES = (100, 1000)


def write_video(path: Path, frames: int) -> None:
    """Write a red disc that moves over a flat background; cheap to encode and to decode."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "fastdecode", "crf": "32", "g": "60"}
        pictures = []
        for step in range(30):
            picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            picture[(x - 200 - 25 * step) ** 2 + (y - 360) ** 2 < 110**2] = (220, 30, 30)
            pictures.append(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"))
        for index in range(frames):
            frame = pictures[index % 30]
            frame.pts = index
            frame.time_base = Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def peak(path: Path) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.svac.rss", str(path)],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.integration
@pytest.mark.timeout(1500)  # 1,100 frames of 720p with one thread: minutes on slow cores
def test_peak_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    results = {}
    for frames in FRAMES:
        path = tmp_path / f"{frames}.mp4"
        write_video(path, frames)
        results[frames] = peak(path)
        assert results[frames]["frames"] == frames
        assert results[frames]["ordered"]
        path.unlink()
    short, long = (results[frames]["peak_kb"] for frames in FRAMES)
    assert abs(long - short) <= 0.1 * short, results
