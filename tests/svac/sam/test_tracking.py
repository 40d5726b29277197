"""Propagation of corrections: against sam2's own steps, and what must not change a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from svac_backend.errors import SvacError
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.svac.model import Svac
from svac_backend.svac.sam import tracking
from svac_backend.svac.sam.memory import MemoryTracker
from svac_backend.svac.sam.tracking import Propagation
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.video.reader import ArrayVideo
from tests.small import CONFIG
from tests.svac.plain_tracking import plain_propagation

pytestmark = pytest.mark.slow

COUNT, HEIGHT, WIDTH = 14, 64, 96


@pytest.fixture(scope="module")
def random_weights(tokenizer_file: Path) -> Svac:
    torch.manual_seed(4)  # most other seeds see nothing anywhere
    return Svac(CONFIG, tokenizer_file).eval()


@pytest.fixture(scope="module")
def embedded() -> Svac:
    return Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")


@cache
def scene(count: int = COUNT) -> tuple[ArrayVideo, np.ndarray]:
    """A clip and its masks, bool [N, T, H, W]."""
    made = make_scene(4, SceneConfig(width=WIDTH, height=HEIGHT, frames=count, max_objects=3))
    return ArrayVideo(made.frames), made.masks


def given(number: int, *frames: int, count: int = COUNT) -> dict[int, FrameHint]:
    masks = scene(count)[1]
    return {i: FrameHint(mask=to_coco(masks[number, i])) for i in frames}


def click_on(number: int, frame: int, *beside: tuple[float, float]) -> FrameHint:
    y, x = np.argwhere(scene()[1][number, frame]).mean(0)
    return FrameHint(clicks=(Click(x, y), *(Click(*place, positive=False) for place in beside)))


def absent() -> FrameHint:
    return FrameHint(mask=to_coco(np.zeros((HEIGHT, WIDTH), np.bool_)))


def run(
    model: Svac, prompts: Sequence[Mapping[int, FrameHint]], **options: object
) -> dict[tuple[int, int], np.ndarray]:
    """Return the masks by object and frame; each may come once only."""
    found: dict[tuple[int, int], np.ndarray] = {}
    for number, frame, mask, score in model.propagate(scene()[0], prompts, **options):  # type: ignore[arg-type]
        assert (number, frame) not in found
        assert mask.shape == (HEIGHT, WIDTH)
        assert mask.dtype == np.bool_
        assert 0 <= score <= 1
        found[number, frame] = mask
    return found


def same(a: Mapping[tuple[int, int], np.ndarray], b: Mapping[tuple[int, int], np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(mask, b[key]) for key, mask in a.items())


@pytest.mark.parametrize(
    "prompts",
    [
        given(0, 0),
        given(0, 3, 9),
        given(0, 2, 7) | {4: absent(), 10: absent()},
        given(0, 0, 1, 2, 3, 6, 8),
        {6: click_on(1, 6)},
        {6: click_on(0, 6, (2, 3), (90, 60)), 12: FrameHint(box=(20, 10, 60, 50))} | given(0, 1),
    ],
    ids=["first", "two", "absent", "many", "click", "clicks, a box and a mask"],
)
def test_against_sam2s_own_steps(random_weights: Svac, prompts: dict[int, FrameHint]) -> None:
    ours = run(random_weights, [prompts])
    assert same(ours, plain(random_weights, prompts))
    assert sum(mask.any() for mask in ours.values()) >= COUNT - len(prompts)


def plain(model: Svac, prompts: dict[int, FrameHint]) -> dict[tuple[int, int], np.ndarray]:
    return {(0, i): mask for i, mask in plain_propagation(model.sam, scene()[0], prompts).items()}


def test_trained_weights_against_sam2s_own_steps(embedded: Svac, monkeypatch: pytest.MonkeyPatch) -> None:
    # What frame hints go through matches features, too, which sam2's own steps don't.
    monkeypatch.setitem(embedded._modules, "hint_sam", None)
    prompts = given(0, 3, 10)
    assert same(run(embedded, [prompts]), plain(embedded, prompts))


@pytest.mark.parametrize(("window", "held_bytes"), [(1, 1), (3, 1), (50, 1 << 30)])
def test_windows_change_no_mask(
    random_weights: Svac, window: int, held_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [given(0, 2, 9), {5: click_on(1, 5)}]
    whole = run(random_weights, prompts)
    assert len(whole) == 2 * COUNT
    monkeypatch.setattr(tracking, "HELD_BYTES", held_bytes)
    assert same(run(random_weights, prompts, window=window), whole)


def test_objects_do_not_see_each_other(random_weights: Svac) -> None:
    first, second, third = given(0, 2, 9), {5: click_on(1, 5)}, {7: absent()}
    together = run(random_weights, [first, second, third])
    for number, prompts in enumerate((first, second, third)):
        alone = run(random_weights, [prompts])
        assert same(alone, {(0, i): together[number, i] for i in range(COUNT)})
    assert any(not np.array_equal(together[0, i], together[1, i]) for i in range(COUNT))


@pytest.mark.parametrize("frames", [range(0, 4), range(5, 8), range(3, 4), range(12, 14)])
def test_a_range_gives_its_frames_and_no_other_masks(random_weights: Svac, frames: range) -> None:
    prompts = [given(0, 3, 9), {6: click_on(1, 6)}]
    whole = run(random_weights, prompts)
    part = run(random_weights, prompts, frames=frames)
    assert same(part, {key: mask for key, mask in whole.items() if key[1] in frames})


def test_a_range_touches_only_what_it_needs(random_weights: Svac) -> None:
    video = scene(70)[0]
    work = Propagation(random_weights.sam, video, [given(0, 3, 9, count=70)], frames=range(5, 7))
    assert work.conditioning == [3, 9]
    assert work.sweeps == {False: [4, 5, 6], True: []}
    # Many corrections: those that no needed frame attends are not even read.
    many = given(0, *range(30), count=70)
    work = Propagation(random_weights.sam, video, [many], frames=range(31, 32))
    assert work.conditioning == list(range(15, 30))
    assert work.sweeps == {False: [30, 31], True: []}
    work = Propagation(random_weights.sam, video, [many], frames=range(4, 9))
    assert work.conditioning == work.sweeps[False] == work.sweeps[True] == []


def test_given_masks_come_back_as_they_are(embedded: Svac) -> None:
    prompts = given(0, 0, 4, 5, 13) | {8: absent()}
    found = run(embedded, [prompts])
    for frame in (0, 4, 5, 13):
        assert np.array_equal(found[0, frame], scene()[1][0, frame])
    assert not found[0, 8].any()


def test_an_object_that_is_nowhere_stays_nowhere(
    random_weights: Svac, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryTracker, "track", None)  # and the model is not asked
    found = run(random_weights, [{3: absent(), 9: absent()}])
    assert len(found) == COUNT
    assert not any(mask.any() for mask in found.values())


def test_between_two_frames_without_it_an_object_is_not_looked_for(random_weights: Svac) -> None:
    prompts = given(0, 0, 13) | {4: absent(), 7: absent()}
    found = run(random_weights, [prompts])
    assert [found[0, i].any() for i in range(COUNT)] == [i not in range(4, 8) for i in range(COUNT)]
    work = Propagation(random_weights.sam, scene()[0], [prompts])
    # 7 is passed on the way back from 13, 4 on the way from 0; 5 and 6 are not touched.
    assert work.sweeps == {False: [1, 2, 3, 4], True: [7, 8, 9, 10, 11, 12]}


def test_a_frame_without_the_object_is_passed_as_sam2_passes_one(
    random_weights: Svac, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no conditioning frame: what lies before it is predicted as if nothing had been said."""
    pointers: dict[int, torch.Tensor] = {}
    track = MemoryTracker.track

    def watched(self: MemoryTracker, index: int, features: object, *, reverse: bool = False) -> object:
        assert sorted(self.outputs["cond_frame_outputs"]) == [0]
        pointers.update({i: out["obj_ptr"] for i, out in self.outputs["non_cond_frame_outputs"].items()})
        return track(self, index, features, reverse=reverse)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryTracker, "track", watched)
    before, after = run(random_weights, [given(0, 0)]), run(random_weights, [given(0, 0) | {6: absent()}])
    assert all(np.array_equal(before[0, i], after[0, i]) for i in range(6))
    assert not after[0, 6].any()
    assert torch.equal(pointers[6], random_weights.sam.no_obj_ptr)
    assert not torch.equal(pointers[5], random_weights.sam.no_obj_ptr)


def test_tracking_begins_anew_at_each_correction(random_weights: Svac) -> None:
    """Beyond the middle a mask depends on the corrections, not on what was tracked on the other side."""
    walked: list[tuple[int, bool, list[int]]] = []
    track = MemoryTracker.track

    def watched(self: MemoryTracker, index: int, features: object, *, reverse: bool = False) -> object:
        walked.append((index, reverse, sorted(self.outputs["non_cond_frame_outputs"])))
        return track(self, index, features, reverse=reverse)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryTracker, "track", watched)
        run(random_weights, [given(0, 2, 7)])
    assert walked == [
        (3, False, []),
        (4, False, [3]),
        *((i, False, list(range(8, i))) for i in range(8, COUNT)),
        (6, True, []),
        (5, True, [6]),
        (1, True, []),
        (0, True, [1]),
    ]


def test_clicks_see_their_negatives_and_the_box(random_weights: Svac) -> None:
    alone, beside = click_on(0, 6), click_on(0, 6, (5, 5))
    boxed = FrameHint(clicks=alone.clicks, box=(10, 10, 50, 40))
    masks = [
        run(random_weights, [{6: prompt}], frames=range(6, 7))[0, 6] for prompt in (alone, beside, boxed)
    ]
    assert all(mask.any() for mask in masks)
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_an_object_smaller_than_a_pixel_of_the_model_is_there(random_weights: Svac) -> None:
    work = Propagation(
        random_weights.sam, ArrayVideo(np.zeros((2, 720, 1280, 3), np.uint8)), [{0: absent_hd()}]
    )
    dot = np.zeros((720, 1280), np.bool_)
    assert not work._shrunk(dot).any()
    dot[300:302, 500:502] = True
    assert 1 <= int(work._shrunk(dot).sum()) <= 4


