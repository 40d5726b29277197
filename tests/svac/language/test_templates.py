"""Prompts: one [SEG] per clip, ids read from the tokenizer, templates as published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from svac_backend.errors import SvacError
from svac_backend.svac.config import PRESETS
from svac_backend.svac.language.templates import ChatTemplate


@pytest.mark.parametrize(("preset", "clips"), [("svac", 4), ("sasasa2va", 10), ("sa2va", 1)])
def test_one_seg_token_per_clip(tokenizer_file: Path, preset: str, clips: int) -> None:
    builder = ChatTemplate(tokenizer_file, PRESETS[preset], 16)
    ids = builder.build("the red circle", 2 * clips, clips)
    assert len(ids.seg) == clips
    assert (ids.prefix == builder.context_id).sum() == 2 * clips * 16
    assert (ids.seg >= ids.answer_start).all()


def test_answers_are_those_of_the_presets(tokenizer_file: Path) -> None:
    def answer(preset: str, clips: int) -> str:
        return ChatTemplate(tokenizer_file, PRESETS[preset], 16).answer(clips)

    assert answer("svac", 3) == "It is [SEG][SEG][SEG]."
    assert answer("sasasa2va", 2) == "Sure, it is Clip_1 [SEG], Clip_2 [SEG]."
    assert answer("sa2va", 1) == "Sure, it is [SEG]."


def test_a_question_is_asked_as_it_is(tokenizer_file: Path) -> None:
    builder = ChatTemplate(tokenizer_file, PRESETS["svac"], 16)
    assert builder.question("the dog") == "Please segment the dog."
    assert builder.question("Which dog jumps?") == "Which dog jumps?"


def test_templates_frame_the_question(tokenizer_file: Path) -> None:
    for template, head in (("phi3_chat", "<|user|>\n"), ("internlm2_chat", "<|im_start|>user\n")):
        builder = ChatTemplate(tokenizer_file, replace(PRESETS["svac"], template=template), 1)
        assert builder.prefix_text(2) == f"{head}<img><IMG_CONTEXT></img>\n<img><IMG_CONTEXT></img>\n"


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(SvacError, match="missing"):
        ChatTemplate(path, PRESETS["svac"], 16)
    path.write_text("{")
    with pytest.raises(SvacError, match="can't be read"):
        ChatTemplate(path, PRESETS["svac"], 16)
    Tokenizer(models.BPE()).save(str(path))
    with pytest.raises(SvacError, match=r"no token '\[SEG\]'"):
        ChatTemplate(path, PRESETS["svac"], 16)
