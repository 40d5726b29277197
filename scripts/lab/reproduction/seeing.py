"""From frames to [SEG] embeddings, for every variant by the same functions, in training and in scoring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.reproduction.compression import merge_tokens, pool_tokens
from lab.reproduction.variants import Variant
from svac_backend.svac import astc
from svac_backend.svac.astc import clip_images
from svac_backend.svac.language.mllm import Seen
from svac_backend.svac.language.templates import ChatIds, ChatTemplate
from svac_backend.svac.model import Svac


class Viewer:
    """Shows videos to the MLLM of a model the way of a variant.

    Args:
        model: whose MLLM looks.
        variant: how.
    """

    def __init__(self, model: Svac, variant: Variant) -> None:
        self.model, self.variant = model, variant
        self.builder = ChatTemplate(model.tokenizer_file, model.config.method, variant.tokens_per_image)

    def pixels(self, frames: NDArray[np.uint8]) -> Tensor:
        """Return the images of the seen frames u8 [k, H, W, 3] for the vision tower, f32 [images, 3, S, S]."""
        size, images = self.model.config.vision.image_size, list(frames)
        if self.variant.way == "astc":
            clips = [images[k : k + self.variant.clip] for k in range(0, len(images), self.variant.clip)]
            images = [image for clip in clips for image in clip_images(clip, self.variant.grid)]
        return astc.mllm_pixels(np.stack([astc.resize(image, size) for image in images]))

    def tokens(self, pixels: Tensor) -> Tensor:
        """Return the visual tokens that reach the language model, [images, tokens_per_image, H]."""
        tokens = self.model.mllm.visual_tokens(pixels)
        if self.variant.way == "pool":
            return pool_tokens(tokens, self.variant.grid)
        if self.variant.way == "merge":
            return merge_tokens(tokens, self.variant.tokens_per_image)[0]
        return tokens

    def prompts(self, expressions: Sequence[str]) -> list[ChatIds]:
        """Return the prompts of sentences, with the variant's number of [SEG]."""
        return [self.builder.build(text, self.variant.images, self.variant.segs) for text in expressions]

    @torch.inference_mode()
    def embeddings(self, frames: NDArray[np.uint8], expressions: Sequence[str]) -> Tensor:
        """Return the [SEG] embeddings of E sentences about the seen frames, f32 [E, segs, d_model]."""
        visual = self.tokens(self.pixels(frames))
        return torch.stack(
            self.model.mllm.seg_states(Seen.alike(visual), self.prompts(expressions), self.builder.context_id)
        )

    def owned(self, seg: Tensor, frames: Sequence[int], length: int) -> Tensor:
        """Return for each sentence and frame the embedding that decodes it.

        Args:
            seg: [E, segs, d_model].
            frames: F frames of the video.
            length: of the video.

        Returns:
            [E, F, d_model].
        """
        owners = self.variant.owners(length)
        return seg[:, [owners[i] for i in frames]]
