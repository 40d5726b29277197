"""Tiny Sa2VA models on Qwen2.5-VL and Qwen3-VL with the golden cases' made weights, by the real key mapping."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from svac_backend.svac.config import SvacConfig
from svac_backend.svac.families.family import Folder
from svac_backend.svac.families.registry import family_of, recognise
from svac_backend.svac.files import checkpoints
from svac_backend.svac.model import Svac
from tests.svac.published_folders import TINY_SAM, golden_state

GOLDEN = Path(__file__).parents[1] / "golden"
QWEN_TOKENIZER = GOLDEN / "tokenizer_qwen" / "tokenizer.json"
KINDS = ("qwen3vl", "qwen25vl")


def qwen_config(kind: str) -> SvacConfig:
    """Read the tiny model's config.json, in the published layout; SAM-2 is then as large as the published one."""
    raw = json.loads((GOLDEN / f"tiny_config_{kind}.json").read_text())
    return recognise(Folder(raw)).read_config(raw)


def qwen_model(kind: str, preset: str | None = None, **method: Any) -> Svac:
    """Build the tiny model of a kind.

    Args:
        kind: `qwen3vl` or `qwen25vl`.
        preset: how it runs; None: as its family does.
        method: fields of its method to change.
    """
    config = replace(qwen_config(kind), sam=TINY_SAM)
    state, family = golden_state(GOLDEN, kind), family_of(config)
    model = Svac(config, QWEN_TOKENIZER)
    checkpoints.load_into(
        model, family.convert_all(((k, torch.from_numpy(v)) for k, v in state.items()), config)
    )
    return model.run_as(preset, **method).eval()


def qwen_folder(folder: Path, kind: str) -> Path:
    """Write the tiny model as its authors publish theirs: float32, config.json, tokenizer.json."""
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / f"tiny_config_{kind}.json", folder / "config.json")
    shutil.copy(QWEN_TOKENIZER, folder / "tokenizer.json")
    state = {key: torch.from_numpy(value) for key, value in golden_state(GOLDEN, kind).items()}
    save_file(state, folder / "model.safetensors")
    return folder
