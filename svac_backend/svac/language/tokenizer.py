"""The one tokenizer file that is read, `tokenizer.json`, and making it from older files. Never remote code.

Checkpoints that were saved with a slow tokenizer have `vocab.json` and `merges.txt` (Qwen2) or `tokenizer.model`
(InternLM2, SentencePiece) instead. Ids must be exactly the published ones, so what is made is checked.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from svac_backend.errors import SvacError
from svac_backend.svac.files.weights import read_json

log = logging.getLogger(__name__)

_AGAIN = "Download the model again."
# What the conversion of a SentencePiece model is tried on.
_SAMPLES = (
    "user\nPlease segment the red circle moving right in this image.",
    "Sure, it is Clip_1 ,  Clip_2 .\n\nAn elephant's trunk: 3 of 10?",
    "\t穿红衣服的人 naïve Größe 🐘",
)


def tokenizer_file(folder: Path) -> Path:
    """Return a model folder's `tokenizer.json`; where there is none it is made, in the folder if it can be written.

    Raises:
        SvacError: the folder has no tokenizer, or one that can't be made exactly.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return path
    if (folder / "tokenizer.model").is_file():
        tokenizer = _from_sentencepiece(folder)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = _from_qwen2(folder)
    else:
        raise SvacError(f"{path} is missing.", _AGAIN)
    text = tokenizer.to_str()
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="svac-tokenizer-")) / "tokenizer.json"
        path.write_text(text, encoding="utf-8")
    log.info("made %s from the slow tokenizer's files", path)
    return path


def _from_qwen2(folder: Path) -> Tokenizer:
    """Make the tokenizer of `vocab.json` and `merges.txt`, with transformers' own class for Qwen2."""
    from transformers import Qwen2Tokenizer

    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [
        (pair[0], pair[1]) for line in lines if len(pair := line.split()) == 2 and pair[0] != "#version:"
    ]
    vocabulary = read_json(folder / "vocab.json")
    made = Qwen2Tokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer, tokenizer.pre_tokenizer = made.normalizer, made.pre_tokenizer
    tokenizer.decoder = made.decoder
    return _with_added(tokenizer, folder)


def _from_sentencepiece(folder: Path) -> Tokenizer:
    """Make the tokenizer of InternLM2's `tokenizer.model`: BPE with byte fallback, and `<s>` before a prompt."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise SvacError(
            f"{folder} has its tokenizer as tokenizer.model, which needs the package sentencepiece.",
            "Install it with: pip install sentencepiece",
        ) from error
    from transformers.tokenization_utils_base import generate_merges

    path = folder / "tokenizer.model"
    try:
        pieces = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise SvacError(f"{path} is damaged ({error}).", _AGAIN) from error
    scores = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    added = _added_tokens(folder)
    # A token of the chat template takes the place of a piece that was kept free for it.
    scores = [(added[i].content if i in added else piece, score) for i, (piece, score) in enumerate(scores)]
    vocabulary = {piece: i for i, (piece, _) in enumerate(scores)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=generate_merges(vocabulary, dict(scores)),
            unk_token=pieces.id_to_piece(pieces.unk_id()),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = pieces.encode("a", out_type=str)[0].startswith("▁")
    steps = [normalizers.Prepend("▁")] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    ends = [decoders.Strip(content=" ", left=1)] if prefixed else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ends]
    )
    begin = pieces.id_to_piece(pieces.bos_id()) if pieces.bos_id() >= 0 else None
    tokenizer = _with_added(tokenizer, folder)
    _check(path, tokenizer, lambda text: list(pieces.encode(text)))
    if begin and read_json(folder / "tokenizer_config.json").get("add_bos_token", True):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, pieces.bos_id())]
        )
    return tokenizer


def _check(path: Path, tokenizer: Tokenizer, expected: Callable[[str], list[int]]) -> None:
    """Refuse a conversion that tokenizes otherwise than its source: every id counts."""
    for text in _SAMPLES:
        if tokenizer.encode(text, add_special_tokens=False).ids != expected(text):
            raise SvacError(
                f"{path} is of a kind that can't be turned into a tokenizer.json exactly.",
                "Save it as tokenizer.json with the authors' code and put that file beside the weights.",
            )


def _added_tokens(folder: Path) -> dict[int, AddedToken]:
    """Read the tokens beyond the vocabulary, by id: `tokenizer_config.json` in newer files, `added_tokens.json`."""
    found: dict[int, AddedToken] = {}
    if (folder / "added_tokens.json").is_file():
        for content, number in read_json(folder / "added_tokens.json").items():
            found[int(number)] = AddedToken(content, special=True, normalized=False)
    if (folder / "tokenizer_config.json").is_file():
        for number, token in (
            read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {}).items()
        ):
            flags = {
                k: bool(token[k])
                for k in ("single_word", "lstrip", "rstrip", "normalized", "special")
                if k in token
            }
            found[int(number)] = AddedToken(str(token["content"]), **flags)
    return found


def _with_added(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """Add the tokens in the order of their ids, and see that each got its own."""
    for number, token in sorted(_added_tokens(folder).items()):
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != number:
            raise SvacError(
                f"The token {token.content!r} of {folder} can't have its id {number}: ids before it are missing.",
                _AGAIN,
            )
    return tokenizer
