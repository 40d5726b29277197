"""Run in a process of its own by test_bounded_memory: segments a file and prints its peak memory and what came out."""

from __future__ import annotations

import json
import resource
import sys

import torch

from svac_backend.svac.model import Svac
from svac_backend.video.reader import VideoReader


def main(path: str) -> None:
    """Print a line of JSON."""
    torch.set_num_threads(1)
    model = Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")
    indices = []
    half = 0
    with VideoReader(path) as video:
        for frame in model.segment(video, ["the red object"]):
            indices.append(frame.index)
            if frame.index == len(video) // 2:
                half = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(  # noqa: T201 (its answer)
        json.dumps(
            {
                "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                "half_kb": half,
                "ordered": indices == list(range(len(indices))),
                "frames": len(indices),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
