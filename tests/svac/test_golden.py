"""Parity with the published Sa2VA and SaSaSa2VA code on tiny weights, by the real key mapping and the real path."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svac_backend.svac.astc import plan
from svac_backend.svac.config import LanguageConfig, SvacConfig, VisionConfig, whitelisted
from svac_backend.svac.families.registry import family_of
from svac_backend.svac.files import checkpoints
from svac_backend.svac.model import Svac
from svac_backend.svac.sam import decoding
from svac_backend.video.reader import ArrayVideo
from tests.svac.published_folders import TINY_SAM, golden_state

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden"

QK_NORM = {"qk_normalization": True, "qkv_bias": False, "norm_type": "rms_norm"}
INTERNVL3 = {"template": "qwen_chat", "answer_prefix": "Sure, the segmentation result is "}
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
    "sa2va_internvl3_8f": ("sa2va", "sa2va", "the red circle in this image.", INTERNVL3, {}, "qwen2"),
    "sa2vai_3f": ("sa2va-i", "sa2vai", "the red circle in this image.", {}, {}, "qwen2"),
    "sa2vai_12f": ("sa2va-i", "sa2vai", "the red circle in this image.", {}, {}, "qwen2"),
}


def golden_model(case: str) -> tuple[Svac, str]:
    """Build the tiny model of a case with the published weights' stand-ins; returns it and its expression."""
    preset, manifest, expression, method, vision, architecture = CASES[case]
    kind = "sasasa2va" if preset == "sasasa2va" else "sa2va"
    raw = json.loads((GOLDEN / f"tiny_config_{kind}.json").read_text())
    config = SvacConfig(
        vision=VisionConfig(**(whitelisted(VisionConfig, raw["vision_config"]) | vision)),
        language=LanguageConfig(
            **(whitelisted(LanguageConfig, raw["llm_config"]) | {"architecture": architecture})
        ),
        sam=replace(TINY_SAM, original_decoder=preset == "sa2va-i"),
        family=preset,
    ).with_preset(preset)
    # The cases' questions end with a full stop of their own.
    config = replace(config, method=replace(config.method, question="Please segment {exp}", **method))
    model = Svac(config, GOLDEN / "tokenizer" / "tokenizer.json")
    state = golden_state(GOLDEN, manifest)
    ours = family_of(config).convert_all(((k, torch.from_numpy(v)) for k, v in state.items()), config)
    checkpoints.load_into(model, ours)
    return model.eval(), expression


class Trace:
    """What every stage of one run gave, caught by hooks: the path that users take is the one that is measured."""

    def __init__(self, model: Svac, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, list[torch.Tensor]] = {}
        mllm, sam = model.mllm, model.sam
        mllm.vision_model.register_forward_pre_hook(lambda _, given: self.keep("pixel_values", given[0]))
        mllm.vision_model.register_forward_hook(
            lambda _, given, out: self.keep("vit_last", out.last_hidden_state)
        )
        mllm.mlp1.register_forward_hook(lambda _, given, out: self.keep("vit_embeds", out))
        mllm.language_model.model.norm.register_forward_hook(
            lambda _, given, out: self.keep("llm_last", out[0])
        )
        mllm.text_hidden_fcs[0].register_forward_hook(self.seg)
        sam.image_encoder.trunk.patch_embed.register_forward_pre_hook(
            lambda _, given: self.keep("g_pixel", given[0])
        )
        upsample = decoding.masks_at_size

        def logits(small: torch.Tensor, size: int, height: int, width: int) -> torch.Tensor:
            large = torch.nn.functional.interpolate(
                small[:, None].float(), size=(size, size), mode="bilinear"
            )
            self.keep("sam_logits", large.transpose(0, 1))  # [1, objects, S, S]
            return upsample(small, size, height, width)

        monkeypatch.setattr(decoding, "masks_at_size", logits)
        once = decoding.masks_in_one_step

        def key_frame(small: torch.Tensor, height: int, width: int) -> torch.Tensor:
            masks = once(small, height, width)
            self.keep("anchor_logits", small[None])
            self.keep("anchor_masks", masks[None])
            return masks

        monkeypatch.setattr(decoding, "masks_in_one_step", key_frame)

    def keep(self, name: str, value: torch.Tensor) -> None:
        self.found.setdefault(name, []).append(value.detach().float())

    def seg(self, _: object, given: tuple[torch.Tensor], out: torch.Tensor) -> None:
        self.keep("seg_hidden", given[0])
        self.keep("seg_embed", out)

    def __getitem__(self, name: str) -> np.ndarray:
        return torch.cat(self.found[name]).numpy()


