"""How much of an answer the editor takes over at a time.

To delete a polygon, Label Studio 1.23.2 looks through the points of all polygons of the task, so replacing all of 300
frames stands still for half a minute. Such an answer is given in portions: the frames nearest to the corrections first,
and the next ones when it is asked for again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from svac_backend.labelstudio.sending import Region, geometry, region_name

# Object id and frame.
Place = tuple[str, int]

# Polygons deleted times polygons in the task: 300 and 600 blocked 24 to 37 s on busy cores, 100 and 200 took 3 to 7 s.
MOST_WORK = 32_000
_SLOW = frozenset({"polygonlabels", "polygon", "vectorlabels", "vector"})


def next_places(
    gone: Sequence[Region],
    come: Sequence[Region],
    others: int,
    corrected: Mapping[str, Collection[int]],
) -> set[Place]:
    """Return the places of regions that are to be replaced now: all of them when that is quick.

    Args:
        gone: the regions that go, as the editor shows them.
        come: the regions that take their place.
        others: how many regions the task shows beside these.
        corrected: the frames of each object that a person corrected; those near them are the first.
    """
    old, new = _by_place(gone), _by_place(come)
    slow = sum(1 for region in gone if region.get("type") in _SLOW)
    if slow * (len(gone) + len(come) + others) <= MOST_WORK:
        return old.keys() | new.keys()

    def distance(place: Place) -> tuple[int, Place]:
        object_id, frame = place
        return min((abs(frame - near) for near in corrected.get(object_id, ())), default=frame), place

    # What an earlier portion brought is there already.
    differ = [
        place for place in old if sorted(map(_look, old[place])) != sorted(map(_look, new.get(place, [])))
    ]
    chosen = new.keys() - old.keys()
    deleted, present = 0, len(gone) + others + sum(len(new[place]) for place in chosen)
    for place in sorted(differ, key=distance):
        deleted, present = deleted + len(old[place]), present + len(new.get(place, ()))
        if deleted * present > MOST_WORK:
            break
        chosen.add(place)
    return chosen


def at(regions: Iterable[Region], places: Collection[Place]) -> list[Region]:
    """Return the regions at these places."""
    return [region for place, found in _by_place(regions).items() if place in places for region in found]


def _by_place(regions: Iterable[Region]) -> dict[Place, list[Region]]:
    found: dict[Place, list[Region]] = defaultdict(list)
    for region in regions:
        name = region_name(region)
        if name is not None:
            found[name.object_id, name.frame].append(region)
    return dict(found)


def _look(region: Region) -> tuple[str, str, str]:
    value, kind = region.get("value") or {}, str(region.get("type"))
    return str(region.get("from_name")), str(value.get(kind)), geometry(region)
