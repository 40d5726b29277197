"""Sa2VA over InternVL2.5 (Qwen2, InternLM2) and InternVL3 (Qwen2): config.json, and tensors' names and ours.

Sources: ByteDance/Sa2VA-1B, -4B, -8B, -26B and Sa2VA-InternVL3-2B, -8B, -14B, with SAM-2.0 Hiera-L. InternVL3 differs
in its template alone, which config.json names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from svac_backend.errors import SvacError
from svac_backend.svac.config import LanguageConfig, SvacConfig, VisionConfig, whitelisted
from svac_backend.svac.families import family
from svac_backend.svac.families.family import Family, Folder, Image
from svac_backend.svac.language.chat_formats import INTERNVL

if TYPE_CHECKING:
    from torch import Tensor

    from svac_backend.svac.language.mllm import Mllm

# What the authors' configuration classes take for a field that config.json leaves out: transformers leaves out
# what equals the class's default.
_VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 3200,
    "num_hidden_layers": 48,
    "num_attention_heads": 25,
    "intermediate_size": 12800,
    "image_size": 224,
    "patch_size": 14,
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}
_LANGUAGE_DEFAULTS: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
_LANGUAGES: dict[str, dict[str, Any]] = {
    "Qwen2ForCausalLM": {
        "architecture": "qwen2",
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
    },
    "InternLM2ForCausalLM": {
        "architecture": "llama",
        "vocab_size": 103168,
        "intermediate_size": 11008,
        "max_position_embeddings": 2048,
    },
}
_TEMPLATES = {"qwen2": "phi3_chat", "llama": "internlm2_chat"}
_ROPE = ("default", "dynamic", "linear", "yarn", "llama3")

_BLOCK = r"^vision_model\.encoder\.layers\.(\d+)\."
_OUR_BLOCK = r"mllm.vision_model.encoder.layer.\1."
_LAYER = r"^language_model\.model\.layers\.(\d+)\."
_OUR_LAYER = r"mllm.language_model.model.layers.\1."
_RULES = [
    (re.compile(pattern), target)
    for pattern, target in (
        (r"^vision_model\.embeddings\.class_embedding$", "mllm.vision_model.embeddings.cls_token"),
        (
            r"^vision_model\.embeddings\.position_embedding$",
            "mllm.vision_model.embeddings.position_embeddings",
        ),
        (
            r"^vision_model\.embeddings\.patch_embedding\.",
            "mllm.vision_model.embeddings.patch_embeddings.projection.",
        ),
        (_BLOCK + r"norm1\.", _OUR_BLOCK + "layernorm_before."),
        (_BLOCK + r"norm2\.", _OUR_BLOCK + "layernorm_after."),
        (_BLOCK + r"attn\.proj\.", _OUR_BLOCK + "attention.projection_layer."),
        (_BLOCK + r"attn\.(q|k)_norm\.", _OUR_BLOCK + r"attention.\2_norm."),
        (_BLOCK + r"ls([12])$", _OUR_BLOCK + r"lambda_\2"),
        (_BLOCK + r"mlp\.", _OUR_BLOCK + "mlp."),
        # InternLM2
        (r"^language_model\.model\.tok_embeddings\.", "mllm.language_model.model.embed_tokens."),
        (r"^language_model\.output\.", "mllm.language_model.lm_head."),
        (_LAYER + r"attention_norm\.", _OUR_LAYER + "input_layernorm."),
        (_LAYER + r"ffn_norm\.", _OUR_LAYER + "post_attention_layernorm."),
        (_LAYER + r"attention\.wo\.", _OUR_LAYER + "self_attn.o_proj."),
        (_LAYER + r"feed_forward\.w1\.", _OUR_LAYER + "mlp.gate_proj."),
        (_LAYER + r"feed_forward\.w3\.", _OUR_LAYER + "mlp.up_proj."),
        (_LAYER + r"feed_forward\.w2\.", _OUR_LAYER + "mlp.down_proj."),
        # the same for all
        (r"^language_model\.", "mllm.language_model."),
        (r"^mlp1\.", "mllm.mlp1."),
        (r"^text_hidden_fcs\.(\d+)\.", r"mllm.text_hidden_fcs.0.\1."),
    )
]
_QKV = re.compile(_BLOCK + r"attn\.qkv\.(weight|bias)$")
_WQKV = re.compile(_LAYER + r"attention\.wqkv\.weight$")


class Sa2va(Family):
    """Sa2VA over InternVL."""

    name, preset, title = "sa2va", "sa2va", "Sa2VA (InternVL2.5 or InternVL3)"
    chat = INTERNVL
    embeddings = (
        "language_model.model.embed_tokens.weight",
        "language_model.model.tok_embeddings.weight",
    )
    rules = _RULES
    trained_whole = ("mllm.text_hidden_fcs.", "mllm.mlp1.", "sam.sam_mask_decoder.")
    marks = (
        "mllm.vision_model.embeddings.cls_token",
        "sam.no_mem_embed",
        "mllm.language_model.model.norm.weight",
    )

    def recognises(self, folder: Folder) -> bool:
        """Return whether config.json describes an InternVL language model, or its classes or its name say Sa2VA."""
        return bool(folder.part("llm_config")) or folder.says("sa2va")

    def read_config(self, data: Mapping[str, Any]) -> SvacConfig:
        """Turn a published config.json into ours.

        Only known fields are taken: published files carry settings of their authors' machines, and tile limits
        (`min_dynamic_patch`, `max_dynamic_patch`) that video never uses.

        Raises:
            SvacError: a field asks for something that this model does not do.
        """
        vision, language = data.get("vision_config") or {}, data.get("llm_config") or {}
        if not vision or not language:
            raise SvacError(
                "config.json describes no Sa2VA model (vision_config and llm_config).",
                "Set SVAC_MODEL to a Sa2VA or SaSaSa2VA checkpoint (InternVL2.5), or to one of ours.",
            )
        _refuse(data, "select_layer", -1)
        size = vision.get("image_size", _VISION_DEFAULTS["image_size"])
        if data.get("force_image_size"):
            _refuse(data, "force_image_size", size)
        if language.get("use_sliding_window"):
            _refuse(language, "use_sliding_window", False)
        spoken = _language(language)
        template = str(data.get("template") or _TEMPLATES[spoken.architecture]).replace("-", "_")
        _one_of("template", template, self.chat.templates)
        shuffle: Any = data.get("ps_version", "v1")
        _one_of("ps_version", shuffle, ("v1", "v2"))
        config = SvacConfig(
            vision=VisionConfig(**(_VISION_DEFAULTS | whitelisted(VisionConfig, vision))),
            language=spoken,
            sam=family.SAM,
            downsample_ratio=data.get("downsample_ratio", 0.5),
            ps_version=shuffle,
            family=self.name,
        ).with_preset(self.preset)
        return replace(config, method=replace(config.method, template=template))

    def convert(self, key: str, tensor: Tensor, config: SvacConfig) -> dict[str, Tensor]:
        """See `Family`: packed projections are split, everything else is renamed."""
        if match := _QKV.match(key):
            base = f"mllm.vision_model.encoder.layer.{match[1]}.attention."
            parts = zip("qkv", tensor.chunk(3), strict=True)
            return {f"{base}{name}_proj.{match[2]}": part for name, part in parts}
        if match := _WQKV.match(key):
            base = f"mllm.language_model.model.layers.{match[1]}.self_attn."
            return _split_wqkv(base, tensor, config.language)
        return super().convert(key, tensor, config)

    def build_mllm(self, config: SvacConfig) -> Mllm:
        """See `Family`."""
        from svac_backend.svac.language.internvl import InternVl

        return InternVl(config)

    def fitted(self, config: SvacConfig) -> Callable[[Image, tuple[int, int]], Image]:
        """See `Family`: every image becomes a square, whatever its shape."""
        from svac_backend.svac.cpu import resampling

        return lambda image, _: resampling.resize(image, config.vision.image_size)

    def tokens_per_image(self, config: SvacConfig) -> int:
        """See `Family`."""
        return config.tokens_per_image


def _split_wqkv(base: str, tensor: Tensor, language: LanguageConfig) -> dict[str, Tensor]:
    """Split InternLM2's packed projection: for each kv head its queries, then its key, then its value."""
    groups = language.num_attention_heads // language.num_key_value_heads
    head = language.hidden_size // language.num_attention_heads
    if tensor.shape[0] != language.num_key_value_heads * (groups + 2) * head:
        raise SvacError(
            f"The checkpoint has another shape of {base}wqkv: {tuple(tensor.shape)}.",
            "Check that weights and config.json belong together, or download the model again.",
        )
    packed = tensor.view(language.num_key_value_heads, groups + 2, head, -1)
    parts = {"q": packed[:, :-2], "k": packed[:, -2], "v": packed[:, -1]}
    return {f"{base}{n}_proj.weight": part.reshape(-1, tensor.shape[1]) for n, part in parts.items()}