def absent_hd() -> FrameHint:
    return FrameHint(mask=to_coco(np.zeros((720, 1280), np.bool_)))


def test_what_is_remembered_does_not_grow(random_weights: Svac) -> None:
    count = 40
    prompts = [given(0, 0, 1, 15, 39, count=count), given(1, 10, count=count)]
    work = Propagation(random_weights.sam, scene(count)[0], prompts, window=8)
    most = 0
    with torch.inference_mode():
        for _ in work.run():
            for one in work.objects:
                most = max(most, len(one.memory.outputs["non_cond_frame_outputs"]))
                assert len(one.memory.outputs["cond_frame_outputs"]) <= len(one.hints)
    assert most == random_weights.sam.max_obj_ptrs_in_encoder


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_finds_nearly_the_same(embedded: Svac, dtype: str) -> None:
    # Of random weights too many logits are next to 0.
    half = Svac.from_pretrained("svac-tiny", device="cpu", dtype=dtype)
    prompts = [given(0, 3), {6: click_on(1, 6), 9: absent()}, {4: FrameHint(box=(20, 10, 60, 50))}]
    # Few frames: half precision is slow on many CPUs.
    full, reduced = (run(model, prompts, frames=range(4, 7)) for model in (embedded, half))
    assert full.keys() == reduced.keys()
    assert np.mean([full[key] ^ reduced[key] for key in full]) < 0.05


def test_progress_ends_at_one_and_may_stop_the_work(random_weights: Svac) -> None:
    told: list[float] = []
    run(random_weights, [given(0, 3, 9)], window=4, progress=lambda done, _: told.append(done))
    assert told == sorted(told)
    assert told[-1] == 1.0

    def stop(done: float, _: str) -> None:
        raise SvacError("Stopped.", "Start again.")

    with pytest.raises(SvacError, match="Stopped"):
        run(random_weights, [given(0, 3, 9)], progress=stop)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "nothing to propagate"),
        ([{}], {}, "Nothing was shown"),
        ([{COUNT: absent()}], {}, "no frame 14"),
        ([{0: absent_hd()}], {}, "1280x720"),
        ([{0: FrameHint(clicks=(Click(3, 3, positive=False),))}], {}, "only say where the object is not"),
        ([{0: FrameHint(clicks=(Click(97, 3),))}], {}, "beside the picture"),
        ([{0: FrameHint(box=(-9, -9, -1, -1))}], {}, "beside the picture"),
        ([{0: absent()}], {"frames": range(3, 3)}, "not a part"),
        ([{0: absent()}], {"frames": range(3, COUNT + 1)}, "not a part"),
        ([{0: absent()}], {"frames": range(0, 8, 2)}, "not a part"),
    ],
)
def test_what_does_not_fit_is_refused(
    random_weights: Svac,
    prompts: list[dict[int, FrameHint]],
    options: dict[str, range],
    message: str,
) -> None:
    with pytest.raises(SvacError, match=message):
        run(random_weights, prompts, **options)
