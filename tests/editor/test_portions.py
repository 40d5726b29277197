"""Answers to tasks with many polygons come in portions."""

from __future__ import annotations

from typing import Any

from svac_backend.editor.answer import MOST_WORK, next_places, regions_at
from svac_backend.labelstudio.regions.sent import of_generation

FRAMES = 300


def polygons(frames: range, left: float = 10.0, kind: str = "polygonlabels") -> list[dict[str, Any]]:
    points = [[left, 10.0], [left + 20, 10.0], [left, 40.0]]
    return [
        {
            "id": f"obj1-f{frame:05d}",
            "item_index": frame,
            "from_name": "mask",
            "type": kind,
            "value": {"points": points, "closed": True, kind: ["dog"]},
        }
        for frame in frames
    ]


def test_what_is_quick_is_replaced_at_once() -> None:
    gone, come = polygons(range(80)), of_generation(polygons(range(80)), 1)
    assert next_places(gone, come, 0, {}) == {("obj1", frame) for frame in range(80)}
    # A task of very many polygons takes one after the other, and not none for ever.
    moved = of_generation(polygons(range(80), left=30.0), 1)
    assert next_places(gone, moved, MOST_WORK, {}) == {("obj1", 0)}


def test_masks_that_are_no_polygons_are_replaced_at_once() -> None:
    gone = polygons(range(FRAMES), kind="brushlabels")
    assert len(next_places(gone, of_generation(gone, 1), 0, {})) == FRAMES


def test_portions_begin_at_the_corrections_and_end_with_all_replaced() -> None:
    shown = {region["id"]: region for region in polygons(range(FRAMES))}
    target = polygons(range(FRAMES), left=30.0)
    corrected = {"obj1": [200]}
    seen: list[set[int]] = []
    for generation in range(1, 20):
        come = of_generation(target, generation)
        places = next_places(list(shown.values()), come, 0, corrected)
        if not places:
            break
        removed, made = regions_at(shown.values(), places), regions_at(come, places)
        assert len(removed) * (len(shown) + len(made)) <= MOST_WORK
        seen.append({frame for _, frame in places})
        for region in removed:
            del shown[region["id"]]
        shown |= {region["id"]: region for region in made}
    assert 200 in seen[0]
    assert max(abs(frame - 200) for frame in seen[0]) <= min(abs(frame - 200) for frame in seen[1])
    assert sum(map(len, seen)) == FRAMES == len(set.union(*seen))
    assert {str(region["value"]) for region in shown.values()} == {str(target[0]["value"])}


def test_a_mask_that_vanishes_and_a_new_one_count_too() -> None:
    gone, come = polygons(range(FRAMES)), of_generation(polygons(range(FRAMES, FRAMES + 5)), 1)
    places = next_places(gone, come, 0, {})
    assert {("obj1", frame) for frame in range(FRAMES, FRAMES + 5)} < places
    assert ("obj1", 0) in places
    assert ("obj1", FRAMES - 1) not in places
