"""`propagate`: tracks in, tracks out; what a person drew is never changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svac_backend.errors import SvacError
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import from_coco, overlap, to_coco
from svac_backend.masks.tracks import CocoRle, FrameMasks, ObjectPrompt, Track
from svac_backend.pipeline import load_model, prelabel, propagate
from svac_backend.settings import Settings
from svac_backend.svac.model import Svac
from svac_backend.video.reader import ArrayVideo
from tests.small import CONFIG

COUNT, HEIGHT, WIDTH = 8, 48, 64


@pytest.fixture(scope="module")
def model(tokenizer_file: Path) -> Svac:
    torch.manual_seed(4)
    return Svac(CONFIG, tokenizer_file).eval()


@pytest.fixture(scope="module")
def video() -> ArrayVideo:
    return ArrayVideo(np.random.default_rng(0).integers(0, 255, (COUNT, HEIGHT, WIDTH, 3), np.uint8))


def square(left: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:30, left : left + 12] = True
    return mask


def track(object_id: str, left: int) -> Track:
    return Track(
        object_id,
        "object",
        f"the {object_id}",
        {i: to_coco(square(left)) for i in range(COUNT)},
        dict.fromkeys(range(COUNT), 0.5),
    )


NOWHERE = to_coco(np.zeros((HEIGHT, WIDTH), np.bool_))


def test_corrected_objects_are_predicted_anew_and_others_left(model: Svac, video: ArrayVideo) -> None:
    tracks = [track("obj1", 0), track("obj2", 20), track("obj3", 40)]
    before = [t.to_json() for t in tracks]
    drawn = to_coco(square(5))
    prompts = {"obj2": {2: FrameHint(mask=drawn), 5: FrameHint(mask=NOWHERE)}, "obj3": {}}
    result = propagate(model, video, tracks, prompts)
    assert [t.to_json() for t in tracks] == before
    assert [result[0].to_json(), result[2].to_json()] == [before[0], before[2]]
    new = result[1]
    assert (new.object_id, new.label, new.expression) == ("obj2", "object", "the obj2")
    assert new.masks[2] == drawn
    assert 5 not in new.masks
    assert (new.scores[2], new.scores[5]) == (1.0, 1.0)
    assert sorted(new.scores) == list(range(COUNT))
    assert all(new.masks.get(i) != tracks[1].masks[i] for i in range(COUNT))
    assert all(from_coco(rle).any() for rle in new.masks.values())


def test_frames_outside_the_range_keep_what_they_had_but_for_given_masks(
    model: Svac, video: ArrayVideo
) -> None:
    old, drawn = track("obj1", 0), to_coco(square(30))
    prompts = {
        "obj1": {
            0: FrameHint(mask=drawn),
            7: FrameHint(mask=NOWHERE),
            6: FrameHint(clicks=(Click(3, 12),)),
        }
    }
    (new,) = propagate(model, video, [old], prompts, frames=range(3, 5))
    assert new.masks[0] == drawn
    assert 7 not in new.masks
    assert [new.masks[i] == old.masks[i] for i in range(1, 7)] == [True, True, False, False, True, True]
    assert [new.scores[i] == 0.5 for i in range(1, 7)] == [True, True, False, False, True, True]


def test_clicks_make_the_mask_of_their_frame(model: Svac, video: ArrayVideo) -> None:
    (new,) = propagate(
        model, video, [Track("obj1", "o", "it")], {"obj1": {4: FrameHint(clicks=(Click(3, 12),))}}
    )
    assert sorted(new.scores) == list(range(COUNT))
    assert new.masks


def test_an_object_that_was_only_shown_as_absent_keeps_its_other_frames(
    model: Svac, video: ArrayVideo
) -> None:
    old = track("obj1", 0)
    (new,) = propagate(model, video, [old], {"obj1": {3: FrameHint(mask=NOWHERE)}})
    assert new.masks == {i: rle for i, rle in old.masks.items() if i != 3}
    assert new.scores == old.scores | {3: 1.0}


def test_clicks_beside_an_object_alone_need_the_mask_that_it_had(model: Svac, video: ArrayVideo) -> None:
    beside = Click(3, 12, positive=False)
    prompts = {"obj1": {4: FrameHint(clicks=(beside,))}}
    (new,) = propagate(model, video, [track("obj1", 0)], prompts)
    boxed = {"obj1": {4: FrameHint(clicks=(beside,), box=(0, 10, 12, 30))}}
    assert new == propagate(model, video, [track("obj1", 0)], boxed)[0]
    with pytest.raises(SvacError, match="only say where the object is not"):
        propagate(model, video, [Track("obj1", "o", "it")], prompts)


def test_nothing_shown_changes_nothing(model: Svac, video: ArrayVideo) -> None:
    tracks = [track("obj1", 0)]
    assert propagate(model, video, tracks, {}) == tracks


def test_an_object_that_is_not_there_is_an_error(model: Svac, video: ArrayVideo) -> None:
    with pytest.raises(SvacError, match="no object 'obj9'") as caught:
        propagate(model, video, [track("obj1", 0)], {"obj9": {0: FrameHint(mask=NOWHERE)}})
    assert "obj1" in caught.value.hint


def test_the_settings_say_how_the_weights_are_run(tmp_path: Path) -> None:
    """`load_model` runs them another way, and propagates with the original SAM-2's mask decoder."""
    settings = Settings(
        _env_file=None, model="svac-tiny", device="cpu", threads=1, preset="sa2va-i", generate=True
    )
    model = load_model(settings)
    assert (model.config.preset, model.config.method.propagation) == ("sa2va-i", "anchor")
    assert model.config.method.generate
    assert model._original_sam == []

    path = tmp_path / "original.safetensors"
    state = {
        f"sam_mask_decoder.{k}": v.clone() + 1 for k, v in model.sam.sam_mask_decoder.state_dict().items()
    }
    save_file(state, str(path))
    with_sam = load_model(settings.model_copy(update={"original_sam": path}))
    (sam,) = with_sam._original_sam
    for name, value in sam.sam_mask_decoder.state_dict().items():
        assert torch.equal(value, state[f"sam_mask_decoder.{name}"])


