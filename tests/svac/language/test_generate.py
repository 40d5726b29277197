"""Answers written token by token, forced answers, and what any number of [SEG] becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svac_backend.errors import SvacError
from svac_backend.svac.astc import plan
from svac_backend.svac.language.chat_formats import SEG
from svac_backend.svac.language.mllm import GreedyWriter, Seen, objects_of
from svac_backend.svac.model import Svac
from svac_backend.video.reader import ArrayVideo
from tests.small import CONFIG

pytestmark = pytest.mark.slow


def video(count: int = 12) -> ArrayVideo:
    return ArrayVideo(np.random.default_rng(count).integers(0, 255, (count, 48, 64, 3), np.uint8))


@pytest.fixture
def csa(tokenizer_file: Path) -> Svac:
    """Four clips, one object."""
    torch.manual_seed(0)
    return Svac(CONFIG, tokenizer_file).eval()


@pytest.fixture
def sa2va(csa: Svac) -> Svac:
    """One clip, memory."""
    return csa.run_as("sa2va")


def embeddings(model: Svac, answer: str | None) -> torch.Tensor:
    source = video()
    return model.seg_embeddings(source, plan(len(source), model.config.method), ["the red circle"], [answer])


def masks(frames: Iterator) -> np.ndarray:
    return np.stack([frame.masks for frame in frames])


def written(model: Svac, writer: GreedyWriter) -> torch.Tensor:
    """Return the [SEG] embeddings of an answer that is written."""
    with torch.inference_mode():
        visual = torch.randn(8, 16, 128, generator=torch.Generator().manual_seed(1))
        prompt = model.chat.build("the red circle", 8, 4)
        return model.mllm.seg_states(
            Seen.alike(visual), [prompt, prompt], model.chat.context_id, write=writer
        )[1]


def test_writing_the_forced_answer_gives_the_states_of_the_prefill(csa: Svac) -> None:
    with torch.inference_mode():
        visual = torch.randn(8, 16, 128, generator=torch.Generator().manual_seed(1))
        prompt = csa.chat.build("the red circle", 8, 4)
        forced = csa.mllm.seg_states(Seen.alike(visual), [prompt], csa.chat.context_id)[0]
    answer = prompt.suffix[prompt.answer_start :].tolist()
    csa.mllm.language_model.lm_head = Scripted(answer * 2, csa.config.language.vocab_size)
    writer = GreedyWriter(csa.chat.seg_id, lambda ids: len(ids) % len(answer) == 0, 512)
    assert torch.allclose(written(csa, writer), forced, atol=1e-4)
    assert forced.shape == (4, 128)


class Scripted(torch.nn.Module):
    """A language model's head that says what it is told to."""

    def __init__(self, ids: list[int], vocabulary: int) -> None:
        super().__init__()
        self.ids, self.vocabulary, self.asked = ids, vocabulary, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(self.vocabulary)
        logits[self.ids[min(self.asked, len(self.ids) - 1)]] = 1
        self.asked += 1
        return logits


@pytest.mark.parametrize("segs", [0, 1, 3, 4, 6])
def test_a_written_answer_stops_at_its_end_and_may_hold_any_number_of_seg(csa: Svac, segs: int) -> None:
    text = f"It is {SEG * segs}.<|im_end|>never written {SEG}"
    ids = csa.chat.ids(text).tolist()
    head = Scripted(ids, csa.config.language.vocab_size)
    csa.mllm.language_model.lm_head = head
    csa.run_as(generate=True)
    source = video()
    result = masks(csa.segment(source, ["the red circle"]))
    assert head.asked == len(csa.chat.ids(f"It is {SEG * segs}.<|im_end|>"))
    assert result.shape == (12, 1, 48, 64)
    csa.run_as(generate=False)
    forced = list(csa.segment(source, ["the red circle"], answers=[f"It is {SEG * segs}."]))
    assert np.array_equal(result, masks(iter(forced)))
    if segs == 0:
        assert not result.any()
        assert all(frame.scores.tolist() == [0.0] for frame in forced)


