"""Sa2VA on Qwen2.5-VL and Qwen3-VL (ByteDance/Sa2VA-Qwen2_5-VL-3B, -7B, Sa2VA-Qwen3-VL-2B, -4B).

The tensors have transformers' own names behind one `model.`; there is no projector, since the tower has its merger.
The authors froze the tower with its merger, put LoRA beside the language model's projections and trained the [SEG]
projection and SAM-2's mask decoder whole (bytedance/Sa2VA).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from svac_backend.errors import SvacError
from svac_backend.svac.config import LanguageConfig, QwenVision, SvacConfig
from svac_backend.svac.families import family
from svac_backend.svac.families.family import Family, Folder, Image
from svac_backend.svac.language.chat_formats import ChatFormat, Template

if TYPE_CHECKING:
    from svac_backend.svac.language.mllm import Mllm

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_AFTER, _END = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"


def _chat(system: str) -> ChatFormat:
    """The base models' template; every config.json calls it qwen_chat, which says nothing of the system message."""
    return ChatFormat(
        {"qwen_chat": Template(system + "<|im_start|>user\n", _AFTER, _END)},
        start="<|vision_start|>",
        token="<|image_pad|>",
        end="<|vision_end|>",
        between="",
        behind="\n",
        asked=" {exp} Please respond with a segmentation mask.",
    )


class QwenVl(Family):
    """What the two have in common.

    Attributes:
        kind: `vision_config.model_type` of their files.
        own: a field of `vision_config` that only this one has.
        vision_defaults, language_defaults: what the authors' classes take for a field that config.json leaves out.
    """

    preset = "sa2va"
    vision = QwenVision
    embeddings = ("model.model.language_model.embed_tokens.weight",)
    rules = tuple(
        (re.compile(pattern), target)
        for pattern, target in (
            (r"^model\.model\.visual\.", "mllm.vision_model."),
            (r"^model\.model\.language_model\.", "mllm.language_model.model."),
            (r"^model\.lm_head\.", "mllm.language_model.lm_head."),
            (r"^text_hidden_fcs\.(\d+)\.", r"mllm.text_hidden_fcs.0.\1."),
        )
    )
    marks = (
        "mllm.vision_model.blocks.0.norm1.weight",
        "sam.no_mem_embed",
        "mllm.language_model.model.norm.weight",
    )
    kind: ClassVar[str]
    own: ClassVar[str]
    vision_defaults: ClassVar[dict[str, Any]]
    language_defaults: ClassVar[dict[str, Any]]

    def recognises(self, folder: Folder) -> bool:
        """Return whether its vision tower is this one."""
        vision, text = folder.part("vision_config"), folder.part("text_config")
        told = str(vision.get("model_type") or text.get("model_type") or "")
        told = told.removesuffix("_text").removesuffix("_vision")  # newer transformers name the parts
        return told == self.kind or (not told.startswith("qwen") and self.own in vision)

    def read_config(self, data: Mapping[str, Any]) -> SvacConfig:
        """Turn a published config.json into ours; see `Family`."""
        vision, text = data.get("vision_config") or {}, data.get("text_config") or {}
        if not vision or not text:
            raise SvacError(
                "config.json describes no Qwen-VL model (vision_config and text_config).",
                "Download the model again, with the config.json that its authors published.",
            )
        config = SvacConfig(
            vision=self._vision(vision), language=self._language(text), sam=family.SAM, family=self.name
        ).with_preset(self.preset)
        method = replace(config.method, template="qwen_chat", max_answer_tokens=2048)
        return replace(config, method=method)

    def _vision(self, data: Mapping[str, Any]) -> QwenVision:
        found = self.vision_defaults | {k: v for k, v in data.items() if k in self.vision_defaults}
        _only(found, "temporal_patch_size", (2,))
        names = {
            "depth": "num_hidden_layers",
            "num_heads": "num_attention_heads",
            "spatial_merge_size": "merge",
        }
        fields: dict[str, Any] = {
            names.get(name, name): tuple(value) if isinstance(value, list) else value
            for name, value in found.items()
        }
        del fields["temporal_patch_size"]
        return QwenVision(kind=cast("Any", self.kind), **fields)

    def _language(self, data: Mapping[str, Any]) -> LanguageConfig:
        _only(data, "use_sliding_window", (False, None))
        _only(data, "attention_bias", (False, None))
        rope = dict(data.get("rope_parameters") or data.get("rope_scaling") or {})
        theta = rope.get("rope_theta") or data.get("rope_theta") or self.language_defaults["rope_theta"]
        _only(rope, "rope_type", ("default", "mrope"))
        _only(rope, "type", ("default", "mrope"))
        found = self.language_defaults | {k: v for k, v in data.items() if k in self.language_defaults}
        found |= {
            "architecture": self.kind,
            "rope_theta": float(theta),
            "rope_scaling": {"mrope_section": list(rope.get("mrope_section") or found.pop("mrope_section"))},
        }
        found.pop("mrope_section", None)
        # The head is a tensor of its own in every file, also where the base model ties it.
        return LanguageConfig(**found, tie_word_embeddings=False)

    def build_mllm(self, config: SvacConfig) -> Mllm:
        """Build vision tower and language model with random weights."""
        from svac_backend.svac.language import qwen_vl

        return qwen_vl.QwenVl(config)

    def fitted(self, config: SvacConfig) -> Callable[[Image, tuple[int, int]], Image]:
        """Return what resizes an image twice, to the size of a frame; see `qwen_pixels.fit`."""
        from svac_backend.svac.language.qwen_pixels import fit

        vision = cast("QwenVision", config.vision)
        unit, bounds = vision.patch_size * vision.merge, config.method.image_pixels
        return lambda image, frame: fit(image, frame, unit, bounds)


class Qwen25Vl(QwenVl):
    """Sa2VA on Qwen2.5-VL."""

    name, title = "sa2va-qwen2.5-vl", "Sa2VA on Qwen2.5-VL"
    chat = _chat(_SYSTEM)
    kind, own = "qwen2_5_vl", "window_size"
    vision_defaults: ClassVar[dict[str, Any]] = {
        "depth": 32,
        "hidden_size": 3584,
        "num_heads": 16,
        "intermediate_size": 3420,
        "out_hidden_size": 3584,
        "hidden_act": "silu",
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": (7, 15, 23, 31),
    }
    language_defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 152064,
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 29568,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "mrope_section": (16, 24, 24),
    }


class Qwen3Vl(QwenVl):
    """Sa2VA on Qwen3-VL."""

    name, title = "sa2va-qwen3-vl", "Sa2VA on Qwen3-VL"
    chat = _chat("")
    kind, own = "qwen3_vl", "deepstack_visual_indexes"
    vision_defaults: ClassVar[dict[str, Any]] = {
        "depth": 27,
        "hidden_size": 1152,
        "num_heads": 16,
        "intermediate_size": 4304,
        "out_hidden_size": 3584,
        "hidden_act": "gelu_pytorch_tanh",
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": (8, 16, 24),
    }
    language_defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "intermediate_size": 22016,
        "hidden_act": "silu",
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5_000_000.0,
        "mrope_section": (24, 20, 20),
    }


def _only(data: Mapping[str, Any], name: str, allowed: tuple[object, ...]) -> None:
    if data.get(name, allowed[0]) not in allowed:
        raise SvacError(
            f"The checkpoint's config.json has {name} = {data[name]!r}; this version only runs {allowed[0]!r}.",
            "Use ByteDance/Sa2VA-Qwen3-VL-2B or -4B, or Sa2VA-Qwen2_5-VL-3B or -7B, as its authors published it.",
        )
