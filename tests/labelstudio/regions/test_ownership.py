"""Whose a region is that a person drew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from svac_backend.labelstudio.regions.read import free_id, results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from tests.labelstudio.annotations import BRUSH, HEIGHT, WIDTH, brushed, mask_of, sent_of, track_of

LEFT, RIGHT = mask_of((10, 30, 5, 20)), mask_of((10, 30, 40, 55))
BOTH = LEFT | RIGHT
NEAR_LEFT, NEAR_RIGHT = mask_of((12, 32, 7, 22)), mask_of((12, 32, 42, 57))
FAR = mask_of((40, 47, 28, 34))


def read(results: list[dict[str, Any]], *known: Track, **options: Any) -> dict[str, dict[int, list[int]]]:
    """Object -> frame -> the mask's bounding box and area, which tell these masks apart."""
    found = results_to_tracks(results, BRUSH, Canvas(WIDTH, HEIGHT), tracks=known, **options)
    return {track.object_id: track.masks for track in found if track.masks}  # type: ignore[misc]


def masks(**objects: dict[int, np.ndarray]) -> dict[str, Any]:
    return {
        object_id: {frame: to_coco(mask) for frame, mask in frames.items()}
        for object_id, frames in objects.items()
    }


def test_the_only_object_without_a_region_there_gets_it() -> None:
    one, two = track_of({0: LEFT, 1: LEFT, 2: LEFT}), track_of({0: RIGHT, 2: RIGHT}, "obj2")
    results = [*sent_of(BRUSH, one, two), brushed(1, FAR)]
    assert read(results)["obj2"] == masks(o={0: RIGHT, 1: FAR, 2: RIGHT})["o"]


def test_a_deleted_and_redrawn_region_is_the_same_object() -> None:
    one = track_of({0: LEFT, 1: LEFT, 2: LEFT})
    results = [region for region in sent_of(BRUSH, one) if region["item_index"] != 1]
    assert read([*results, brushed(1, RIGHT)], one) == masks(obj1={0: LEFT, 1: RIGHT, 2: LEFT})


def test_a_part_drawn_onto_an_object_is_united_with_it() -> None:
    one, two = track_of({0: LEFT, 1: LEFT}), track_of({0: RIGHT}, "obj2")
    results = [*sent_of(BRUSH, one, two), brushed(1, NEAR_LEFT)]
    assert read(results) == masks(obj1={0: LEFT, 1: LEFT | NEAR_LEFT}, obj2={0: RIGHT})


def test_of_several_the_one_that_lies_there_on_neighbouring_frames() -> None:
    one, two = track_of({0: LEFT, 2: LEFT}), track_of({0: RIGHT, 2: RIGHT}, "obj2")
    sent = sent_of(BRUSH, one, two)
    results = [*sent, brushed(1, NEAR_RIGHT, "r"), brushed(1, NEAR_LEFT, "l")]
    assert read(results) == masks(
        obj1={0: LEFT, 1: NEAR_LEFT, 2: LEFT}, obj2={0: RIGHT, 1: NEAR_RIGHT, 2: RIGHT}
    )
    nearer_right = mask_of((40, 47, 44, 50))
    assert (
        read([*sent, brushed(1, nearer_right)])["obj2"] == masks(o={0: RIGHT, 1: nearer_right, 2: RIGHT})["o"]
    )


def test_labels_divide() -> None:
    one, two = track_of({0: LEFT, 2: LEFT}), track_of({0: LEFT, 2: LEFT}, "obj2", "cat")
    results = [*sent_of(BRUSH, one, two), brushed(1, LEFT, label="cat")]
    assert read(results)["obj2"].keys() == {0, 1, 2}
    assert read(results)["obj1"].keys() == {0, 2}


def test_elsewhere_it_is_a_new_object_on_all_its_frames() -> None:
    one = track_of({0: LEFT, 1: LEFT, 2: LEFT})
    results = [*sent_of(BRUSH, one), *(brushed(frame, FAR, f"new{frame}") for frame in (0, 2))]
    assert read(results, one, track_of({}, "obj4", "cat")) == masks(
        obj1={0: LEFT, 1: LEFT, 2: LEFT}, obj5={0: FAR, 2: FAR}
    )


def test_in_the_place_of_its_neighbours_it_is_a_missing_part() -> None:
    one = track_of({0: BOTH, 1: LEFT, 2: BOTH})
    assert read([*sent_of(BRUSH, one), brushed(1, NEAR_RIGHT & RIGHT)], one)["obj1"][1] == to_coco(
        LEFT | (NEAR_RIGHT & RIGHT)
    )


def test_a_place_that_was_taken_away_is_another_object() -> None:
    """The model took two dogs for one; a person erased one of them and drew it as a region of its own."""
    one = track_of({0: BOTH, 1: BOTH, 2: BOTH})
    results = sent_of(BRUSH, one)
    results[1]["value"]["rle"] = brushed(1, LEFT)["value"]["rle"]
    results.append(brushed(1, NEAR_RIGHT))
    assert read(results, one) == masks(obj1={0: BOTH, 1: LEFT, 2: BOTH}, obj2={1: NEAR_RIGHT})


def test_parts_of_what_is_known_exactly_stay_together() -> None:
    one, two = track_of({0: LEFT, 1: LEFT}), track_of({0: FAR, 1: NEAR_RIGHT | FAR}, "obj2")
    parts = [brushed(1, NEAR_RIGHT, "a"), brushed(1, FAR, "b")]
    results = [*sent_of(BRUSH, one), *parts]
    assert read(results, one, two)["obj2"][1] == to_coco(NEAR_RIGHT | FAR)
    certain = {"obj9": {1: FrameHint(mask=to_coco(NEAR_RIGHT | FAR))}}
    assert read(results, one, certain=certain)["obj9"][1] == to_coco(NEAR_RIGHT | FAR)
    assert read(results, one).keys() == {"obj1", "obj2", "obj3"}


def test_an_empty_region_without_an_object_is_nobodys() -> None:
    results = [*sent_of(BRUSH, track_of({0: LEFT})), brushed(1, mask_of())]
    assert read(results) == masks(obj1={0: LEFT})


def test_a_region_without_a_label_has_the_first_one() -> None:
    (track,) = results_to_tracks([brushed(0, LEFT, label=None)], BRUSH, Canvas(WIDTH, HEIGHT))
    assert track.label == "dog"


@pytest.mark.parametrize(
    ("taken", "free"), [([], "obj1"), (["obj1", "obj3"], "obj4"), (["dog", "obj2x", "myobj7"], "obj1")]
)
def test_ids_are_never_given_twice(taken: list[str], free: str) -> None:
    assert free_id(taken) == free
