"""Controls: each control shows what it says, SAM-2 sees the right frames, and differences are what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from lab.train_tiny.control_inputs import ControlledSvac, as_it_is, frozen, of_another, own_frame, shuffled
from lab.train_tiny.controls import (
    ALL,
    BLIND,
    FULL,
    OTHER_SENTENCE,
    OTHER_VIDEO,
    SHUFFLED,
    SINGLE,
    Controls,
    other_sentences,
    run_controls,
)
from lab.train_tiny.figures import ExpressionResult
from lab.train_tiny.measure import measure, write_split

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import BenchmarkExpression
from svac_backend.masks.metrics import jaccard
from svac_backend.svac.astc import plan
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene
from svac_backend.video.images import ImageFolderVideo
from svac_backend.video.reader import ArrayVideo

pytestmark = pytest.mark.slow

CONFIG = RichConfig(width=96, height=64, frames=24, split="validation", per_kind=2)


@pytest.fixture(scope="module")
def model() -> ControlledSvac:
    return cast(ControlledSvac, ControlledSvac.from_pretrained("svac-tiny", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def video() -> ArrayVideo:
    return ArrayVideo(make_rich_scene(5000, CONFIG).frames)


def masks(model: Svac, video: ArrayVideo, texts: list[str]) -> np.ndarray:
    return np.stack([frame.masks for frame in model.segment(video, texts)], axis=1)


def row(video: str, score: float, *, kind: str = "motion", expression: str = "0") -> ExpressionResult:
    return ExpressionResult(video, expression, "the dog", kind, "time", True, (), score, score, 20.0, 5.0, 8)


def test_controls_show_what_they_say(model: ControlledSvac) -> None:
    clips = plan(40, model.config.method)
    count, per_clip = clips.num_clips, clips.frames_per_clip
    assert [look.frames for look in as_it_is(clips)] == [clips.selected]
    assert set(frozen(0.0)(clips)[0].frames) == {0}
    assert set(frozen(1.0)(clips)[0].frames) == {39}
    looks = own_frame(clips)
    assert [set(look.frames) for look in looks] == [{clips.clip(n)[0]} for n in range(count)]
    assert [look.clips for look in looks] == [((n, n),) for n in range(count)]
    (look,) = shuffled(3)(clips)
    assert sorted(look.frames) == sorted(clips.selected)
    assert look.frames != clips.selected
    for place, clip in look.clips:
        shown = look.frames[place * per_clip : (place + 1) * per_clip]
        assert shown[0] == clips.clip(clip)[0]
        assert set(shown) == set(clips.clip(clip))
    assert sorted(clip for _, clip in look.clips) == list(range(count))
    assert [clip for _, clip in look.clips] != list(range(count))


def test_the_whole_input_is_the_model_itself(model: ControlledSvac, video: ArrayVideo) -> None:
    texts = ["the dog", "the green object"]
    plain = Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")
    model.inputs = [as_it_is, frozen(0.5), as_it_is]
    found = masks(model, video, texts * 3)
    expected = masks(plain, video, texts)
    assert expected.any()
    assert (found[:2] == expected).all()
    assert (found[4:] == expected).all()


def test_each_clip_has_the_token_of_the_place_where_it_was_shown(model: ControlledSvac) -> None:
    frames = make_rich_scene(5001, CONFIG).frames
    still = ArrayVideo(np.repeat(frames[:1], 24, axis=0))
    clips = plan(24, model.config.method)

    def tokens(control: object) -> torch.Tensor:
        model.inputs = [control]  # type: ignore[list-item]
        return model.seg_embeddings(still, clips, ["the red thing"])[0]

    # Nothing moves, so that only places in the prompt differ.
    whole, mixed, single = tokens(as_it_is), tokens(shuffled(3)), tokens(own_frame)
    assert torch.equal(whole, single)
    assert not torch.equal(whole[0], whole[1])
    for place, clip in shuffled(3)(clips)[0].clips:
        assert torch.equal(mixed[clip], whole[place])


def test_another_video_is_seen_by_the_language_model_alone(model: ControlledSvac, video: ArrayVideo) -> None:
    other = ArrayVideo(make_rich_scene(5002, CONFIG).frames)
    clips = plan(24, model.config.method)
    text = ["the one that moves left"]
    model.inputs = [of_another(other, model.config)]
    exchanged = model.seg_embeddings(video, clips, text)
    model.inputs = [as_it_is]
    assert torch.equal(exchanged, model.seg_embeddings(other, clips, text))
    assert not torch.equal(exchanged, model.seg_embeddings(video, clips, text))


def test_uneven_blocks_are_refused(model: ControlledSvac, video: ArrayVideo) -> None:
    model.inputs = [as_it_is, own_frame]
    with pytest.raises(SvacError, match="as many expressions"):
        masks(model, video, ["the dog", "the cat", "the cow"])


def test_sentences_are_exchanged_for_others_of_present_things() -> None:
    said = [
        BenchmarkExpression("0", "the dog", ("4",), type="category"),
        BenchmarkExpression("1", "the dog that runs", ("4",), type="motion"),
        BenchmarkExpression("2", "both animals", ("4", "5"), type="several"),
        BenchmarkExpression("3", "the owl", (), type="absent"),
        BenchmarkExpression("4", "the cat", ("5",), type="category"),
    ]
    assert other_sentences(said) == {
        "0": "the cat",
        "1": "the cat",
        "2": "the cat",
        "3": "the cat",
        "4": "the dog",
    }
    assert other_sentences(said[:2]) == {"0": None, "1": None}
    assert other_sentences(said[3:]) == {"3": "the cat", "4": None}


def test_gain_over_the_best_single_frame() -> None:
    names = [f"v{n}" for n in range(30)]
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, 30)
    rows = {FULL: tuple(row(v, 60 + e) for v, e in zip(names, noise, strict=True))}
    rows |= {name: tuple(row(v, 40 + k) for v in names) for k, name in enumerate(SINGLE)}
    gain = Controls(rows).difference(lambda r: r.kind == "motion")
    assert gain is not None
    assert (gain.best, gain.count) == ("own frame", 30)
    assert gain.points == pytest.approx(60 + noise.mean() - 43)
    assert gain.low < gain.points < gain.high
    # 1.96 standard errors of the mean on each side.
    assert gain.high - gain.low == pytest.approx(2 * 1.96 * noise.std() / 30**0.5, rel=0.1)
    assert Controls(rows).difference(lambda r: r.kind == "order") is None


def test_videos_are_drawn_and_not_expressions() -> None:
    two = [row("a", 80, expression=str(n)) for n in range(20)] + [row("b", 20, expression="0")]
    rows = {name: tuple(replace(r, j=10.0, f=10.0) for r in two) for name in SINGLE} | {FULL: tuple(two)}
    gain = Controls(rows).difference(lambda r: True)
    assert gain is not None
    assert (gain.low, gain.high) == pytest.approx((10.0, 70.0))


def test_a_blind_model_is_scored_on_what_it_did_not_see(tmp_path: Path) -> None:
    """Its masks are those of the next video; the truth is this one's."""
    config = replace(CONFIG, frames=8)
    split = write_split(tmp_path / "split", seeds=range(5000, 5002), config=config, expressions=3)
    controls = run_controls("svac-tiny", split, controls=[BLIND], device="cpu", dtype="float32")
    assert set(controls.rows) == {FULL, BLIND}
    first, second = split.benchmark.videos
    model = Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")
    expression = first.expressions[0]
    seen = ImageFolderVideo(second.folder, second.frames)
    target = split.truth.target(first, expression)
    overlaps = []
    for frame in model.segment(seen, [expression.text]):
        truth = target.mask(frame.index)
        overlaps.append(jaccard(frame.masks[0], np.zeros_like(frame.masks[0]) if truth is None else truth))
    blind = {r.key: r for r in controls.rows[BLIND]}
    assert blind[first.name, expression.id].j == pytest.approx(100 * np.mean(overlaps))


def test_all_controls_on_a_split(tmp_path: Path) -> None:
    config = replace(CONFIG, frames=8)
    split = write_split(tmp_path / "split", seeds=range(5000, 5003), config=config, expressions=3)
    controls = run_controls("svac-tiny", split, videos=2, device="cpu", dtype="float32")
    assert tuple(controls.rows) == ALL
    assert controls.videos == 2
    measured = measure("svac-tiny", split, tmp_path / "out", device="cpu", dtype="float32")
    whole = {r.key: (r.j, r.f) for r in controls.rows[FULL]}
    assert whole == {r.key: (r.j, r.f) for r in measured.rows if r.key in whole}
    assert len(whole) == 6
    for name in (OTHER_SENTENCE, OTHER_VIDEO, BLIND, SHUFFLED):
        assert controls.of(name, lambda r: True) != controls.of(FULL, lambda r: True)
    controls.save(tmp_path / "controls.json")
    assert Controls.load(tmp_path / "controls.json") == controls
    with pytest.raises(SvacError, match="takes two"):
        run_controls("svac-tiny", split, videos=1, device="cpu")
