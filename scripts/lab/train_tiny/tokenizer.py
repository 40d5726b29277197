"""The tokenizer of the embedded model, trained on the generator's language."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from svac_backend.learning.rehearsal import NOUNS
from svac_backend.svac.language.chat_formats import IMG_CONTEXT, IMG_END, IMG_START, SEG
from svac_backend.synthetic.rich.kinds import FAMILIES, HELD_OUT_KINDS, KINDS
from svac_backend.synthetic.rich.scene import RichConfig, describe
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED
from svac_backend.synthetic.shapes import COLORS

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", IMG_START, IMG_END, IMG_CONTEXT]
SPECIAL += ["<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", SEG, "<p>", "</p>", "<vp>", "</vp>"]


def train_tokenizer(question: str, *, scenes: int = 600, vocabulary: int = 1024) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the generator's language; any other text falls back to bytes."""

    def corpus() -> Iterator[str]:
        config = RichConfig(per_kind=6)
        for seed in range(FIRST_TRAIN_SEED, FIRST_TRAIN_SEED + scenes):
            for expression in describe(seed, config)[1]:
                yield question.format(exp=expression.text)
        for noun in (
            *NOUNS,
            *FAMILIES,
            *(n for k in KINDS.values() if k.name not in HELD_OUT_KINDS for n in k.names),
        ):
            for color in COLORS:
                yield question.format(exp=f"the {color} {noun}")
        yield from ["user\nassistant\nIt is ."] * 200

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer
