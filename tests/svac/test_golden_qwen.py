"""Parity with the published Sa2VA code on Qwen2.5-VL and Qwen3-VL: tiny weights, the real key mapping and path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights

from svac_backend.errors import SvacError
from svac_backend.svac.astc import plan
from svac_backend.svac.families import family as families
from svac_backend.svac.families.family import Folder
from svac_backend.svac.families.registry import recognise
from svac_backend.svac.files import checkpoints
from svac_backend.svac.files.weights import model_version
from svac_backend.svac.language.qwen_pixels import image_sizes
from svac_backend.svac.model import Svac
from svac_backend.svac.sam import decoding
from svac_backend.svac.streaming import FrameFeed
from svac_backend.video.reader import ArrayVideo
from tests.svac.published_folders import TINY_SAM
from tests.svac.qwen_models import GOLDEN, KINDS, QWEN_TOKENIZER, qwen_config, qwen_folder, qwen_model

pytestmark = pytest.mark.slow

CASES = {
    "sa2va_qwen3vl_8f": "qwen3vl",
    "sa2va_qwen3vl_portrait_3f": "qwen3vl",
    "sa2va_qwen25vl_8f": "qwen25vl",
}
# The cases' question ends with a full stop, as the preset's does.
EXPRESSION = "the red circle"


class Trace:
    """What every stage of one run gave, caught by hooks: the path that users take is the one that is measured."""

    def __init__(self, model: Svac, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, list[torch.Tensor]] = {}
        mllm, language = model.mllm, model.mllm.language_model.model
        mllm.vision_model.register_forward_pre_hook(lambda _, given: self.keep("pixel_values", given[0]))
        mllm.vision_model.register_forward_hook(lambda _, given, out: self.seen(out))
        language.register_forward_pre_hook(
            lambda _, args, given: self.keep("position_ids", given["position_ids"][:, 0].T), with_kwargs=True
        )
        language.norm.register_forward_pre_hook(lambda _, given: self.keep("llm_prenorm", given[0][0]))
        language.norm.register_forward_hook(lambda _, given, out: self.keep("llm_last", out[0]))
        mllm.text_hidden_fcs[0].register_forward_hook(self.seg)
        model.sam.image_encoder.trunk.patch_embed.register_forward_pre_hook(
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

    def keep(self, name: str, value: torch.Tensor) -> None:
        self.found.setdefault(name, []).append(value.detach().float())

    def seen(self, out: Any) -> None:
        self.keep("vit_last", out.last_hidden_state)
        self.keep("vit_embeds", out.pooler_output)
        if deeper := getattr(out, "deepstack_features", None):
            self.keep("deepstack", torch.stack(list(deeper), dim=1))  # [tokens, D, H]

    def seg(self, _: object, given: tuple[torch.Tensor], out: torch.Tensor) -> None:
        self.keep("seg_hidden", given[0])
        self.keep("seg_embed", out)

    def __getitem__(self, name: str) -> np.ndarray:
        return torch.cat(self.found[name]).numpy()


Cut = Callable[[np.ndarray, Any], np.ndarray]


def _prompt(x: np.ndarray, golden: Any) -> np.ndarray:
    return x[: len(golden["input_ids"]) : 64]


def _answer(x: np.ndarray, golden: Any) -> np.ndarray:
    return x[len(golden["input_ids"]) :][: len(golden["sequences"]) - 1]


# The stages, how each is cut down in the files, and how far it may be from the published code.
STAGES: dict[str, tuple[str, Cut, float]] = {
    "pixel_values_sub": ("pixel_values", lambda x, _: x[::61, ::7], 0),
    "vit_last_sub": ("vit_last", lambda x, _: x[::128], 1e-4),
    "vit_embeds_sub": ("vit_embeds", lambda x, _: x[::32], 1e-4),
    "deepstack_sub": ("deepstack", lambda x, _: x[::32].transpose(1, 0, 2), 1e-4),
    "position_ids": ("position_ids", lambda x, g: x[: g["position_ids"].shape[1]].T, 0),
    "llm_prenorm_prompt_sub": ("llm_prenorm", _prompt, 1e-4),
    "llm_prenorm_gen": ("llm_prenorm", _answer, 1e-4),
    "llm_last_prompt_sub": ("llm_last", _prompt, 1e-4),
    "llm_last_gen": ("llm_last", _answer, 1e-4),
    "seg_hidden": ("seg_hidden", lambda x, _: x, 1e-4),
    "seg_embed": ("seg_embed", lambda x, _: x, 1e-4),
    "g_pixel_sub": ("g_pixel", lambda x, _: x[:, :, ::16, ::16], 0),
    "sam_logits_sub": ("sam_logits", lambda x, _: x[:, :, ::8, ::8], 1e-3),
    "sam_logits_f0": ("sam_logits", lambda x, _: x[0, :, ::2, ::2], 1e-3),
}


@pytest.mark.parametrize("case", CASES)
def test_every_stage_equals_the_published_code(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, golden = qwen_model(CASES[case]), np.load(GOLDEN / f"{case}.npz")
    video = ArrayVideo(golden["frames"])
    clips = plan(len(video), model.config.method)

    images = FrameFeed(video, clips, model.config).clip_pixels()
    vision = model.config.vision
    grids = [[1, *(side // vision.patch_size for side in image.shape[:2])] for image in images]
    assert np.array_equal(grids, golden["grid_thw"])
    assert np.array_equal(np.stack(images).transpose(0, 3, 1, 2)[:, :, ::8, ::8], golden["resized_sub"])

    tokens = [height * width // vision.merge**2 for _, height, width in grids]
    prompt = model.chat.build(EXPRESSION, tokens, clips.num_clips)
    asked = torch.cat([prompt.prefix, prompt.suffix[: prompt.answer_start]])
    assert np.array_equal(asked, golden["input_ids"])
    assert np.array_equal(prompt.suffix[prompt.answer_start :], golden["sequences"])

    trace = Trace(model, monkeypatch)
    masks = np.stack([frame.masks[0] for frame in model.segment(video, [EXPRESSION])])
    assert {"seg_embed", "position_ids", "masks_packed"} <= set(golden)
    for field, (stage, cut, tolerance) in STAGES.items():
        if field in golden:
            got, expected = cut(trace[stage], golden), golden[field]
            assert got.size == expected.size, field
            difference = np.abs(got.reshape(expected.shape) - expected).max()
            assert difference <= tolerance, f"{field} is off by {difference}"
    expected_masks = np.unpackbits(golden["masks_packed"])[: masks.size].reshape(masks.shape).astype(bool)
    assert (masks != expected_masks).sum() == 0


def test_frame_sizes_are_those_of_the_published_code() -> None:
    sizes = json.loads((GOLDEN / "qwen_frame_sizes.json").read_text())
    configs = {kind: qwen_config(kind) for kind in KINDS}
    assert len(sizes) > 20
    for frame, expected in sizes.items():
        width, height = (int(side) for side in frame.split("x"))
        for kind, config in configs.items():
            unit = config.vision.patch_size * config.vision.merge
            first, second = image_sizes(height, width, unit, config.method.image_pixels)
            assert list(first[::-1]) == expected["first_wh"], frame
            assert list(second[::-1]) == expected[kind]["second_wh"], (frame, kind)


@pytest.mark.parametrize(("kind", "size"), [("qwen25vl", "3B"), ("qwen3vl", "2B"), ("qwen3vl", "4B")])
def test_every_key_of_the_published_sizes_has_its_place(kind: str, size: str) -> None:
    keys = {k: tuple(v) for k, v in json.loads((GOLDEN / f"keys_{kind}_{size}.json").read_text()).items()}
    raw = full_config(kind, size)
    family = recognise(Folder(raw, frozenset(keys), f"Sa2VA-{kind}-{size}"))
    config = family.with_vocabulary(family.read_config(raw), keys)
    with init_empty_weights():
        model = Svac(config, QWEN_TOKENIZER)
    checkpoints.check(model, keys, config)
    del keys["model.lm_head.weight"], keys["text_hidden_fcs.0.bias"]
    with pytest.raises(SvacError, match="lacks 1 tensor"):
        checkpoints.check(model, keys, config)


# The base models' public sizes; the fields that equal the classes' defaults are left out, as their saving does.
FULL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "3B": (
        {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": True,
        },
        {"hidden_size": 1280, "out_hidden_size": 2048},
    ),
    "2B": (
        {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "tie_word_embeddings": True,
        },
        {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    ),
    "4B": (
        {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "tie_word_embeddings": True,
        },
        {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "out_hidden_size": 2560,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    ),
}


def full_config(kind: str, size: str) -> dict[str, Any]:
    """A config.json as the authors' saving would write it."""
    name = {"qwen25vl": "qwen2_5_vl", "qwen3vl": "qwen3_vl"}[kind]
    text, vision = FULL[size]
    return {
        "architectures": ["Sa2VAChatModelQwen"],
        "model_type": "sa2va_chat",
        "template": "qwen_chat",
        "text_config": text | {"model_type": f"{name}_text", "architectures": ["Sa2VAChatModelQwen"]},
        "vision_config": vision | {"model_type": name},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_folder_is_loaded_and_saved_as_ours(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "SAM", TINY_SAM)
    folder = qwen_folder(tmp_path / "published", kind)
    model = Svac.from_pretrained(folder, device="cpu")
    assert model_version(str(folder)).startswith("sa2va-")
    assert model.config.language.vocab_size == 287
    expected = qwen_model(kind).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    half = Svac.from_pretrained(folder, device="cpu", dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path / "ours")
    again = Svac.from_pretrained(tmp_path / "ours", device="cpu")
    assert again.config == model.config
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


def folder_of(kind: str, **changes: Any) -> Folder:
    raw = json.loads((GOLDEN / f"tiny_config_{kind}.json").read_text())
    keys = frozenset(json.loads((GOLDEN / f"tiny_manifest_{kind}.json").read_text()))
    return Folder(raw | changes, keys, f"Sa2VA-{kind}")


@pytest.mark.parametrize(
    ("kind", "own"), [("qwen25vl", "window_size"), ("qwen3vl", "deepstack_visual_indexes")]
)
def test_a_family_is_known_by_its_tower(kind: str, own: str) -> None:
    """By `vision_config.model_type`, else by the text model's, else by a field that only this one has."""
    known = recognise(folder_of(kind))
    raw = folder_of(kind).data
    vision = {k: v for k, v in raw["vision_config"].items() if k != "model_type"}
    text = {k: v for k, v in raw["text_config"].items() if k != "model_type"}
    assert known.name == {"qwen25vl": "sa2va-qwen2.5-vl", "qwen3vl": "sa2va-qwen3-vl"}[kind]
    assert recognise(folder_of(kind, vision_config=vision)) is known
    newer = vision | {"model_type": f"{raw['vision_config']['model_type']}_vision"}
    assert recognise(folder_of(kind, vision_config=newer)) is known
    assert recognise(folder_of(kind, vision_config=vision, text_config=text)) is known
    assert known.read_config(raw | {"vision_config": vision, "text_config": text}) == known.read_config(raw)
    assert own in vision


def test_what_these_models_do_not_do_is_refused() -> None:
    raw = folder_of("qwen25vl").data
    family = recognise(folder_of("qwen25vl"))
    for change in ({"use_sliding_window": True}, {"rope_scaling": {"type": "yarn", "factor": 4.0}}):
        with pytest.raises(SvacError, match=r"use_sliding_window|type = 'yarn'"):
            family.read_config(raw | {"text_config": raw["text_config"] | change})
    with pytest.raises(SvacError, match="no Qwen-VL model"):
        family.read_config({"vision_config": raw["vision_config"]})
