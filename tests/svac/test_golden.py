"""Parity with the published Sa2VA and SaSaSa2VA code on tiny weights, by the real key mapping and the real path."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svac_backend.svac import checkpoints, published
from svac_backend.svac.clips import plan
from svac_backend.svac.config import LanguageConfig, SamConfig, SvacConfig, VisionConfig, whitelisted
from svac_backend.svac.model import Svac
from svac_backend.video.reader import ArrayVideo

GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden is not here")

TINY_SAM = SamConfig(image_size=256, embed_dim=16, num_heads=1, stages=(1, 2, 3, 1), global_att_blocks=(4, 5))
QK_NORM = {"qk_normalization": True, "qkv_bias": False, "norm_type": "rms_norm"}
INTERNLM2 = {"template": "internlm2_chat", "answer_prefix": "Sure, "}
CASES = {
    "sasasa2va_uniform_23f": (
        "sasasa2va",
        "sasasa2va",
        "the red circle moving right in this image.",
        {},
        {},
        "qwen2",
    ),
    "sasasa2va_wrap_around_12f": (
        "sasasa2va",
        "sasasa2va",
        "the red circle moving right in this image.",
        {"sampling": "wrap_around"},
        {},
        "qwen2",
    ),
    "sasasa2va_internlm2_qknorm_6f": (
        "sasasa2va",
        "internlm2_qknorm",
        "the red circle.",
        INTERNLM2,
        QK_NORM,
        "llama",
    ),
    "sa2va_3f": ("sa2va", "sa2va", "the red circle in this image.", {}, {}, "qwen2"),
    "sa2va_8f": ("sa2va", "sa2va", "the red circle in this image.", {}, {}, "qwen2"),
}


def golden_model(case: str) -> tuple[Svac, str]:
    """Build the tiny model of a case with the published weights' stand-ins; returns it and its expression."""
    preset, manifest, expression, method, vision, architecture = CASES[case]
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    raw = json.loads(
        (GOLDEN / f"tiny_config_{'sa2va' if preset == 'sa2va' else 'sasasa2va'}.json").read_text()
    )
    config = SvacConfig(
        vision=VisionConfig(**(whitelisted(VisionConfig, raw["vision_config"]) | vision)),
        language=LanguageConfig(
            **(whitelisted(LanguageConfig, raw["llm_config"]) | {"architecture": architecture})
        ),
        sam=TINY_SAM,
    ).with_preset(preset)
    # The cases' questions end with a full stop of their own.
    config = replace(config, method=replace(config.method, question="Please segment {exp}", **method))
    model = Svac(config, GOLDEN / "tokenizer" / "tokenizer.json")
    state = weights.state_dict(f"tiny_manifest_{manifest}.json")
    ours = published.convert_all(((k, torch.from_numpy(v)) for k, v in state.items()), config)
    checkpoints.load_into(model, ours)
    return model.eval(), expression


@pytest.mark.parametrize("case", CASES)
def test_masks_and_embeddings_equal_the_published_code(case: str) -> None:
    model, expression = golden_model(case)
    golden = np.load(GOLDEN / f"{case}.npz")
    video = ArrayVideo(golden["frames"])
    clips = plan(len(video), model.config.method)
    images = clips.num_clips * (2 if model.config.method.astc else clips.frames_per_clip)

    prompt = model.prompts.build(expression, images, clips.num_clips)
    asked = np.concatenate([prompt.prefix, prompt.suffix[: prompt.answer_start]])
    assert np.array_equal(asked, golden["input_ids"])
    assert np.array_equal(prompt.suffix[prompt.answer_start :], golden["sequences"])

    embeddings = model.seg_embeddings(video, clips, [expression])[0].numpy()
    assert np.abs(embeddings - golden["seg_embed"]).max() < 1e-4

    shape = tuple(golden["masks_shape"])
    expected = (
        np.unpackbits(golden["masks_packed"])[: np.prod(shape)]
        .reshape(shape)
        .astype(bool)
        .reshape(-1, *shape[-2:])
    )
    masks = np.stack([frame.masks[0] for frame in model.segment(video, [expression])])
    assert (masks != expected).sum() == 0


def test_windows_and_expressions_in_one_batch_change_no_mask() -> None:
    model, expression = golden_model("sasasa2va_internlm2_qknorm_6f")
    video = ArrayVideo(np.load(GOLDEN / "sasasa2va_internlm2_qknorm_6f.npz")["frames"])
    alone = [frame.masks[0] for frame in model.segment(video, [expression])]
    together = list(model.segment(video, ["the blue square.", expression], window=4))
    assert [frame.index for frame in together] == list(range(6))
    assert all(np.array_equal(a, b.masks[1]) for a, b in zip(alone, together, strict=True))