def _language(data: Mapping[str, Any]) -> LanguageConfig:
    """Read `llm_config`."""
    named = [*(data.get("architectures") or []), str(data.get("model_type", ""))]
    known = [
        name for name in _LANGUAGES if name in named or name.removesuffix("ForCausalLM").lower() in named
    ]
    if not known:
        raise _unsupported("llm_config.architectures", named[0], " or ".join(_LANGUAGES))
    defaults = _LANGUAGE_DEFAULTS | _LANGUAGES[known[0]]
    fields = defaults | whitelisted(LanguageConfig, data)
    fields |= {"architecture": defaults["architecture"], **_rope(data)}
    fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    return LanguageConfig(**fields)


def _rope(data: Mapping[str, Any]) -> dict[str, Any]:
    """Read the rotary embedding: `rope_theta` and `rope_scaling` (old), `rope_parameters` (transformers 5)."""
    rope = dict(data.get("rope_parameters") or data.get("rope_scaling") or {})
    theta = rope.pop("rope_theta", None) or data.get("rope_theta") or 10000.0
    old, new = rope.pop("type", None), rope.pop("rope_type", None)
    kind = new or old or "default"
    if kind not in _ROPE:
        raise _unsupported("rope_scaling", kind, ", ".join(_ROPE))
    scaling = None if kind == "default" else {"rope_type": kind, **rope}
    return {"rope_theta": float(theta), "rope_scaling": scaling}


def _refuse(data: Mapping[str, Any], name: str, only: object) -> None:
    if data.get(name, only) != only:
        raise _unsupported(name, data[name], repr(only))


def _one_of(name: str, value: object, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise _unsupported(name, value, " or ".join(allowed))


def _unsupported(name: str, value: object, allowed: str) -> SvacError:
    return SvacError(
        f"The checkpoint's config.json has {name} = {value!r}; this version only runs {allowed}.",
        "Choose a checkpoint that its authors published for Sa2VA, Sa2VA-i or SaSaSa2VA (InternVL2.5 or InternVL3).",
    )
