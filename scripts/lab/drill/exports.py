"""How much memory an export takes, by the number of tasks; the annotations are made, a task after the other.

`python -m lab.drill.exports coco 200 2000` from `scripts/` exports so many tasks, each in a process of its own, and
prints the largest memory of each.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from svac_backend.datasets.layouts import DataSet
from svac_backend.datasets.reading import Choice, read_tasks
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track

CONFIG = parse_config(
    '<View><Image name="frames" valueList="$frames"/><BrushLabels name="mask" toName="frames">'
    '<Label value="car"/><Label value="dog"/></BrushLabels><Video name="video" value="$video"/></View>'
)
WIDTH, HEIGHT, FRAMES = 320, 240, 8


def made_results() -> list[dict[str, Any]]:
    """Return the regions of two objects that move, on all frames."""
    tracks = [Track("obj1", "car", "the car"), Track("obj2", "dog", "the dog")]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for frame in range(FRAMES):
        for track, (top, left) in zip(tracks, ((80, 60), (160, 220)), strict=True):
            track.masks[frame] = to_coco((x - left - 2 * frame) ** 2 + (y - top) ** 2 < 40**2)
    return tracks_to_results(tracks, CONFIG.mask_control(), Canvas(WIDTH, HEIGHT))


def made_tasks(count: int) -> Iterator[dict[str, Any]]:
    """Yield tasks, each of a video of its own, with as much in their data as imported ones have."""
    for number in range(count):
        frames = [f"/data/local-files/?d=svac/1/clip{number}/{i:05d}.jpg" for i in range(FRAMES)]
        data = {
            "video": f"/data/upload/1/clip{number}.mp4",
            "frames": frames,
            "fps": 25.0,
            "prompt": "the car",
        }
        yield {"id": number, "data": data}


def export(layout: str, count: int, out: Path) -> None:
    """Export so many tasks."""
    results = made_results()
    annotations = [{"id": 1, "result": results, "updated_at": "2026-11-22T10:00:00Z"}]
    found = read_tasks(made_tasks(count), lambda task: {**task, "annotations": annotations}, CONFIG, Choice())
    DataSet(out, layout).write((one.video for one in found.videos), labels=["car", "dog"])


def peak_mb(layout: str, count: int, out: Path) -> float:
    """Return the largest memory of such an export in MB, in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "lab.drill.exports", layout, str(count), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout)


if __name__ == "__main__":
    if sys.argv[3:4] == ["--out"]:
        export(sys.argv[1], int(sys.argv[2]), Path(sys.argv[4]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    else:
        for number in map(int, sys.argv[2:]):
            with tempfile.TemporaryDirectory() as folder:
                print(
                    f"{number} tasks: {peak_mb(sys.argv[1], number, Path(folder) / 'out'):.1f} MB", flush=True
                )
