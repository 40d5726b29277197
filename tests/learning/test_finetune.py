"""A whole fine-tuning: split, figures, decision, report; it goes on where it was stopped and says what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from svac_backend.learning import finetune as finetune_module
from svac_backend.learning.examples import Example, split_by_video
from svac_backend.learning.finetune import FinetuneData, finetune
from svac_backend.learning.gate import GateOptions
from svac_backend.learning.measure import ExampleScore, fit, measure, truth_of
from svac_backend.learning.options import TrainOptions
from svac_backend.learning.rehearsal import as_answered
from svac_backend.masks.metrics import j_and_f
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.svac.astc import plan
from svac_backend.svac.model import Svac
from tests.learning.made import small_model, squares

pytestmark = pytest.mark.slow

GATE = GateOptions(min_videos=4)
OPTIONS = TrainOptions(
    steps=3, batch=2, accumulate=1, replay_share=0, lr=1e-3, rank=4, alpha=8, checkpoint_every=1, log_every=1
)


@pytest.fixture
def model(tokenizer_file: Path) -> Svac:
    return small_model(tokenizer_file)


def examples(count: int = 6) -> list[Example]:
    return [replace(squares(k), expression="the <b>square</b>") for k in range(count)]


class Pictures(HTMLParser):
    """Counts what a page shows, and what it would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.inline = self.outside = self.lines = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.lines += tag == "polyline"
        for name in ("src", "href"):
            value = given.get(name) or ""
            self.inline += value.startswith("data:image/jpeg;base64,")
            self.outside += "//" in value[:12]


def test_from_corrections_to_a_decision(model: Svac, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told: list[float] = []
    found = finetune(
        model,
        FinetuneData(examples()),
        tmp_path,
        options=OPTIONS,
        gate=GATE,
        progress=lambda f, _: told.append(f),
    )
    assert found.finished
    assert found.steps == 3
    assert told == sorted(told)
    learn, held = split_by_video(examples(), least=2)
    figures = found.decision.figures
    assert figures["learned_from"] == len(learn)
    assert figures["held_out"] == len(held)
    old = measure(model, held)
    assert figures["held_out_before"] == pytest.approx(np.mean([s.j_and_f for s in old]))
    assert figures["regression_before"] is None
    assert json.loads((tmp_path / "outcome.json").read_text())["reason"] == found.decision.reason
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.report is not None
    page = found.report.read_text()
    assert "the &lt;b&gt;square" in page
    assert "<b>square" not in page
    parsed = Pictures()
    parsed.feed(page)
    assert (parsed.inline, parsed.outside) == (4 * len(held), 0)
    assert parsed.lines >= 3


def test_a_stopped_run_goes_on_without_measuring_again(
    model: Svac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = finetune(
        model, FinetuneData(examples()), tmp_path, options=OPTIONS, gate=GATE, should_stop=lambda: True
    )
    assert not stopped.finished
    assert (stopped.adapter, stopped.steps, stopped.decision.promote) == (None, 1, False)
    measured = []
    monkeypatch.setattr(finetune_module, "measure", lambda *a, **k: measured.append(1) or measure(*a, **k))
    assert finetune(model, FinetuneData(examples()), tmp_path, options=OPTIONS, gate=GATE).steps == 3
    assert len(measured) == 1


def test_too_few_corrections_train_nothing(model: Svac, tmp_path: Path) -> None:
    found = finetune(model, FinetuneData(examples(3)), tmp_path, options=OPTIONS, gate=GATE)
    assert found.finished
    assert found.adapter is None
    assert "1 more is needed" in found.decision.reason
    assert not list(tmp_path.iterdir())


def test_the_new_version_is_compared_with_its_parent(model: Svac, tmp_path: Path) -> None:
    first = finetune(model, FinetuneData(examples()), tmp_path / "a", options=OPTIONS, gate=GATE)
    assert first.adapter is not None
    second = finetune(
        model,
        FinetuneData(examples()),
        tmp_path / "b",
        options=replace(OPTIONS, steps=1),
        gate=GATE,
        parent=first.adapter,
    )
    assert second.decision.figures["held_out_before"] == first.decision.figures["held_out_after"]


def test_scores_are_those_of_the_masks_on_known_frames(model: Svac) -> None:
    part = replace(squares(1, absent=(2,)), drawn=frozenset({1, 2}), accepted=frozenset({5}))
    whole = squares(1)
    found, _ = measure(model, [part, whole])
    with part.video.open() as video:
        masks = [frame.masks[0] for frame in model.segment(video, [part.expression])]
    truth = [truth_of(part, i, (32, 48)) for i in (1, 2, 5)]
    expected = j_and_f([masks[i] for i in (1, 2, 5)], truth)
    assert found.j == pytest.approx(100 * expected.j)
    assert found.f == pytest.approx(100 * expected.f)
    assert found.frame == 5
    assert np.array_equal(from_coco(found.mask), masks[5])


def test_masks_that_fit_every_video_alike_are_noticed() -> None:
    chosen = [squares(k) for k in range(6)]
    right = [ExampleScore(0, 0, 4, e.masks[4]) for e in chosen]
    own, other = fit(chosen, right)
    assert own is not None
    assert other is not None
    assert own == 100
    assert other < 80
    blob = np.zeros((32, 48), np.bool_)
    blob[8:24, 12:36] = True
    own, other = fit(chosen, [ExampleScore(0, 0, 4, to_coco(blob)) for _ in chosen])
    assert own == pytest.approx(other)
    assert fit(chosen[:1], right[:1]) == (None, None)


def test_replay_tells_the_truth_where_the_model_knows_it(model: Svac, tmp_path: Path) -> None:
    shown = squares(1)
    with shown.video.open() as video:
        masks = [frame.masks[0] for frame in model.segment(video, ["a", "b"])]
        other = [frame.masks[1] for frame in model.segment(video, ["a", "b"])]
    known = replace(shown, expression="a", masks={i: to_coco(m) for i, m in enumerate(masks)})
    wrong = replace(shown, expression="b", masks={0: to_coco(~other[0])})
    absent = replace(shown, masks={})
    found = as_answered(model, [known, wrong, absent], tmp_path / "replay", "mark")
    assert found[0] == known
    assert found[2] == absent
    assert found[2].anchor is None
    with shown.video.open() as video:
        expected = model.seg_embeddings(video, plan(8, model.config.method), ["a", "b"])
    for example, embedding in zip(found[:2], expected, strict=True):
        assert example.anchor is not None
        assert np.allclose(example.anchor, embedding, atol=1e-5)
    assert set(found[1].masks) == {i for i, mask in enumerate(other) if mask.any()}
    assert all(np.array_equal(from_coco(rle), other[i]) for i, rle in found[1].masks.items())
    stamp = (tmp_path / "replay" / "answers.json").stat().st_mtime_ns
    assert as_answered(model, [known, wrong, absent], tmp_path / "replay", "mark") == found
    assert (tmp_path / "replay" / "answers.json").stat().st_mtime_ns == stamp
