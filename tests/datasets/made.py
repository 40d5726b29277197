"""Videos with tracks for the tests of the layouts: moving rectangles, gaps, holes, an object that never appears."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.video.reader import ArrayVideo

WIDTH, HEIGHT, FRAMES = 64, 48, 6


def rectangle(top: int, left: int, height: int, width: int) -> CocoRle:
    """A mask of a rectangle, as far as it lies on the frame."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, left : left + width] = True
    return to_coco(mask)


def tracks(*, overlapping: bool = False, frames: Sequence[int] = range(FRAMES)) -> tuple[Track, ...]:
    """Three objects; the third is never there, the second not on frame 2. Masks may lie over each other."""
    car, dog, ghost = (
        Track("obj1", "car", "the red car"),
        Track("obj2", "dog", "the dog: on the left"),
        Track("obj7", "dog", "the ghost"),
    )
    for i in frames:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[5:20, 4 + 3 * i : 24 + 3 * i] = True
        mask[10:14, 10 + 3 * i : 14 + 3 * i] = False
        car.masks[i], car.scores[i] = to_coco(mask), 1.0
        other = np.zeros((HEIGHT, WIDTH), bool)
        other[30 - 14 * overlapping : 44, 2 + i : 30] = True
        if i != 2:
            dog.masks[i], dog.scores[i] = to_coco(other), 1.0
    return car, dog, ghost


def videos(*, overlapping: bool = False) -> list[VideoTracks]:
    """Two videos; of the second every other frame is exported."""
    whole = VideoTracks(
        "clip-a", WIDTH, HEIGHT, tuple(range(FRAMES)), tracks(overlapping=overlapping), fps=12.5
    )
    steps = tuple(range(1, FRAMES, 2))
    return [whole, VideoTracks("clip_b", WIDTH, HEIGHT, steps, tracks(frames=steps)[:1], fps=25.0)]


def source(video: VideoTracks) -> AbstractContextManager[ArrayVideo]:
    """The video that another of the module's came from; frame i is as bright as 20 i."""
    frames = (
        np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
        + 20 * np.arange(FRAMES, dtype=np.uint8)[:, None, None, None]
    )
    return nullcontext(ArrayVideo(frames, fps=video.fps or 24.0))


def said(videos: Sequence[VideoTracks]) -> list[object]:
    """What must survive a way through a layout."""
    return [
        (
            video.name,
            (video.width, video.height),
            video.frames,
            video.picture_names,
            video.fps,
            [(t.object_id, t.label, t.expression, t.masks) for t in video.tracks],
        )
        for video in videos
    ]
