"""The golden cases' tiny weights, written the way the authors publish theirs."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from svac_backend.svac.config import SamConfig

TINY_SAM = SamConfig(image_size=256, embed_dim=16, num_heads=1, stages=(1, 2, 3, 1), global_att_blocks=(4, 5))


def golden_state(golden: Path, manifest: str) -> dict[str, Any]:
    """Return the weights of a manifest: published key -> f32 array."""
    spec = importlib.util.spec_from_file_location("golden_weights", golden / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    state: dict[str, Any] = weights.state_dict(f"tiny_manifest_{manifest}.json")
    return state


def published_folder(folder: Path, golden: Path, kind: str, *, shards: int = 3) -> Path:
    """Write a model folder in the published layout: the language model in bf16, the rest in f32.

    Args:
        folder: where; made.
        golden: the folder of the golden cases.
        kind: `sa2va`, `sa2vai` or `sasasa2va`.
        shards: number of safetensors files.
    """
    folder.mkdir(parents=True)
    name = {"sa2va": "Sa2VA", "sa2vai": "Sa2VA", "sasasa2va": "SaSaSa2VA"}[kind]
    raw = json.loads((golden / f"tiny_config_{name.lower()}.json").read_text())
    config = {
        "architectures": [f"{name}ChatModel"],
        "auto_map": {"AutoModel": f"modeling_{name.lower()}_chat.{name}ChatModel"},
        "model_type": f"{name.lower()}_chat",
        "vision_config": raw["vision_config"],
        "llm_config": raw["llm_config"] | {"attn_implementation": "flash_attention_2"},
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 448,
        "max_dynamic_patch": 12,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "phi3_chat",
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in (golden / "tokenizer").glob("*.json"):
        shutil.copy(file, folder / file.name)
    state = {key: torch.from_numpy(value) for key, value in golden_state(golden, kind).items()}
    state = {k: v.bfloat16() if k.startswith("language_model") else v for k, v in state.items()}
    names = {key: f"model-{1 + i % shards:05d}-of-{shards:05d}.safetensors" for i, key in enumerate(state)}
    for file_name in sorted(set(names.values())):
        save_file({k: v for k, v in state.items() if names[k] == file_name}, folder / file_name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder
