"""The words around images, questions and answers, as each family's authors have them. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

SEG, IMG_START, IMG_END, IMG_CONTEXT = "[SEG]", "<img>", "</img>", "<IMG_CONTEXT>"

# Where the published code's tokenizers end a text, whatever the template.
ENDS = ("<|im_end|>", "<|endoftext|>", "</s>")


@dataclass(frozen=True)
class Template:
    """The words around a question and its answer.

    Attributes:
        before: begins the prompt.
        after: between the question and the answer.
        end: ends the answer.
    """

    before: str
    after: str
    end: str


@dataclass(frozen=True)
class ChatFormat:
    """How a family writes a prompt: `before`, the images, the question, `after`, the answer, `end`.

    Attributes:
        templates: by the name that config.json gives; the first one is meant where it gives none.
        start, token, end: before an image, once for each of its visual tokens, and after it; special tokens.
        between, behind: between two images, and after the last one.
        asked: how an expression that is a question itself is asked, with `{exp}`.
    """

    templates: Mapping[str, Template]
    start: str = IMG_START
    token: str = IMG_CONTEXT
    end: str = IMG_END
    between: str = "\n"
    behind: str = "\n"
    asked: str = "{exp}"

    def images(self, tokens: Sequence[int]) -> str:
        """Return the text of images that have so many visual tokens each."""
        return self.between.join(self.start + self.token * count + self.end for count in tokens) + self.behind

    @cached_property
    def reserved(self) -> frozenset[str]:
        """The format's own words, also where the tokenizer takes them for plain text."""
        text = "".join(part.before + part.after + part.end for part in self.templates.values())
        words = (SEG, self.token, self.start, self.end, *ENDS, *re.findall(r"<\|.*?\|>", text))
        return frozenset(filter(str.strip, words))


# InternVL's templates without a system message, as the published code uses them.
INTERNVL = ChatFormat(
    {
        "phi3_chat": Template("<|user|>\n", "<|end|>\n<|assistant|>\n", "<|end|>"),
        "internlm2_chat": Template("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
        "qwen_chat": Template("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
    }
)
