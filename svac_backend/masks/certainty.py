"""Where a person should look first: how sure the model is of a frame, and of the worst stretch of a task.

A track's score of a frame is existence times predicted quality. With a mask it says how sure the mask is. Without a
mask it says how nearly there was one, so what is sure then is its complement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from svac_backend.masks.tracks import Track

# A shorter stretch is over before an annotator sees it; in a longer one bad frames would drown.
STRETCH_FRAMES = 10


def frame_certainty(tracks: Sequence[Track], frames: Iterable[int]) -> dict[int, float]:
    """Return how sure the tracks are on each frame: the least sure track counts.

    A track with a mask counts with its score (1.0 if it has none: a person drew it); one without a mask with 1 - score,
    or with 1.0 where the score is 1.0: a person said that the object is not there. A track without any mask at all was
    asked for and not found: 0.0 on every frame that was looked at.

    Args:
        tracks: all objects of a video.
        frames: 0-based frames of the video; those that no track looked at are left out.

    Returns:
        Frame -> 0..1.
    """
    found: dict[int, float] = {}
    for frame in frames:
        values = [value for track in tracks if (value := _certainty(track, frame)) is not None]
        if values:
            found[frame] = min(values)
    return found


def worst_stretch(values: Sequence[float]) -> float:
    """Return the lowest mean of `STRETCH_FRAMES` neighbouring values, of all if there are fewer; 0.0 of none."""
    if not values:
        return 0.0
    length = min(STRETCH_FRAMES, len(values))
    return float(
        np.convolve(np.asarray(values, dtype=np.float64), np.full(length, 1 / length), "valid").min()
    )


def _certainty(track: Track, frame: int) -> float | None:
    score = track.scores.get(frame)
    if frame in track.masks:
        return 1.0 if score is None else score
    if score is None:
        return None
    if not track.masks:
        return 0.0
    return 1.0 if score >= 1.0 else 1.0 - score