# The stages, how each is cut down in the files, and how far it may be from the published code.
STAGES: dict[str, tuple[str, Callable[[np.ndarray, np.lib.npyio.NpzFile], np.ndarray], float]] = {
    "pixel_values_sub": ("pixel_values", lambda x, _: x[:, :, ::32, ::32], 0),
    "vit_last_sub": ("vit_last", lambda x, _: x[:, ::64], 1e-4),
    "vit_embeds_01": ("vit_embeds", lambda x, _: x[:2], 1e-4),
    "vit_embeds_sub": ("vit_embeds", lambda x, _: x[:, ::32], 1e-4),
    "llm_last_prompt_sub": ("llm_last", lambda x, g: x[: len(g["input_ids"]) : 64], 1e-4),
    "llm_last_gen": ("llm_last", lambda x, g: x[len(g["input_ids"]) :][: len(g["sequences"]) - 1], 1e-4),
    "seg_hidden": ("seg_hidden", lambda x, _: x, 1e-4),
    "seg_embed": ("seg_embed", lambda x, _: x, 1e-4),
    "g_pixel_sub": ("g_pixel", lambda x, g: x[encoded(g), :, ::16, ::16], 0),
    "anchor_logits_sub": ("anchor_logits", lambda x, g: x[places(g)][:, :, ::2, ::2], 1e-3),
    "sam_logits_sub": ("sam_logits", lambda x, _: x[:, :, ::8, ::8], 1e-3),
    "sam_logits_f0": ("sam_logits", lambda x, _: x[0, :, ::2, ::2], 1e-3),
}


def places(golden: np.lib.npyio.NpzFile) -> list[int]:
    """Return where the key frames' indices, which repeat in a short video, stand among them without repetition."""
    indices = golden["sample_idx"].tolist()
    return [sorted(set(indices)).index(i) for i in indices]


def encoded(golden: np.lib.npyio.NpzFile) -> list[int]:
    """Return where each frame stands among those that were encoded: each once, the key frames before the others."""
    count = len(golden["frames"])
    key_frames = sorted(set(golden["sample_idx"].tolist())) if "sample_idx" in golden else []
    order = [*key_frames, *(i for i in range(count) if i not in key_frames)]
    return [order.index(i) for i in range(count)]


def packed(golden: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """Return masks of one object, bool [T, H, W]."""
    shape = tuple(golden[f"{name}_shape"])
    bits = np.unpackbits(golden[f"{name}_packed"])[: np.prod(shape)]
    return bits.reshape(-1, *shape[-2:]).astype(bool)


@pytest.mark.parametrize("case", CASES)
def test_every_stage_equals_the_published_code(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, expression = golden_model(case)
    golden = np.load(GOLDEN / f"{case}.npz")
    video = ArrayVideo(golden["frames"])
    clips = plan(len(video), model.config.method)
    images = clips.num_clips * (2 if model.config.method.astc else clips.frames_per_clip)

    prompt = model.chat.build(expression, images, clips.num_clips)
    asked = np.concatenate([prompt.prefix, prompt.suffix[: prompt.answer_start]])
    assert np.array_equal(asked, golden["input_ids"])
    assert np.array_equal(prompt.suffix[prompt.answer_start :], golden["sequences"])

    trace = Trace(model, monkeypatch)
    masks = np.stack([frame.masks[0] for frame in model.segment(video, [expression])])
    for field, (stage, cut, tolerance) in STAGES.items():
        if field in golden:
            got, expected = cut(trace[stage], golden), golden[field]
            # Some cases have no axis for the one object.
            assert got.size == expected.size, field
            difference = np.abs(got.reshape(expected.shape) - expected).max()
            assert difference <= tolerance, f"{field} is off by {difference}"
    assert {"seg_embed", "masks_packed"} <= set(golden)

    assert (masks != packed(golden, "masks")).sum() == 0
    if "sample_idx" in golden:
        assert list(clips.selected) == sorted(set(golden["sample_idx"].tolist()))
        key_frames = trace["anchor_masks"][places(golden)][:, 0] > 0
        assert (key_frames != packed(golden, "anchor_masks")).sum() == 0


@pytest.mark.parametrize("decoder", ["sam_mask_decoder", "original_mask_decoder"])
def test_only_what_sa2va_i_tracks_is_masked_where_no_object_is(decoder: str) -> None:
    """The tuned decoder's object score changes nothing; the original's empties the frames between key frames."""
    model, expression = golden_model("sa2vai_12f")
    golden = np.load(GOLDEN / "sa2vai_12f.npz")
    getattr(model.sam, decoder).pred_obj_score_head.layers[2].bias.data.fill_(-3.0)
    masks = np.stack([f.masks[0] for f in model.segment(ArrayVideo(golden["frames"]), [expression])])
    expected = packed(golden, "masks")
    if decoder == "original_mask_decoder":
        tracked = sorted(set(range(12)) - set(golden["sample_idx"].tolist()))
        expected[tracked] = False
    assert expected.any()
    assert (masks != expected).sum() == 0


def test_windows_and_expressions_in_one_batch_change_no_mask() -> None:
    model, expression = golden_model("sasasa2va_internlm2_qknorm_6f")
    video = ArrayVideo(np.load(GOLDEN / "sasasa2va_internlm2_qknorm_6f.npz")["frames"])
    alone = [frame.masks[0] for frame in model.segment(video, [expression])]
    together = list(model.segment(video, ["the blue square.", expression], window=4))
    assert [frame.index for frame in together] == list(range(6))
    assert all(np.array_equal(a, b.masks[1]) for a, b in zip(alone, together, strict=True))
