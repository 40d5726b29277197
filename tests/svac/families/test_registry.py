"""Which family a folder is of; what can't run is refused by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from svac_backend.errors import SvacError
from svac_backend.svac.config import PRESETS, SvacConfig
from svac_backend.svac.families import registry
from svac_backend.svac.families.family import Folder

QWEN2 = {"llm_config": {"architectures": ["Qwen2ForCausalLM"]}, "architectures": ["Sa2VAChatModel"]}
TUNED = "grounding_encoder.sam2_model.sam_mask_decoder_modified.iou_token.weight"


@pytest.mark.parametrize(
    ("data", "keys", "name", "family"),
    [
        (QWEN2, {"grounding_encoder.sam2_model.sam_mask_decoder.iou_token.weight"}, "Sa2VA-4B", "sa2va"),
        (QWEN2 | {"template": "qwen_chat"}, set(), "Sa2VA-InternVL3-2B", "sa2va"),
        (QWEN2, {TUNED}, "whatever", "sa2va-i"),
        (QWEN2 | {"architectures": ["SaSaSa2VAChatModel"]}, set(), "whatever", "sasasa2va"),
        (QWEN2, set(), "models--QuanzhuNiu--SaSaSa2VA-4B", "sasasa2va"),
    ],
)
def test_a_folder_is_recognised(data: dict[str, Any], keys: set[str], name: str, family: str) -> None:
    found = registry.recognise(Folder(data, frozenset(keys), name))
    assert found.name == family
    assert found.preset in PRESETS
    assert set(found.trained_whole) >= {"mllm.text_hidden_fcs.", "sam.sam_mask_decoder."}


@pytest.mark.parametrize(
    ("data", "keys", "reason"),
    [
        (
            {"architectures": ["Sa2VAChatModelQwen"], "vision_config": {"model_type": "qwen3_vl"}},
            {"grounding_encoder.sam2_model.backbone.vision_backbone.trunk.pos_embed"},
            "SAM 3",
        ),
        ({"architectures": ["Sa2VAChatModelLlava"]}, set(), "LLaVA"),
        (QWEN2 | {"llm_config": {"architectures": ["Qwen3ForCausalLM"]}}, set(), "Qwen3ForCausalLM"),
        ({"architectures": ["LlamaForCausalLM"]}, set(), "no model that this version knows"),
    ],
)
def test_what_can_not_run_is_refused_by_name_and_something_else_is_named(
    data: dict[str, Any], keys: set[str], reason: str
) -> None:
    with pytest.raises(SvacError, match=reason) as caught:
        registry.recognise(Folder(data, frozenset(keys)))
    assert "Sa2VA" in caught.value.hint


def test_every_family_is_found_by_its_name_and_no_other_is() -> None:
    names = [family.name for family in registry.FAMILIES]
    assert len(set(names)) == len(names)
    for family in registry.FAMILIES:
        assert registry.family_of(SvacConfig(family=family.name)) is family
    with pytest.raises(SvacError, match="'sa3va'"):
        registry.named("sa3va")


def test_recognising_needs_no_torch() -> None:
    script = "import sys, svac_backend.svac.files.weights; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"
