"""What a step learns from: the model's own clips, the right frames, the same data for the same seed and step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.mevis import write_mevis

from svac_backend.errors import SvacError
from svac_backend.learning.examples import (
    ACCEPTED_WEIGHT,
    DRAWN_WEIGHT,
    Batches,
    Example,
    from_mevis,
    split_by_video,
)
from svac_backend.learning.rehearsal import generated
from svac_backend.learning.videos import ClipCache, VideoPart, choose_frames, decoded_by, spread
from svac_backend.masks.rle import from_coco
from svac_backend.svac.astc import plan
from svac_backend.svac.config import PRESETS
from svac_backend.svac.streaming import FrameFeed
from tests.learning.made import RICH, SCENES, SMALL, squares


def data(tmp_path: Path, **options: object) -> Batches:
    given = {"batch": 6, "replay_share": 0.5, **options}
    return Batches(
        [squares(k) for k in range(5)],
        generated(range(2), RICH, each=2),
        ClipCache(SMALL, tmp_path / "cache"),
        **given,  # type: ignore[arg-type]
    )


def test_the_model_sees_in_training_what_it_sees_when_it_predicts(tmp_path: Path) -> None:
    example = squares(3)
    seen = ClipCache(SMALL, tmp_path).get(example.video, example.drawn, example.accepted)
    clips = plan(8, SMALL.method)
    with example.video.open() as video:
        feed = FrameFeed(video, clips, SMALL, frozenset(range(8)))
        assert np.array_equal(seen.images, feed.clip_pixels())
        assert np.array_equal(seen.pixels, feed.kept(seen.frames))
    assert seen.frames == tuple(range(8))
    assert seen.clip_of == tuple(decoded_by(clips)[i] for i in seen.frames)
    assert len(seen.images) == 3 * SMALL.method.images_per_clip


def test_a_video_is_decoded_once_and_a_later_run_reads_the_files(tmp_path: Path) -> None:
    opened = Counter[str]()

    class Counting:
        key = "counted"

        def open(self):  # type: ignore[no-untyped-def]
            opened["times"] += 1
            return squares(1).video.open()

    for _ in range(2):
        cache = ClipCache(SMALL, tmp_path)
        for _ in range(3):
            seen = cache.get(Counting(), {0, 2}, {1})
    assert opened["times"] == 1
    assert seen.frames == (0, 1, 2)
    assert not list(tmp_path.glob("*.part"))


def test_the_same_seed_and_step_give_the_same_data(tmp_path: Path) -> None:
    first, again, other = data(tmp_path), data(tmp_path), data(tmp_path, seed=1)
    for step in (0, 7):
        a, b = first.items(step), again.items(step)
        assert [x.seen.key for x in a] == [y.seen.key for y in b]
        assert all(
            torch.equal(x.rows, y.rows) and torch.equal(x.target, y.target) for x, y in zip(a, b, strict=True)
        )
    orders = [[e.video.key for s in range(4) for e in d.chosen(s)] for d in (first, again, other)]
    assert orders[0] == orders[1] != orders[2]


def test_processes_share_a_step_between_them(tmp_path: Path) -> None:
    whole = [item.seen.key for item in data(tmp_path).items(2)]
    parts = [[item.seen.key for item in data(tmp_path).items(2, rank=r, world=2)] for r in range(2)]
    assert parts == [whole[0::2], whole[1::2]]


def test_each_correction_comes_once_before_one_comes_again(tmp_path: Path) -> None:
    fresh = [e.video.key for step in range(5) for e in data(tmp_path).chosen(step)[:3]]
    assert set(Counter(fresh).values()) == {3}
    replayed = data(tmp_path).chosen(0)[3:]
    assert len(replayed) == 3
    assert all(e.video.key.startswith("scene-") for e in replayed)


def test_masks_are_those_of_their_frames_and_drawn_ones_weigh_more(tmp_path: Path) -> None:
    example = squares(2, absent=(0, 1, 2))
    made = Batches([example], [], ClipCache(SMALL, tmp_path), batch=1, frames_per_clip=2)
    weights = set()
    for step in range(12):
        (item,) = made.items(step)
        assert sorted(item.seen.clip_of[int(r)] for r in item.rows) == [0, 0, 1, 1, 2, 2]
        for row, target, weight in zip(item.rows.tolist(), item.target, item.weight, strict=True):
            frame = item.seen.frames[row]
            assert float(weight) == (DRAWN_WEIGHT if frame in example.drawn else ACCEPTED_WEIGHT)
            weights.add(float(weight))
            assert target.shape == (16, 16)
            if frame < 3:
                assert not target.any()
            else:
                share = from_coco(example.masks[frame]).mean()
                assert float(target.mean()) == pytest.approx(share, abs=0.05)
    assert weights == {DRAWN_WEIGHT, ACCEPTED_WEIGHT}


def test_coarse_masks_are_not_shifted() -> None:
    example = squares(2)
    mask = from_coco(example.masks[0])
    ys, xs = np.nonzero(mask)
    coarse, fine = Batches._mask(example, 0, 16), Batches._mask(example, 0, 256)
    for target in (coarse, fine):
        weights = target / target.sum()
        centres = (torch.arange(len(target)) + 0.5) / len(target)
        assert float((weights.sum(0) * centres).sum()) == pytest.approx((xs.mean() + 0.5) / 48, abs=0.005)
        assert float((weights.sum(1) * centres).sum()) == pytest.approx((ys.mean() + 0.5) / 32, abs=0.005)
    assert set(fine.unique().tolist()) == {0.0, 1.0}


def test_models_that_decode_few_frames_are_shown_frames_with_truth(tmp_path: Path) -> None:
    method = replace(PRESETS["sa2va"], frames_per_clip=3, template="qwen_chat")
    config = replace(SMALL, method=method)
    example = replace(squares(4, 12), drawn=frozenset({2, 5, 7, 11}), accepted=frozenset({0}))
    made = Batches([example], [], ClipCache(config, tmp_path), batch=1, frames_per_clip=3)
    shown = set()
    for step in range(10):
        (item,) = made.items(step)
        assert len(item.seen.images) == 3
        assert set(item.seen.frames) <= {2, 5, 7, 11}
        assert item.seen.num_clips == 1
        assert len(item.rows) == 3
        shown.add(item.seen.frames)
    assert len(shown) > 1


def test_frames_are_kept_of_every_clip_and_drawn_ones_first() -> None:
    clip_of = {i: i // 50 for i in range(200)}
    chosen = choose_frames(clip_of, {3, 60, 61}, set(range(100)))
    assert {3, 60, 61} <= set(chosen)
    assert Counter(clip_of[i] for i in chosen) == {0: 8, 1: 8}
    assert spread(range(10), 3) == [1, 5, 8]
    assert spread([4, 5], 3) == [4, 5]


def test_a_correction_beyond_the_video_is_named(tmp_path: Path) -> None:
    example = replace(squares(1), drawn=frozenset({40}))
    with pytest.raises(SvacError, match=r"frame 40.*8 frames"):
        Batches([example], [], ClipCache(SMALL, tmp_path), batch=1).items(0)
    with pytest.raises(SvacError, match="nothing to learn"):
        Batches([], [], ClipCache(SMALL, tmp_path))


def test_a_part_of_a_video_is_its_frames() -> None:
    with squares(1).video.open() as whole:
        part = VideoPart(whole, [1, 4, 6])
        assert len(part) == part.info.frame_count == 3
        assert np.array_equal(part.frame(1), whole.frame(4))
        assert [i for i, _ in part.frames([0, 2])] == [0, 2]
        ((start, last),) = list(part.windows(5, 1))
        assert start == 1
        assert np.array_equal(last[1], whole.frame(6))
        assert part.fingerprint != VideoPart(whole, [1, 4, 7]).fingerprint


def test_videos_keep_their_side_when_others_come() -> None:
    def sides(count: int) -> tuple[set[str], set[str]]:
        learn, held = split_by_video([squares(k) for k in range(count)])
        return {e.video.key for e in learn}, {e.video.key for e in held}

    learn, held = sides(40)
    more_learn, more_held = sides(80)
    assert not learn & held
    assert held <= more_held
    assert learn <= more_learn
    assert 3 <= len(held) <= 14
    assert len(sides(4)[1]) == 2
    assert len(sides(2)[1]) == 1


def test_all_expressions_of_a_video_are_on_one_side() -> None:
    examples = [replace(squares(k), expression=text) for k in range(20) for text in ("a", "b")]
    learn, held = split_by_video(examples)
    assert not {e.video.key for e in learn} & {e.video.key for e in held}
    assert len(learn) + len(held) == 40


def test_a_folder_in_the_layout_of_mevis(tmp_path: Path) -> None:
    write_mevis(tmp_path / "mevis" / "train", [1, 2], SCENES, expressions=2)
    found = from_mevis(tmp_path, "train")
    assert len(found) == 4
    first = found[0]
    assert first.frames == tuple(range(8))
    assert set(first.masks) <= set(range(8))
    with first.video.open() as video:
        assert (video.info.width, video.info.height) == (48, 32)
    with pytest.raises(SvacError):
        from_mevis(tmp_path, "valid")


def test_generated_examples_know_what_is_not_there() -> None:
    found = generated(range(30), RICH, each=3)
    absent = [e for e in found if not e.masks]
    assert 0 < len(absent) < len(found) / 2
    assert all(isinstance(e, Example) and e.frames == tuple(range(8)) for e in found)
