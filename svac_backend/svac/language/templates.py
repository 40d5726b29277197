"""Chat templates, the question, the answer, special tokens, and loading the tokenizer without remote code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from svac_backend.errors import SvacError
from svac_backend.svac.config import MethodConfig
from svac_backend.svac.language.chat_formats import ENDS, INTERNVL, SEG, ChatFormat, Template


@dataclass(frozen=True)
class ChatIds:
    """Token ids of one expression, cut where they stop being the same for every expression of a video.

    Attributes:
        prefix: i64 [P]; template and images, shared by all expressions.
        suffix: i64 [Q]; question and forced answer.
        seg: i64 [N]; positions of the [SEG] tokens in `suffix`.
        answer_start: position in `suffix` where the answer begins (the LM loss starts there).
    """

    prefix: Tensor
    suffix: Tensor
    seg: Tensor
    answer_start: int


class ChatTemplate:
    """Turns expressions into token ids; ids are read from the tokenizer, never assumed.

    Args:
        tokenizer_file: a `tokenizer.json`.
        method: template, question and answer.
        tokens_per_image: visual tokens of one image, where all have the same number.
        words: the family's.

    Raises:
        SvacError: the family has no such template, or the tokenizer lacks a special token of the model.
    """

    def __init__(
        self,
        tokenizer_file: Path,
        method: MethodConfig,
        tokens_per_image: int,
        words: ChatFormat = INTERNVL,
    ) -> None:
        if method.template not in words.templates:
            raise SvacError(
                f"The model has no chat template {method.template!r}.",
                f"Choose one of {', '.join(words.templates)}.",
            )
        if not tokenizer_file.is_file():
            raise SvacError(f"{tokenizer_file} is missing.", "Download the model again.")
        try:
            self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
        except Exception as error:  # tokenizers raises bare Exceptions for whatever is wrong in the file
            raise SvacError(
                f"{tokenizer_file} can't be read ({error}).", "Download the model again."
            ) from error
        self.method = method
        self.words = words
        self.tokens_per_image = tokens_per_image
        self.seg_id = self._id(SEG)
        self.context_id = self._id(words.token)
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        self.reserved = words.reserved | frozenset(filter(str.strip, added))

    @property
    def template(self) -> Template:
        """The words around question and answer."""
        return self.words.templates[self.method.template]

    def _id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(found, int) or found == self.tokenizer.unk_token_id:
            raise SvacError(
                f"The tokenizer has no token {token!r}.", "Use the tokenizer.json that came with the weights."
            )
        return found

    def _check(self, expression: str) -> None:
        """Refuse text that would become the model's own tokens: it could end the question, or answer it."""
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        text = f"{expression}\n{normalizer.normalize_str(expression)}" if normalizer else expression
        held = max((token for token in self.reserved if token in text), key=len, default=None)
        if held is not None:
            raise SvacError(
                "The expression holds a token that is reserved for the model.",
                f"Remove '{held}' from the text.",
            )

    def question(self, expression: str) -> str:
        """Return the question; an expression that is a question itself is asked as in the authors' evaluation."""
        asked = self.words.asked if "?" in expression else self.method.question
        return asked.format(exp=expression)

    def answer(self, num_clips: int) -> str:
        """Return the forced answer with one [SEG] per clip."""
        if self.method.answer == "clips":
            segments = ", ".join(f"Clip_{i + 1} {SEG}" for i in range(num_clips))
        else:
            segments = SEG * num_clips
        return f"{self.method.answer_prefix}{segments}."

    def prefix_text(self, images: int | Sequence[int]) -> str:
        """Return the text before the question: the template's head and the image placeholders."""
        tokens = [self.tokens_per_image] * images if isinstance(images, int) else images
        return self.template.before + self.words.images(tokens)

    def ids(self, text: str, *, begins: bool = False) -> Tensor:
        """Tokenize; i64 [L].

        Args:
            text: a part of the chat.
            begins: whether it is its beginning: some tokenizers (InternLM2) put a token of their own before it.
        """
        return torch.tensor(self.tokenizer(text, add_special_tokens=begins)["input_ids"], dtype=torch.long)

    def is_over(self, answer: Sequence[int]) -> bool:
        """Say whether generated ids end with the template's stop text or the tokenizer's own end of text."""
        if self.tokenizer.convert_ids_to_tokens(answer[-1]) in ENDS:
            return True
        # The stop text may be plain text to the tokenizer, so it is looked for in the text.
        tail = self.tokenizer.decode(list(answer[-16:]), clean_up_tokenization_spaces=False)
        return str(tail).endswith(self.template.end)

    def build(
        self, expression: str, images: int | Sequence[int], num_clips: int, answer: str | None = None
    ) -> ChatIds:
        """Build the ids of one expression.

        Args:
            expression: what to segment.
            images: of the prefix: the visual tokens of each, or how many there are where all have the same number.
            num_clips: [SEG] tokens of the method's own answer.
            answer: another answer to force, without the template's end.

        Raises:
            SvacError: the expression is empty, or it holds a token of the model's.
        """
        if not expression.strip():
            raise SvacError("The expression is empty.", "Describe the object in a few words.")
        self._check(expression)
        after, end = self.template.after, self.template.end
        # Cut behind the last image token, a special one: elsewhere a tokenizer could join what was cut.
        shared = self.prefix_text(images)
        prefix = shared[: shared.rindex(self.words.end) + len(self.words.end)]
        question = self.ids(shared[len(prefix) :] + self.question(expression.strip()) + after)
        forced = self.answer(num_clips) if answer is None else answer.removesuffix(end)
        suffix = torch.cat([question, self.ids(forced + end)])
        return ChatIds(
            prefix=self.ids(prefix, begins=True),
            suffix=suffix,
            seg=(suffix == self.seg_id).nonzero()[:, 0],
            answer_start=len(question),
        )
