"""The study's modules, and the smallest model that they run on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svac_backend.svac.config import LanguageConfig, MethodConfig, SamConfig, SvacConfig, VisionConfig
from svac_backend.svac.files.weights import locate
from svac_backend.svac.language.templates import ChatTemplate
from svac_backend.svac.model import Svac


@pytest.fixture(scope="session")
def small_config() -> SvacConfig:
    """Two clips of three frames; four visual tokens an image."""
    return SvacConfig(
        vision=VisionConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=8,
        ),
        language=LanguageConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=32,
            rope_theta=10_000.0,
            tie_word_embeddings=True,
        ),
        sam=SamConfig(
            image_size=64,
            embed_dim=8,
            num_heads=1,
            stages=(1, 1, 2, 1),
            global_att_blocks=(3,),
            window_spec=(8, 4, 4, 2),
            window_pos_embed_bkg_spatial_size=(4, 4),
            d_model=32,
            memory_layers=1,
        ),
        method=MethodConfig(num_clips=2, frames_per_clip=3, grid=(1, 2), template="qwen_chat"),
    )


@pytest.fixture(scope="session")
def small_folder(small_config: SvacConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this configuration with the embedded model's tokenizer; its random weights find something."""
    tokenizer = locate("svac-tiny") / "tokenizer.json"
    words = len(ChatTemplate(tokenizer, small_config.method, 4).tokenizer)
    config = replace(small_config, language=replace(small_config.language, vocab_size=words))
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    model = Svac(config, tokenizer)
    with torch.no_grad():
        model.sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(10.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def small_model(small_folder: Path) -> Svac:
    return Svac.from_pretrained(small_folder, device="cpu", dtype="float32")
