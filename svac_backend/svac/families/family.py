"""What a model family is: one layout of weights, how it is known again, and what it does otherwise than the others.

A family is one module with one `Family` in it, registered in `registry.FAMILIES`. It says only what differs: the
methods here are those of most. Free of torch when imported, as the web process asks which family a folder is of.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.svac.config import SamConfig, SvacConfig, VisionConfig
from svac_backend.svac.language.chat_formats import ChatFormat

if TYPE_CHECKING:
    from torch import Tensor

    from svac_backend.svac.language.mllm import Mllm

Image = NDArray[np.uint8]
Rule = tuple[re.Pattern[str], str]

SAM = SamConfig()  # published configurations do not describe SAM-2: it is always Hiera-L at 1024 pixels
SAM_KEYS = "grounding_encoder.sam2_model."


@dataclass(frozen=True)
class Folder:
    """What a model's folder says of itself before its weights are read.

    Attributes:
        data: the content of config.json.
        keys: names of the tensors.
        name: the folder's, or its repository's.
    """

    data: Mapping[str, Any]
    keys: frozenset[str] = frozenset()
    name: str = ""

    def says(self, word: str) -> bool:
        """Return whether its classes, or its name, hold a word, in whatever case."""
        told = (*(self.data.get(field) for field in ("model_type", "architectures", "auto_map")), self.name)
        return word in repr(told).lower()

    def part(self, name: str) -> Mapping[str, Any]:
        """Return a part of config.json, or an empty one."""
        found = self.data.get(name)
        return found if isinstance(found, Mapping) else {}


class Family(ABC):
    """A layout of weights and all that depends on it.

    Attributes:
        name: in our config.json (`family`).
        preset: how it is run unless a person says otherwise.
        title: for people.
        chat: the words around images, questions and answers.
        vision: class of `SvacConfig.vision`.
        embeddings: published names of the word embeddings, whose rows are the vocabulary.
        rules: published name (a pattern) -> ours; the first that fits.
        lora_targets: projections of the language model that LoRA is put beside in fine-tuning.
        trained_whole: beginnings of our names of what is trained, and kept in an adapter, as a whole.
        marks: our names of three tensors by which a model is known again, whatever its dtype.
    """

    name: ClassVar[str]
    preset: ClassVar[str]
    title: ClassVar[str]
    chat: ClassVar[ChatFormat]
    vision: ClassVar[type[VisionConfig]] = VisionConfig
    embeddings: ClassVar[tuple[str, ...]] = ()
    rules: ClassVar[Sequence[Rule]] = ()
    lora_targets: ClassVar[tuple[str, ...]] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    trained_whole: ClassVar[tuple[str, ...]] = ("mllm.text_hidden_fcs.", "sam.sam_mask_decoder.")
    marks: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def recognises(self, folder: Folder) -> bool:
        """Return whether a folder is of this family; the registry asks the special ones first."""

    @abstractmethod
    def read_config(self, data: Mapping[str, Any]) -> SvacConfig:
        """Turn a published config.json into ours.

        Raises:
            SvacError: it asks for something that this family does not do.
        """

    def load_config(self, path: Path) -> SvacConfig:
        """Read a config.json in our own format. Raises `SvacError` where it is none."""
        return SvacConfig.load(path, self.vision)

    def with_vocabulary(self, config: SvacConfig, shapes: Mapping[str, tuple[int, ...]]) -> SvacConfig:
        """Return the configuration with as many tokens as the published embedding has rows.

        Some config.json still have the base model's number, from before [SEG] was added.
        """
        known = config.language.vocab_size
        rows = next((shapes[key][0] for key in self.embeddings if key in shapes), known)
        return replace(config, language=replace(config.language, vocab_size=rows))

    def convert(self, key: str, tensor: Tensor, config: SvacConfig) -> dict[str, Tensor]:
        """Return our keys and tensors of one published key; works on the meta device, too.

        Raises:
            SvacError: the key belongs to no part of the model.
        """
        if key.startswith(SAM_KEYS):
            return {"sam." + key[len(SAM_KEYS) :].replace(".g_weight", ".gamma"): tensor}
        for pattern, target in self.rules:
            if pattern.match(key):
                return {pattern.sub(target, key): tensor}
        raise SvacError(
            f"The checkpoint holds an unknown tensor {key!r}.",
            f"It is read as {self.title}; use a checkpoint of it as its authors published it.",
        )

    def convert_all(self, published: Iterable[tuple[str, Tensor]], config: SvacConfig) -> dict[str, Tensor]:
        """Convert a whole published state dict."""
        return {
            name: part
            for key, tensor in published
            for name, part in self.convert(key, tensor, config).items()
        }

    @abstractmethod
    def build_mllm(self, config: SvacConfig) -> Mllm:
        """Build vision tower and language model with random weights: how images become tokens, positions, [SEG]."""

    def fitted(self, config: SvacConfig) -> Callable[[Image, tuple[int, int]], Image]:
        """Return what resizes an image u8 [H, W, 3] to u8 [h, w, 3], as the vision tower is given it; any thread may.

        It is also told the rows and columns of the video's frames: where images keep their shape, a composite becomes
        as large as a frame. Its `Mllm` normalises the pixels and cuts them into patches.
        """
        raise NotImplementedError

    def tokens_per_image(self, config: SvacConfig) -> int:
        """Return the visual tokens of an image; 0 where images differ."""
        return 0
