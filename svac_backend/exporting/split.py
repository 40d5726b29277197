"""Split: a long video becomes windows, which overlap; `join` is the way back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from svac_backend.errors import SvacError
from svac_backend.labelstudio.windows import Window
from svac_backend.masks.tracks import Track

# Submitting a brush mask costs the editor 0.11 s: a task of so many frames is sent in about 14 s.
DEFAULT_WINDOW = 100
# Enough to see on both sides of a cut how the object moves, and that it is the same one; a person corrects near a cut
# with the next frames in sight, and pays for it with 4 % more frames.
DEFAULT_OVERLAP = 4


def plan_windows(frame_count: int, size: int, overlap: int | None = None, stride: int = 1) -> list[Window]:
    """Return the windows of a video: as few as possible, of equal length within one frame, in order.

    Equal, since 101 frames are better two tasks of 53 than one of 100 and one of 5.

    Args:
        frame_count: number of frames of the video.
        size: largest number of frames that a window shows; 0 makes one window of all.
        overlap: number of shown frames that two neighbours share; None takes `DEFAULT_OVERLAP`, or half of a small
            window.
        stride: show every so many frames.

    Raises:
        SvacError: a number is out of range, or the overlap leaves no way forward.
    """
    if frame_count < 1:
        raise SvacError("The video has no frames.", "Give a video with at least one frame.")
    if size < 0 or stride < 1:
        raise SvacError(
            f"Windows of {size} frames in steps of {stride} are not possible.",
            "Give --window 1 or more (0 for one task of the whole video) and --stride 1 or more.",
        )
    overlap = min(DEFAULT_OVERLAP, size // 2) if overlap is None else overlap
    if overlap < 0 or (size and overlap >= size):
        raise SvacError(
            f"Windows of {size} frames cannot share {overlap} with their neighbours.",
            "Give --overlap less than --window, 0 or more.",
        )
    shown = -(-frame_count // stride)
    if not size or shown <= size:
        return [Window(0, shown, stride)]
    number = -(-(shown - overlap) // (size - overlap))
    # The cuts in equal distances; each window takes the overlap with the next one along.
    starts = [i * (shown - overlap) // number for i in range(number + 1)]
    return [Window(start * stride, end - start + overlap, stride) for start, end in pairwise(starts)]


def cut(tracks: Sequence[Track], window: Window) -> list[Track]:
    """Return what a window shows of tracks; frames keep the video's numbers, an object that is never shown stays."""
    return [
        Track(
            track.object_id,
            track.label,
            track.expression,
            {i: rle for i, rle in track.masks.items() if window.item(i) is not None},
            {i: score for i, score in track.scores.items() if window.item(i) is not None},
        )
        for track in tracks
    ]
