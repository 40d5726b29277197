"""Tokenizers that were saved without tokenizer.json: made anew, with exactly the same ids."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from svac_backend.errors import SvacError
from svac_backend.svac.config import PRESETS
from svac_backend.svac.language.templates import ChatTemplate
from svac_backend.svac.language.tokenizer import tokenizer_file

TEXTS = [
    "Please segment the red circle moving right in this image.",
    "  two spaces,  and\n\na line; 3 of 10",
    "穿红衣服的人 naïve 🐘",
]
ADDED = [
    "<|im_start|>",
    "<|im_end|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "[SEG]",
    "<p>",
    "</p>",
    "<vp>",
    "</vp>",
]
CORPUS = [
    f"{verb} the {colour} {shape} that moves {way}.\nSure, it is Clip_{i}."
    for i, verb in enumerate(["Please segment", "Show", "Find me"])
    for colour in ("red", "dark blue", "green")
    for shape in ("circle", "square", "elephant's trunk")
    for way in ("left", "right", "over the fence")
]


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return train(tmp_path_factory.mktemp("spm"))


def train(folder: Path, **options: object) -> bytes:
    """Train a SentencePiece model as InternLM2's is: BPE, bytes for what it does not know, no dummy prefix."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(folder / "tokenizer"),
        **{
            "model_type": "bpe",
            "vocab_size": 420,
            "byte_fallback": True,
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "normalization_rule_name": "identity",
            "unk_id": 0,
            "bos_id": 1,
            "eos_id": 2,
            "user_defined_symbols": ["\n", "[UNUSED_TOKEN_146]"],
            "minloglevel": 2,
            **options,
        },
    )
    return (folder / "tokenizer.model").read_bytes()


def internlm2_folder(folder: Path, model: bytes) -> tuple[Path, sentencepiece.SentencePieceProcessor]:
    """Write a slow tokenizer's files: one added token takes a free piece's place, the others follow the pieces."""
    (folder / "tokenizer.model").write_bytes(model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    numbers = {"<|im_start|>": pieces.piece_to_id("[UNUSED_TOKEN_146]")}
    numbers |= {token: len(pieces) + i for i, token in enumerate(ADDED[1:])}
    config = {
        "add_bos_token": True,
        "added_tokens_decoder": {
            str(number): {"content": token, "special": True, "normalized": False}
            for token, number in numbers.items()
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder, pieces


def test_internlm2_tokenizes_as_sentencepiece_does(
    tmp_path: Path, sentencepiece_model: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder, pieces = internlm2_folder(tmp_path, sentencepiece_model)
    with caplog.at_level(logging.INFO):
        path = tokenizer_file(folder)
    assert path == folder / "tokenizer.json"
    assert "made" in caplog.text
    made = Tokenizer.from_file(str(path))
    for text in [*TEXTS, *CORPUS[:9]]:
        assert made.encode(text, add_special_tokens=False).ids == pieces.encode(text), text
        assert made.decode(pieces.encode(text)) == text
    assert made.token_to_id("<|im_start|>") == pieces.piece_to_id("[UNUSED_TOKEN_146]")
    assert [made.token_to_id(token) for token in ADDED[1:]] == list(
        range(len(pieces), len(pieces) + len(ADDED) - 1)
    )
    caplog.clear()
    assert tokenizer_file(folder) == path
    assert "made" not in caplog.text


def test_a_prompt_of_internlm2_is_that_of_the_whole_text(tmp_path: Path, sentencepiece_model: bytes) -> None:
    """`<s>` once, before everything; cutting the prompt for the KV cache changes no id."""
    folder, pieces = internlm2_folder(tmp_path, sentencepiece_model)
    method = replace(PRESETS["sasasa2va"], template="internlm2_chat")
    prompts = ChatTemplate(tokenizer_file(folder), method, 4)
    built = prompts.build("the red circle", 2, 3)
    whole = (
        prompts.prefix_text(2) + "Please segment the red circle.<|im_end|>\n<|im_start|>assistant\n",
        "Sure, it is Clip_1 [SEG], Clip_2 [SEG], Clip_3 [SEG].<|im_end|>",
    )
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    asked = [*built.prefix.tolist(), *built.suffix[: built.answer_start].tolist()]
    assert asked == made.encode(whole[0]).ids
    assert asked[0] == pieces.bos_id()
    assert asked.count(pieces.bos_id()) == 1
    answer = built.suffix[built.answer_start :].tolist()
    assert answer == made.encode(whole[1], add_special_tokens=False).ids
    assert len(built.seg) == 3


def test_a_dummy_prefix_is_kept(tmp_path: Path) -> None:
    (tmp_path / "spm").mkdir()
    folder, pieces = internlm2_folder(tmp_path, train(tmp_path / "spm", add_dummy_prefix=True))
    made = Tokenizer.from_file(str(tokenizer_file(folder)))
    assert made.encode("segment the dog", add_special_tokens=False).ids == pieces.encode("segment the dog")
    assert made.encode("segment the dog").ids[0] == pieces.bos_id()


def test_what_can_not_be_made_exactly_is_refused(tmp_path: Path, sentencepiece_model: bytes) -> None:
    folder, _ = internlm2_folder(tmp_path, train(tmp_path, remove_extra_whitespaces=True))
    with pytest.raises(SvacError, match=r"can't be turned into a tokenizer\.json exactly"):
        tokenizer_file(folder)
    folder, pieces = internlm2_folder(tmp_path, sentencepiece_model)
    (folder / "added_tokens.json").write_text(json.dumps({"<far>": len(pieces) + 99}))
    with pytest.raises(SvacError, match=r"'<far>'.*ids before it are missing"):
        tokenizer_file(folder)
    (folder / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(SvacError, match=r"tokenizer\.model is damaged"):
        tokenizer_file(folder)
    assert not (folder / "tokenizer.json").exists()
    (folder / "tokenizer.model").unlink()
    with pytest.raises(SvacError, match=r"tokenizer\.json is missing"):
        tokenizer_file(folder)


def test_qwen2_from_vocabulary_and_merges(tmp_path: Path) -> None:
    """Against transformers' own Qwen2 tokenizer, which reads the same two files."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=400, show_progress=False)
    trained.save_model(str(tmp_path))
    size = trained.get_vocab_size()
    tokens = ["<|endoftext|>", *ADDED]
    (tmp_path / "added_tokens.json").write_text(json.dumps({t: size + i for i, t in enumerate(tokens)}))
    made = Tokenizer.from_file(str(tokenizer_file(tmp_path)))
    theirs = Qwen2Tokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, *CORPUS[:9], "<|im_start|>user\n<img><IMG_CONTEXT></img>\nthe dog [SEG]."]:
        assert made.encode(text).ids == theirs(text)["input_ids"], text
    assert made.token_to_id("[SEG]") == size + tokens.index("[SEG]")


def test_a_folder_that_can_not_be_written_gets_its_tokenizer_elsewhere(
    tmp_path: Path, sentencepiece_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = internlm2_folder(tmp_path, sentencepiece_model)
    write = Path.write_text

    def refuse(path: Path, *args: object, **kwargs: object) -> int:
        if path.parent == folder:
            raise PermissionError(13, "read-only")
        return write(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", refuse)
    path = tokenizer_file(folder)
    assert path.parent != folder
    assert Tokenizer.from_file(str(path)).token_to_id("[SEG]") is not None
