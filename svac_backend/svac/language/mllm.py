"""The multimodal language model, as far as families agree: reading images and text, [SEG] states, their projection.

A forced answer takes one prefill. `GreedyWriter` has the model write its answer token by token, for models that say
themselves whether, and how often, the object is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from svac_backend.svac.config import SvacConfig
from svac_backend.svac.language.templates import ChatIds


@dataclass(frozen=True)
class Seen:
    """What the language model is given of n images, K visual tokens together.

    Attributes:
        tokens: [K, H], image after image.
        counts: visual tokens of each image.
        grids: rows and columns of each image's tokens, for families whose positions need them.
        deepstack: each [K, H], added after the first layers of the language model, for families that do so.
    """

    tokens: Tensor
    counts: tuple[int, ...]
    grids: tuple[tuple[int, int], ...] = ()
    deepstack: tuple[Tensor, ...] = ()

    @classmethod
    def alike(cls, tokens: Tensor) -> Seen:
        """Return n images with as many tokens each, [n, t, H]."""
        return cls(tokens.flatten(0, 1), (tokens.shape[1],) * len(tokens))


class States(NamedTuple):
    """What the language model makes of L tokens.

    Attributes:
        seg: [L, H], what a [SEG] among them is projected from.
        last: [L, H], after the final norm: what `lm_head` takes.
    """

    seg: Tensor
    last: Tensor


@dataclass
class Reading:
    """How far the language model has read.

    Attributes:
        cache: keys and values of what it has read.
        position: of the token that comes next; where an image counts by its sides, not the number of tokens.
    """

    cache: DynamicCache
    position: int = 0

    def back(self, count: int) -> None:
        """Forget the last `count` tokens, which are text."""
        if count:
            self.cache.crop(-count)
            self.position -= count


Writer = Callable[["Mllm", Reading, ChatIds], Tensor]


def seg_projector(hidden: int, d_model: int) -> nn.ModuleList:
    """Build `text_hidden_fcs`, which projects [SEG] states to SAM-2's prompt space, as published."""
    steps = (nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, d_model), nn.Dropout(0.0))
    return nn.ModuleList([nn.Sequential(*steps)])


