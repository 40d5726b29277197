"""Windows and the way back."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.datasets.windows import Part, Windowing, join
from svac_backend.errors import SvacError
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle, Track


def rle(n: int) -> CocoRle:
    """A mask that is like no other of another n below 100."""
    mask = np.zeros((10, 10), bool)
    mask.flat[n] = True
    return to_coco(mask)


MASKS = [rle(n) for n in range(8)]


@st.composite
def videos(draw: st.DrawFn) -> tuple[int, list[Track]]:
    count = draw(st.integers(1, 40))
    frames = st.sets(st.integers(0, count - 1))
    tracks = []
    for number in range(draw(st.integers(0, 4))):
        masked = draw(frames)
        scored = masked | draw(frames)
        tracks.append(
            Track(
                f"obj{number}",
                draw(st.sampled_from(["car", "dog"])),
                draw(st.sampled_from(["", "the red car"])),
                {i: MASKS[draw(st.integers(0, len(MASKS) - 1))] for i in sorted(masked)},
                {i: i / 40 for i in sorted(scored)},
            )
        )
    return count, tracks


def cut(tracks: list[Track], window: Window) -> list[Track]:
    """What a window shows of tracks, by the video's frames."""
    return [
        replace(
            track,
            masks={i: rle for i, rle in track.masks.items() if window.item(i) is not None},
            scores={i: score for i, score in track.scores.items() if window.item(i) is not None},
        )
        for track in tracks
    ]


