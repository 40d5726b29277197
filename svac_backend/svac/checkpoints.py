"""Published key layouts <-> ours, and reading and writing safetensors. No pickle, no remote code.

Sources: the state dicts of ByteDance/Sa2VA-* and QuanzhuNiu/SaSaSa2VA-* (InternVL2.5 with Qwen2 or InternLM2, SAM-2.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from svac_backend.errors import SvacError
from svac_backend.svac.config import LanguageConfig, SvacConfig, VisionConfig, whitelisted
from svac_backend.svac.weights import weight_files

_SAM = "grounding_encoder.sam2_model."
_VISION = [
    (r"^vision_model\.embeddings\.class_embedding$", "mllm.vision_model.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "mllm.vision_model.embeddings.position_embeddings"),
    (
        r"^vision_model\.embeddings\.patch_embedding\.",
        "mllm.vision_model.embeddings.patch_embeddings.projection.",
    ),
    (
        r"^vision_model\.encoder\.layers\.(\d+)\.norm1\.",
        r"mllm.vision_model.encoder.layer.\1.layernorm_before.",
    ),
    (
        r"^vision_model\.encoder\.layers\.(\d+)\.norm2\.",
        r"mllm.vision_model.encoder.layer.\1.layernorm_after.",
    ),
    (
        r"^vision_model\.encoder\.layers\.(\d+)\.attn\.proj\.",
        r"mllm.vision_model.encoder.layer.\1.attention.projection_layer.",
    ),
    (
        r"^vision_model\.encoder\.layers\.(\d+)\.attn\.(q|k)_norm\.",
        r"mllm.vision_model.encoder.layer.\1.attention.\2_norm.",
    ),
    (r"^vision_model\.encoder\.layers\.(\d+)\.ls([12])$", r"mllm.vision_model.encoder.layer.\1.lambda_\2"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.mlp\.", r"mllm.vision_model.encoder.layer.\1.mlp."),
]
_INTERNLM2 = [
    (r"^language_model\.model\.tok_embeddings\.", "mllm.language_model.model.embed_tokens."),
    (r"^language_model\.output\.", "mllm.language_model.lm_head."),
    (
        r"^language_model\.model\.layers\.(\d+)\.attention_norm\.",
        r"mllm.language_model.model.layers.\1.input_layernorm.",
    ),
    (
        r"^language_model\.model\.layers\.(\d+)\.ffn_norm\.",
        r"mllm.language_model.model.layers.\1.post_attention_layernorm.",
    ),
    (
        r"^language_model\.model\.layers\.(\d+)\.attention\.wo\.",
        r"mllm.language_model.model.layers.\1.self_attn.o_proj.",
    ),
    (
        r"^language_model\.model\.layers\.(\d+)\.feed_forward\.w1\.",
        r"mllm.language_model.model.layers.\1.mlp.gate_proj.",
    ),
    (
        r"^language_model\.model\.layers\.(\d+)\.feed_forward\.w3\.",
        r"mllm.language_model.model.layers.\1.mlp.up_proj.",
    ),
    (
        r"^language_model\.model\.layers\.(\d+)\.feed_forward\.w2\.",
        r"mllm.language_model.model.layers.\1.mlp.down_proj.",
    ),
]
_COMMON = [
    (r"^language_model\.", "mllm.language_model."),
    (r"^mlp1\.", "mllm.mlp1."),
    (r"^text_hidden_fcs\.(\d+)\.", r"mllm.text_hidden_fcs.0.\1."),
]
_RULES = [(re.compile(pattern), target) for pattern, target in _VISION + _INTERNLM2 + _COMMON]
_QKV = re.compile(r"^vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.(weight|bias)$")
_WQKV = re.compile(r"^language_model\.model\.layers\.(\d+)\.attention\.wqkv\.weight$")


def convert(key: str, tensor: Tensor, config: SvacConfig) -> dict[str, Tensor]:
    """Return our keys and tensors of one published key.

    Raises:
        SvacError: the key belongs to no part of the model.
    """
    if key.startswith(_SAM):
        return {"sam." + key[len(_SAM) :].replace(".g_weight", ".gamma"): tensor}
    if match := _QKV.match(key):
        base = f"mllm.vision_model.encoder.layer.{match[1]}.attention."
        return {f"{base}{n}_proj.{match[2]}": part for n, part in zip("qkv", tensor.chunk(3), strict=True)}
    if match := _WQKV.match(key):
        language = config.language
        groups = language.num_attention_heads // language.num_key_value_heads
        head = language.hidden_size // language.num_attention_heads
        packed = tensor.view(language.num_key_value_heads, groups + 2, head, -1)
        base = f"mllm.language_model.model.layers.{match[1]}.self_attn."
        parts = {"q": packed[:, :-2], "k": packed[:, -2], "v": packed[:, -1]}
        return {f"{base}{n}_proj.weight": part.reshape(-1, tensor.shape[1]) for n, part in parts.items()}
    for pattern, target in _RULES:
        if pattern.match(key):
            return {pattern.sub(target, key): tensor}
    raise SvacError(
        f"The checkpoint holds an unknown tensor {key!r}.",
        "Use a Sa2VA or SaSaSa2VA checkpoint (InternVL2.5).",
    )


def convert_all(published: Iterable[tuple[str, Tensor]], config: SvacConfig) -> dict[str, Tensor]:
    """Convert a whole published state dict."""
    return {name: part for key, tensor in published for name, part in convert(key, tensor, config).items()}


def load_into(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into the module, casting to its dtypes; a missing lm_head takes the embedding's weights.

    Raises:
        SvacError: tensors are missing, too many, or of another shape.
    """
    own = module.state_dict()
    state = dict(state)
    head, embedding = "mllm.language_model.lm_head.weight", "mllm.language_model.model.embed_tokens.weight"
    if head in own and head not in state and embedding in state:
        state[head] = state[embedding]
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    for problem, keys in (("lacks", missing), ("has the unknown", extra), ("has another shape of", wrong)):
        if keys:
            raise SvacError(
                f"The checkpoint {problem} {len(keys)} tensor(s), for example {keys[0]}.",
                "Check that weights and config.json belong together, or download the model again.",
            )
    with torch.no_grad():
        for key, target in own.items():
            target.copy_(state[key])


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Read all safetensors files of a folder.

    Raises:
        SvacError: a file is damaged.
    """
    state: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(str(path), framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (safe_open is no dict)
                    state[key] = file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise SvacError(f"{path} is damaged ({error}).", "Download the model again.") from error
    return state


def write(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write a safetensors file; `dtype` casts floating tensors."""
    tensors = {
        key: (t.to(dtype) if dtype is not None and t.is_floating_point() else t).contiguous().cpu().clone()
        for key, t in state.items()
    }
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def published_config(folder: Path) -> SvacConfig | None:
    """Read the `config.json` of a published checkpoint, or return None when it is one of ours.

    Only known fields are taken: published files carry settings of their authors' machines.
    """
    data = json.loads((folder / "config.json").read_text())
    if data.get("format") == "svac-backend":
        return None
    architecture = " ".join(data.get("architectures", []))
    preset = "sasasa2va" if "SaSaSa2VA" in architecture or "sasasa2va" in folder.name.lower() else "sa2va"
    vision, language = data.get("vision_config", {}), data.get("llm_config", {})
    llama = "internlm2" in str(language.get("model_type", "")).lower() or "InternLM2" in str(
        language.get("architectures")
    )
    base = SvacConfig(
        vision=VisionConfig(**whitelisted(VisionConfig, vision)),
        language=LanguageConfig(
            **{**whitelisted(LanguageConfig, language), "architecture": "llama" if llama else "qwen2"}
        ),
        downsample_ratio=data.get("downsample_ratio", 0.5),
        ps_version=data.get("ps_version", "v1"),
    ).with_preset(preset)
    template = data.get("template", "internlm2_chat" if llama else "phi3_chat")
    return replace(base, method=replace(base.method, template=template))