def test_an_answer_without_an_end_is_cut(csa: Svac) -> None:
    csa.mllm.language_model.lm_head = Scripted(csa.chat.ids("It").tolist(), 640)
    csa.run_as(generate=True, max_answer_tokens=9)
    assert not masks(csa.segment(video(), ["the red circle"])).any()
    assert csa.mllm.language_model.lm_head.asked == 9


def test_the_stop_text_may_be_plain_text(csa: Svac) -> None:
    csa.run_as(template="phi3_chat")
    ids = csa.chat.ids("It is [SEG].<|end|>").tolist()
    assert csa.chat.is_over(ids)
    assert not csa.chat.is_over(ids[:-1])


def test_too_many_seg_are_cut_and_too_few_repeat_the_last(csa: Svac) -> None:
    four = embeddings(csa, f"It is {SEG * 4}.")
    assert four.shape == (1, 4, 128)
    assert torch.allclose(embeddings(csa, f"It is {SEG * 7}."), four, atol=1e-5)
    two = embeddings(csa, f"It is {SEG * 2}.")
    assert torch.allclose(two[:, :2], four[:, :2], atol=1e-5)
    assert torch.equal(two[:, 2], two[:, 1])
    assert torch.equal(two[:, 3], two[:, 1])


def test_objects_of() -> None:
    states = torch.arange(6.0).view(3, 2)
    assert torch.equal(objects_of(states, 1), states[:, None])
    assert torch.equal(objects_of(states, 2), states[None, :2])
    assert torch.equal(objects_of(states, 4)[0], states[[0, 1, 2, 2]])
    assert objects_of(states[:0], 4).shape == (0, 4, 2)


def test_two_seg_of_one_clip_are_two_objects_which_are_united(sa2va: Svac) -> None:
    """Sa2VA makes a mask of each [SEG], each propagated on its own."""
    answers = [f"It is {SEG} and {SEG}.", None]
    expressions = ["the red circle", "the blue square"]
    source = video()
    each = masks(sa2va.segment(source, expressions, answers=answers, unite=False))
    united = list(sa2va.segment(source, expressions, answers=answers))
    assert each.shape == (12, 3, 48, 64)
    assert np.array_equal(masks(iter(united))[:, 0], each[:, 0] | each[:, 1])
    assert np.array_equal(masks(iter(united))[:, 1], each[:, 2])
    alone = masks(sa2va.segment(source, ["the blue square"]))
    assert np.array_equal(alone[:, 0], each[:, 2])


def test_an_expression_without_seg_stands_beside_one_with(sa2va: Svac) -> None:
    frames = list(
        sa2va.segment(video(), ["the red circle", "the blue square"], answers=["It is gone.", None])
    )
    assert not masks(iter(frames))[:, 0].any()
    assert all(frame.scores[0] == 0 for frame in frames)
    alone = masks(sa2va.segment(video(), ["the blue square"]))
    assert np.array_equal(masks(iter(frames))[:, 1], alone[:, 0])


def test_absent_objects_have_empty_masks(csa: Svac) -> None:
    """With NO_OBJ masking a frame whose object score is not positive has no mask."""
    csa.sam.sam_mask_decoder.pred_obj_score_head = Constant(-5.0)
    assert not masks(csa.segment(video(), ["the red circle"])).any()
    csa.run_as(no_object_masking=False)
    assert masks(csa.segment(video(), ["the red circle"])).any()


class Constant(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.new_full((len(tokens), 1), self.value)


def test_answers_that_make_no_sense_are_refused(csa: Svac) -> None:
    with pytest.raises(SvacError, match="every expression"):
        list(csa.segment(video(), ["a", "b"], answers=["c"]))
    with pytest.raises(SvacError, match="no preset"):
        csa.run_as("sa3va")
    with pytest.raises(SvacError, match="no field 'colour'"):
        csa.run_as(colour="red")
    assert csa.config.method == replace(CONFIG.method)