class Mllm(nn.Module):
    """Images and text in, one embedding per clip and expression out.

    A family's own class makes the parts: `vision_model`; `language_model`, a causal language model of transformers or
    what looks like one (`model`, `lm_head`, `config`, `get_input_embeddings`); `text_hidden_fcs`, last. It says how
    images become visual tokens, and, where it differs, what the language model is given beside them.
    """

    vision_model: nn.Module
    language_model: Any
    text_hidden_fcs: nn.ModuleList

    def __init__(self, config: SvacConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the projectors."""
        return next(self.text_hidden_fcs.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.text_hidden_fcs.parameters()).device

    def visual(self, images: Sequence[NDArray[np.uint8]]) -> Seen:
        """Return what the language model is given of images u8 [h, w, 3], sized by the family's `fitted`."""
        return self.see(self.look(images))

    def look(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, ...]:
        """Run on images, u8 [h, w, 3] each, what stays frozen in training; what comes out may be kept."""
        raise NotImplementedError

    def see(self, looked: tuple[Tensor, ...]) -> Seen:
        """Make visual tokens of what `look` gave, by parts that may be trained."""
        raise NotImplementedError

    def embed(self, ids: Tensor, visual: Tensor | None, context_id: int) -> Tensor:
        """Embed ids [L] and put visual tokens [k, H] in the place of the k image placeholders; returns [L, H]."""
        embeds = self.language_model.get_input_embeddings()(ids.to(self.device))
        if visual is None:
            return embeds
        return embeds.index_put(
            ((ids == context_id).to(embeds.device).nonzero()[:, 0],), visual.to(embeds.dtype)
        )

    def project(self, hidden: Tensor) -> Tensor:
        """Project [SEG] states [..., H] to SAM-2's prompt space [..., d_model]."""
        return self.text_hidden_fcs[0](hidden)

    def begin(self, prefix: Tensor, seen: Seen, context_id: int) -> Reading:
        """Read what all expressions of a video share, ids i64 [P]: the images and what is before them."""
        reading = Reading(DynamicCache(config=self.language_model.config))
        self.read(self.embed(prefix, seen.tokens, context_id), reading)
        return reading

    def read(self, embeds: Tensor, reading: Reading) -> States:
        """Read on: embeddings [L, H] of text."""
        hidden = self.language_model.model(
            inputs_embeds=embeds[None], past_key_values=reading.cache, use_cache=True
        ).last_hidden_state[0]
        reading.position += len(embeds)
        return States(hidden, hidden)

    def forced(self, chats: Sequence[ChatIds], seen: Sequence[Seen], context_id: int) -> list[States]:
        """Read whole chats, prefix and suffix, as one batch and without a cache; for training.

        Args:
            chats: B of them.
            seen: the images of each.
            context_id: id of the image placeholder.

        Returns:
            B states, of all tokens of the longest chat; what is beyond a chat's own length has no meaning.
        """
        rows = [
            self.embed(torch.cat([chat.prefix, chat.suffix]), images.tokens, context_id)
            for chat, images in zip(chats, seen, strict=True)
        ]
        # Padded at the right, where a causal model's earlier tokens do not see it.
        embeds = pad_sequence(rows, batch_first=True)
        hidden = self.language_model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return [States(row, row) for row in hidden]

    def seg_states(
        self, seen: Seen, chats: Sequence[ChatIds], context_id: int, *, write: Writer | None = None
    ) -> list[Tensor]:
        """Prefill once per video and once more per expression.

        The vision prefix and its KV cache are computed once and reused for every expression. The answer is
        teacher-forced, which gives the same states as writing it token by token, unless `write` writes it.

        Args:
            seen: the images.
            chats: E expressions in the chat template, that share their prefix.
            context_id: id of the image placeholder.
            write: given this model, what it has read and a chat, it returns the states of its [SEG] tokens and
                leaves the reading where it was.

        Returns:
            E tensors f32 [number of [SEG], d_model].
        """
        reading = self.begin(chats[0].prefix, seen, context_id)
        rows = []
        for chat in chats:
            if write is not None:
                states = write(self, reading, chat)
            else:
                out = self.read(self.embed(chat.suffix, None, context_id), reading).seg
                reading.back(len(chat.suffix))
                states = out[chat.seg.to(out.device)]
            rows.append(self.project(states).float())
        return rows


@dataclass(frozen=True)
class GreedyWriter:
    """Greedy decoding with the KV cache; a `Writer` of `Mllm.seg_states`.

    Attributes:
        seg_id: id of [SEG].
        is_over: says whether the ids so far end the answer.
        max_tokens: where an answer is cut.
    """

    seg_id: int
    is_over: Callable[[Sequence[int]], bool]
    max_tokens: int

    def __call__(self, mllm: Mllm, reading: Reading, chat: ChatIds) -> Tensor:
        """Return the states of the answer's [SEG] tokens, [k, H]; the reading is afterwards where it was."""
        language_model = mllm.language_model
        embed = language_model.get_input_embeddings()
        device = embed.weight.device
        step = chat.suffix[: chat.answer_start].to(device)
        taken = 0
        ids: list[int] = []
        states = [embed.weight.new_zeros(0, language_model.config.hidden_size)]
        # The last token is never an input, so it has no state (the published code drops it too).
        while len(ids) < self.max_tokens and not (ids and self.is_over(ids)):
            read = mllm.read(embed(step), reading)
            taken += len(step)
            if ids and ids[-1] == self.seg_id:
                states.append(read.seg[-1:])
            ids.append(int(language_model.lm_head(read.last[-1]).argmax()))
            step = torch.tensor(ids[-1:], device=device)
        reading.back(taken)
        return torch.cat(states)


def objects_of(states: Tensor, num_clips: int) -> Tensor:
    """Turn the k [SEG] embeddings of one answer, [k, d], into objects with one embedding per clip, [O, num_clips, d].

    With one clip, every [SEG] is an object of its own (Sa2VA). With more, the [SEG] are those of the clips of one
    object: too many are cut, too few are filled up with the last one (SaSaSa2VA). No [SEG] is no object.
    """
    if num_clips == 1 or len(states) == 0:
        return states[:, None].expand(-1, num_clips, -1)
    missing = num_clips - len(states)
    if missing > 0:
        states = torch.cat([states, states[-1:].expand(missing, -1)])
    return states[None, :num_clips]