@given(videos(), st.integers(0, 15), st.integers(0, 14), st.integers(1, 4), st.randoms())
def test_windows_to_join_is_the_identity(
    video: tuple[int, list[Track]], size: int, overlap: int, stride: int, order: st.randoms
) -> None:  # type: ignore[valid-type]
    count, tracks = video
    windows = Windowing(size, min(overlap, max(size - 1, 0)), stride).of(count)
    parts = [Part(window, cut(tracks, window)) for window in windows]
    order.shuffle(parts)  # type: ignore[attr-defined]
    assert join(parts) == cut(tracks, Window(0, -(-count // stride), stride))


@given(st.integers(1, 3000), st.integers(0, 150), st.integers(0, 149), st.integers(1, 9))
def test_windows_show_every_frame_and_are_alike(count: int, size: int, overlap: int, stride: int) -> None:
    overlap = min(overlap, max(size - 1, 0))
    windows = Windowing(size, overlap, stride).of(count)
    shown = [set(range(w.start, w.start + w.count * w.stride, w.stride)) for w in windows]
    assert set.union(*shown) == set(range(0, count, stride))
    lengths = [w.count for w in windows]
    assert max(lengths) - min(lengths) <= 1
    if size:
        assert max(lengths) <= size
    for before, after in pairwise(shown):
        assert len(before & after) == overlap
    assert all(w.stride == stride for w in windows)


def test_a_hundred_and_one_frames_are_two_tasks_of_half() -> None:
    assert Windowing(100).of(101) == [Window(0, 52), Window(48, 53)]
    assert Windowing(100).of(100) == [Window(0, 100)]
    assert Windowing(0).of(101) == [Window(0, 101)]
    assert [Windowing().for_objects(count).size for count in (0, 1, 3, 4, 400)] == [100, 100, 100, 75, 1]
    assert Windowing(90).for_objects(10).size == 90, "a size of one's own stays"
    assert Windowing(3).of(10) == Windowing(3, 1).of(10), "a small window shares half of its frames at most"


@pytest.mark.parametrize(("size", "overlap", "stride"), [(10, 10, 1), (10, -1, 1), (-1, 0, 1), (10, 2, 0)])
def test_windows_that_are_not_possible(size: int, overlap: int, stride: int) -> None:
    with pytest.raises(SvacError) as caught:
        Windowing(size, overlap, stride).of(50)
    assert "--" in caught.value.hint


def test_no_frames_have_no_windows() -> None:
    with pytest.raises(SvacError, match="no frames"):
        Windowing(10).of(0)


# Frames 0 to 9 and 6 to 15: 6, 7 are further from the edge in the first, 8 and 9 in the second.
FIRST, SECOND = Window(0, 10), Window(6, 10)


def part(window: Window, mask: CocoRle | None, changed: tuple[int, ...] = (), saved: float = 0.0) -> Part:
    masks = {} if mask is None else {window.frame(i): mask for i in range(window.count)}
    return Part(
        window,
        [Track("obj1", "car", "the car", masks)],
        {"obj1": frozenset(changed)} if changed else {},
        saved,
    )


def firsts(parts: list[Part]) -> list[int]:
    """The frames on which the first window's mask stands, of those that are shared."""
    (track,) = join(parts)
    return [frame for frame in range(6, 10) if track.masks.get(frame) == MASKS[0]]


def test_the_window_in_which_a_frame_is_further_from_the_edge_decides() -> None:
    parts = [part(FIRST, MASKS[0]), part(SECOND, MASKS[1])]
    assert firsts(parts) == [6, 7]
    assert firsts(parts[::-1]) == [6, 7], "whatever the order"
    (track,) = join(parts)
    assert (len(track.masks), track.masks[0], track.masks[15]) == (16, MASKS[0], MASKS[1])


def test_a_person_weighs_more_than_a_prediction() -> None:
    assert firsts([part(FIRST, MASKS[0], changed=(9,)), part(SECOND, MASKS[1])]) == [6, 7, 9]
    assert firsts([part(FIRST, MASKS[0]), part(SECOND, MASKS[1], changed=(6,))]) == [7]
    both = [part(FIRST, MASKS[0], changed=(6, 9)), part(SECOND, MASKS[1], changed=(6, 9))]
    assert firsts(both) == [6, 7], "two persons: the edge decides"


def test_a_deletion_is_a_change() -> None:
    (track,) = join([part(FIRST, None, changed=(8, 9)), part(SECOND, MASKS[1])])
    assert sorted(track.masks) == [10, 11, 12, 13, 14, 15]
    # In 6 and 7 the first window, which knows of no mask there, is further from the edge.
    (track,) = join([part(FIRST, MASKS[0]), part(SECOND, None, changed=(6,))])
    assert sorted(track.masks) == [0, 1, 2, 3, 4, 5, 7]


def test_a_tie_goes_to_the_later_one() -> None:
    old, new = part(FIRST, MASKS[0], saved=5.0), part(FIRST, MASKS[1], saved=7.0)
    for parts in ([old, new], [new, old]):
        (track,) = join(parts)
        assert set(map(str, track.masks.values())) == {str(MASKS[1])}


def test_an_id_with_another_label_is_another_object() -> None:
    parts = [part(FIRST, MASKS[0]), Part(SECOND, [Track("obj1", "dog", "", {15: MASKS[1]})])]
    car, dog = join(parts)
    assert (car.object_id, car.label, car.expression) == ("obj1", "car", "the car")
    assert (dog.object_id, dog.label, sorted(dog.masks)) == ("obj1-2", "dog", [15])
    assert sorted(car.masks) == list(range(8)), "the second window says that there is no car"


def test_an_object_keeps_the_sentence_that_one_window_knows() -> None:
    unnamed = Part(FIRST, [Track("obj1", "car", "", {0: MASKS[0]})])
    (track,) = join([unnamed, part(SECOND, MASKS[1])])
    assert track.expression == "the car"


def test_masks_that_do_not_belong_to_their_window() -> None:
    with pytest.raises(SvacError, match="frame 12, which its window from frame 0 does not show"):
        join([Part(FIRST, [Track("obj1", "car", "", {12: MASKS[0]})])])
    with pytest.raises(SvacError, match="twice"):
        join([Part(FIRST, [Track("obj1", "car", ""), Track("obj1", "car", "")])])


def test_nothing_joins_to_nothing() -> None:
    assert join([]) == []