def test_specks_go_where_that_is_wanted_and_never_from_given_masks(model: Svac, video: ArrayVideo) -> None:
    plain = prelabel(model, video, [ObjectPrompt("obj1", "o", "it")])[0]
    cleaned = prelabel(model, video, [ObjectPrompt("obj1", "o", "it")], specks=0.9)[0]
    assert {i: parts(rle) for i, rle in cleaned.masks.items()} == dict.fromkeys(plain.masks, 1)
    assert any(parts(rle) > 1 for rle in plain.masks.values())  # else this shows nothing

    two = square(5) | square(40)
    two[0, 0] = True
    shown = {"obj1": {2: FrameHint(mask=to_coco(two))}}
    (new,) = propagate(model, video, [Track("obj1", "o", "it")], shown, specks=0.9)
    assert new.masks[2] == to_coco(two)
    assert {parts(rle) for i, rle in new.masks.items() if i != 2} == {1}


def parts(rle: CocoRle) -> int:
    return cv2.connectedComponents(from_coco(rle).view(np.uint8))[0] - 1


class TwoSquares:
    """A model that finds two squares which pass each other, and carries what it is shown to where that went."""

    left = staticmethod(lambda i: 2 + 6 * i)
    right = staticmethod(lambda i: 50 - 6 * i)

    def segment(
        self, video: ArrayVideo, sentences: list[str], progress: object = None
    ) -> Iterator[FrameMasks]:
        assert sentences == ["the squares", "all"]
        for i in range(COUNT):
            both = square(self.left(i)) | square(self.right(i))
            yield FrameMasks(i, np.stack([both, both]), np.array([0.9, 0.8], np.float32))

    def propagate(
        self, video: ArrayVideo, hints: list[dict[int, FrameHint]], **_: object
    ) -> Iterator[tuple[int, int, np.ndarray, float]]:
        for number, shown in enumerate(hints):
            (first, hint), *_rest = shown.items()
            is_left = overlap(hint.mask, to_coco(square(self.left(first)))) > 60
            for i in range(COUNT):
                yield number, i, square(self.left(i) if is_left else self.right(i)), 0.7


def test_each_gives_a_track_for_each_thing(video: ArrayVideo) -> None:
    prompts = [ObjectPrompt("obj1", "sq", "each: the squares"), ObjectPrompt("obj2", "o", "all")]
    told: list[float] = []
    shown: list[list[str]] = []
    found = prelabel(
        TwoSquares(),
        video,
        prompts,
        labels={"sq 2"},
        progress=lambda done, _: told.append(done),
        ready=lambda tracks: shown.append([t.object_id for t in tracks]),
    )
    assert [(t.object_id, t.label, t.expression) for t in found] == [
        ("obj1.1", "sq", "sq 1"),
        ("obj1.2", "sq 2", "sq 2"),
        ("obj2", "o", "all"),
    ]
    assert shown == [["obj2"]] * COUNT
    assert told == sorted(told)
    a, b, union = found
    assert sorted(a.masks) == sorted(union.masks) == list(range(COUNT))
    for i in range(COUNT):
        assert overlap(a.masks[i], to_coco(square(TwoSquares.left(i)))) > 60
        if i in b.masks:
            assert not overlap(a.masks[i], b.masks[i])
    assert {0, 1, COUNT - 1} <= b.masks.keys()
    assert max(a.scores.values()) < 1.0  # no person drew any of it


def test_nothing_of_what_each_asks_for_is_one_track_without_masks(video: ArrayVideo) -> None:
    class Nothing(TwoSquares):
        def segment(self, video: ArrayVideo, sentences: list[str], **_: object) -> Iterator[FrameMasks]:
            for i in range(COUNT):
                yield FrameMasks(i, np.zeros((1, HEIGHT, WIDTH), bool), np.array([0.1], np.float32))

    (one,) = prelabel(Nothing(), video, [ObjectPrompt("obj1", "dog", "each: the dogs")])
    assert (one.object_id, one.expression, one.masks) == ("obj1.1", "dog 1", {})
    assert one.scores[3] == pytest.approx(0.1)
