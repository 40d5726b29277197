"""Where to look first."""

from __future__ import annotations

import numpy as np
import pytest

from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import STRETCH_FRAMES, Track, frame_certainty, worst_stretch

MASK = to_coco(np.ones((2, 2), bool))


def track(scores: dict[int, float], *with_mask: int) -> Track:
    return Track("obj1", "dog", "the dog", dict.fromkeys(with_mask, MASK), scores)


def test_masks_count_with_their_score_and_absence_with_what_is_left() -> None:
    one = track({0: 0.9, 1: 0.4, 2: 0.1, 3: 1.0}, 0, 5)
    # 0: a sure mask. 1: nearly there. 2: surely absent. 3: a person said absent. 4: nobody looked. 5: a person drew it.
    found = frame_certainty([one], range(6))
    assert found == pytest.approx({0: 0.9, 1: 0.6, 2: 0.9, 3: 1.0, 5: 1.0})


def test_the_least_sure_object_counts() -> None:
    one, two = track({0: 0.9, 1: 0.9}, 0, 1), track({0: 0.7, 1: 0.95}, 0, 1)
    assert frame_certainty([one, two], [0, 1]) == {0: 0.7, 1: 0.9}


def test_what_was_asked_for_and_never_found_needs_a_look_everywhere() -> None:
    assert frame_certainty([track({0: 0.9}, 0), track({0: 0.02})], [0]) == {0: 0.0}


def test_a_bad_stretch_shows_however_long_the_rest_is() -> None:
    for length in (50, 5000):
        values = [0.9] * length
        values[20:30] = [0.2] * 10
        assert worst_stretch(values) == pytest.approx(0.2)
    assert worst_stretch([0.9] * 50) == pytest.approx(0.9)
    # A single bad frame is a tenth of a stretch.
    assert worst_stretch([0.9] * 20 + [0.0] + [0.9] * 20) == pytest.approx(0.81)


def test_short_tasks_are_one_stretch() -> None:
    assert STRETCH_FRAMES == 10
    assert worst_stretch([0.2, 0.4]) == pytest.approx(0.3)
    assert worst_stretch([0.7]) == pytest.approx(0.7)
    assert worst_stretch([]) == 0.0
