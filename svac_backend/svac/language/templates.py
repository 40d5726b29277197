"""Chat templates, the question, the answer, special tokens, and loading the tokenizer without remote code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from svac_backend.errors import SvacError
from svac_backend.svac.config import MethodConfig

SEG, IMG_START, IMG_END, IMG_CONTEXT = "[SEG]", "<img>", "</img>", "<IMG_CONTEXT>"

# InternVL's templates without a system message, as the published code uses them: (before, after, end of answer).
_TEMPLATES = {
    "phi3_chat": ("<|user|>\n", "<|end|>\n<|assistant|>\n", "<|end|>"),
    "internlm2_chat": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
    "qwen_chat": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
}
# Where the published code's tokenizers end a text, whatever the template.
_ENDS = ("<|im_end|>", "<|endoftext|>", "</s>")


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
        tokens_per_image: visual tokens of one image.

    Raises:
        SvacError: the tokenizer lacks a special token of the model.
    """

    def __init__(self, tokenizer_file: Path, method: MethodConfig, tokens_per_image: int) -> None:
        if not tokenizer_file.is_file():
            raise SvacError(f"{tokenizer_file} is missing.", "Download the model again.")
        try:
            self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
        except Exception as error:  # tokenizers raises bare Exceptions for whatever is wrong in the file
            raise SvacError(
                f"{tokenizer_file} can't be read ({error}).", "Download the model again."
            ) from error
        self.method = method
        self.tokens_per_image = tokens_per_image
        self.seg_id = self._id(SEG)
        self.context_id = self._id(IMG_CONTEXT)
        # The template's own words are reserved, too, where the tokenizer takes them for plain text.
        own = re.findall(r"<\|.*?\|>", "".join(map("".join, _TEMPLATES.values())))
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        self.reserved = frozenset(
            filter(str.strip, (SEG, IMG_CONTEXT, IMG_START, IMG_END, *_ENDS, *own, *added))
        )

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
        """Return the question; an expression that is a question itself stands alone (the authors' evaluation)."""
        return expression if "?" in expression else self.method.question.format(exp=expression)

    def answer(self, num_clips: int) -> str:
        """Return the forced answer with one [SEG] per clip."""
        if self.method.answer == "clips":
            segments = ", ".join(f"Clip_{i + 1} {SEG}" for i in range(num_clips))
        else:
            segments = SEG * num_clips
        return f"{self.method.answer_prefix}{segments}."

    def prefix_text(self, num_images: int) -> str:
        """Return the text before the question: the template's head and the image placeholders."""
        image = IMG_START + IMG_CONTEXT * self.tokens_per_image + IMG_END
        return _TEMPLATES[self.method.template][0] + "\n".join([image] * num_images) + "\n"

    def ids(self, text: str, *, begins: bool = False) -> Tensor:
        """Tokenize; i64 [L].

        Args:
            text: a part of the chat.
            begins: whether it is its beginning: some tokenizers (InternLM2) put a token of their own before it.
        """
        return torch.tensor(self.tokenizer(text, add_special_tokens=begins)["input_ids"], dtype=torch.long)

    def is_over(self, answer: Sequence[int]) -> bool:
        """Say whether generated ids end with the template's stop text or the tokenizer's own end of text."""
        if self.tokenizer.convert_ids_to_tokens(answer[-1]) in _ENDS:
            return True
        # The stop text may be plain text to the tokenizer, so it is looked for in the text.
        tail = self.tokenizer.decode(list(answer[-16:]), clean_up_tokenization_spaces=False)
        return str(tail).endswith(_TEMPLATES[self.method.template][2])

    def build(self, expression: str, num_images: int, num_clips: int, answer: str | None = None) -> ChatIds:
        """Build the ids of one expression.

        Args:
            expression: what to segment.
            num_images: images of the prefix.
            num_clips: [SEG] tokens of the method's own answer.
            answer: another answer to force, without the template's end.

        Raises:
            SvacError: the expression is empty, or it holds a token of the model's.
        """
        if not expression.strip():
            raise SvacError("The expression is empty.", "Describe the object in a few words.")
        self._check(expression)
        _, after, end = _TEMPLATES[self.method.template]
        # Cut behind the last image token, a special one: elsewhere a tokenizer could join what was cut.
        shared = self.prefix_text(num_images)
        prefix = shared[: shared.rindex(IMG_END) + len(IMG_END)]
        question = self.ids(shared[len(prefix) :] + self.question(expression.strip()) + after)
        forced = self.answer(num_clips) if answer is None else answer.removesuffix(end)
        suffix = torch.cat([question, self.ids(forced + end)])
        return ChatIds(
            prefix=self.ids(prefix, begins=True),
            suffix=suffix,
            seg=(suffix == self.seg_id).nonzero()[:, 0],
            answer_start=len(question),
        )
