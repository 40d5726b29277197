"""Published layouts map completely; folders load a tensor at a time, cast, and are saved and read again bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file

from svac_backend.errors import SvacError
from svac_backend.svac.config import SamConfig, SvacConfig
from svac_backend.svac.families import family, registry
from svac_backend.svac.families.family import Folder
from svac_backend.svac.files import checkpoints
from svac_backend.svac.files.weights import model_version
from svac_backend.svac.model import Svac
from tests.svac.published_folders import TINY_SAM, published_folder

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[2] / "golden"

VIT_300M = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 448,
    "qkv_bias": True,
    "qk_normalization": False,
    "norm_type": "layer_norm",
}
# What transformers leaves out of a file because it is the class's default is left out here, too.
VIT_6B = {"num_hidden_layers": 45, "image_size": 448}
CONFIGS: dict[str, dict[str, Any]] = {
    "1B": {
        "vision_config": VIT_300M,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "vocab_size": 151655,  # from before the special tokens were added: the embedding decides
            "rope_theta": 1000000.0,
        },
    },
    "4B": {
        "vision_config": VIT_300M,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 11008,
            "vocab_size": 151679,
            "rope_theta": 1000000.0,
        },
    },
    "8B": {
        "vision_config": VIT_300M,
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"],
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "vocab_size": 92558,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000,
            "rope_scaling": {"factor": 2.0, "type": "dynamic"},
            "rms_norm_eps": 1e-5,
        },
    },
    "internvl3_2B": {
        "vision_config": VIT_300M,
        "template": "qwen_chat",
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 1536,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "intermediate_size": 8960,
            "vocab_size": 151674,
            "rope_theta": 1000000.0,
            "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        },
    },
    "26B": {
        "vision_config": VIT_6B,
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"],
            "hidden_size": 6144,
            "num_hidden_layers": 48,
            "num_attention_heads": 48,
            "num_key_value_heads": 8,
            "intermediate_size": 16384,
            "vocab_size": 92558,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000,
            "rope_scaling": {"factor": 3.0, "type": "dynamic"},
            "rms_norm_eps": 1e-5,
        },
    },
}


TUNED = "sam_mask_decoder_modified."


def full_size(size: str, kind: str = "sa2va") -> tuple[Svac, SvacConfig, dict[str, tuple[int, ...]]]:
    """Build a published model on the meta device, and read its key list."""
    shapes = {k: tuple(v) for k, v in json.loads((GOLDEN / f"keys_{size}.json").read_text()).items()}
    if kind == "sa2va-i":  # the published files hold both decoders under these names
        shapes |= {k.replace("sam_mask_decoder.", TUNED): shape for k, shape in shapes.items()}
    data = CONFIGS[size] | {"ps_version": "v2"}
    found = registry.recognise(Folder(data, frozenset(shapes)))
    assert found.name == kind
    config = found.with_vocabulary(found.read_config(data), shapes)
    with init_empty_weights():
        return Svac(config, GOLDEN / "tokenizer" / "tokenizer.json"), config, shapes


@pytest.mark.parametrize(
    ("size", "kind"),
    [*((size, "sa2va") for size in CONFIGS), *((size, "sa2va-i") for size in ("1B", "4B", "8B", "26B"))],
)
def test_every_published_key_of_the_full_sizes_maps(size: str, kind: str) -> None:
    model, config, shapes = full_size(size, kind)
    assert sum(TUNED in key for key in shapes) == (131 if kind == "sa2va-i" else 0)
    given = registry.family_of(config).convert_all(
        ((key, torch.empty(shape, device="meta")) for key, shape in shapes.items()), config
    )
    own = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tensor.shape for key, tensor in given.items()} == own
    assert all(tensor.is_meta for tensor in model.parameters())
    # A packed projection becomes three of ours, everything else one.
    packed = sum("qkv" in key and not key.startswith("grounding") for key in shapes)
    assert len(own) == len(shapes) + 2 * packed
    checkpoints.check(model, shapes, config)


def test_a_key_too_few_too_many_or_of_another_shape_is_seen() -> None:
    model, config, shapes = full_size("1B")
    with pytest.raises(SvacError, match=r"lacks 3 tensor.*k_proj"):
        checkpoints.check(
            model,
            {k: s for k, s in shapes.items() if k != "vision_model.encoder.layers.3.attn.qkv.weight"},
            config,
        )
    with pytest.raises(SvacError, match="unknown tensor 'audio"):
        checkpoints.check(model, shapes | {"audio.weight": (1,)}, config)
    with pytest.raises(SvacError, match=r"another shape of 1 tensor.*mlp1\.1\.bias"):
        checkpoints.check(model, shapes | {"mlp1.1.bias": (895,)}, config)
    without = {k: s for k, s in shapes.items() if k != "language_model.lm_head.weight"}
    checkpoints.check(model, without, config)  # the embedding takes its place


def test_the_fields_of_a_published_config() -> None:
    data = CONFIGS["26B"] | {"template": "internlm2-chat", "ps_version": "v2", "max_dynamic_patch": 12}
    config = registry.named("sasasa2va").read_config(data)
    vision, language = config.vision, config.language
    assert (vision.num_attention_heads, vision.qk_normalization, vision.qkv_bias) == (25, True, False)
    assert (vision.norm_type, vision.layer_norm_eps) == ("rms_norm", 1e-6)
    assert (language.architecture, language.rope_theta, language.rms_norm_eps) == ("llama", 1e6, 1e-5)
    assert language.rope_scaling == {"rope_type": "dynamic", "factor": 3.0}
    assert (config.preset, config.method.template, config.method.num_clips) == (
        "sasasa2va",
        "internlm2_chat",
        10,
    )
    assert (config.ps_version, config.downsample_ratio, config.sam) == ("v2", 0.5, SamConfig())
    plain = registry.named("sa2va").read_config(CONFIGS["4B"])
    assert (plain.ps_version, plain.method.template) == ("v1", "phi3_chat")
    assert (plain.language.rope_scaling, plain.language.tie_word_embeddings) == (None, False)


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_theta": 5e5}, (5e5, None)),
        ({"rope_theta": 5e5, "rope_scaling": None}, (5e5, None)),
        ({"rope_parameters": {"rope_theta": 7e5, "rope_type": "default"}}, (7e5, None)),
        (
            {"rope_parameters": {"rope_theta": 7e5, "rope_type": "linear", "factor": 2.0}},
            (7e5, {"rope_type": "linear", "factor": 2.0}),
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            (1e4, {"rope_type": "dynamic", "factor": 2.0}),
        ),
    ],
)
def test_old_and_new_rope_fields(rope: dict[str, Any], expected: tuple[float, dict[str, Any] | None]) -> None:
    language = {k: v for k, v in CONFIGS["1B"]["llm_config"].items() if k != "rope_theta"} | rope
    read = registry.named("sa2va").read_config({"vision_config": VIT_300M, "llm_config": language}).language
    assert (read.rope_theta, read.rope_scaling) == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"select_layer": -4}, "select_layer"),
        ({"force_image_size": 336}, "force_image_size"),
        ({"template": "vicuna"}, "template"),
        ({"ps_version": "v9"}, "ps_version"),
        ({"llm_config": {"architectures": ["Qwen3ForCausalLM"]}}, "Qwen3ForCausalLM"),
        ({"llm_config": CONFIGS["1B"]["llm_config"] | {"use_sliding_window": True}}, "use_sliding_window"),
        ({"llm_config": CONFIGS["1B"]["llm_config"] | {"rope_scaling": {"type": "mrope"}}}, "mrope"),
        ({"vision_config": None}, "no Sa2VA model"),
    ],
)
def test_what_this_model_does_not_do_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(SvacError, match=field):
        registry.named("sa2va").read_config(CONFIGS["1B"] | change)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The golden cases' tiny weights as a published folder: config.json, tokenizer, three shards of mixed dtypes."""
    monkeypatch.setattr(family, "SAM", TINY_SAM)
    return published_folder(tmp_path / "Sa2VA-tiny", GOLDEN, "sa2va")


def test_both_decoders_of_sa2va_i_are_read_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "SAM", TINY_SAM)
    folder = published_folder(tmp_path / "tiny", GOLDEN, "sa2vai")
    model = Svac.from_pretrained(folder, device="cpu")
    assert (model.config.family, model.config.preset) == ("sa2va-i", "sa2va-i")
    assert model_version(str(folder)).startswith("sa2va-i-")
    expected = {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}
    for name, published in (("sam_mask_decoder", TUNED), ("original_mask_decoder", "sam_mask_decoder.")):
        for key, value in getattr(model.sam, name).state_dict().items():
            assert torch.equal(value, expected[f"grounding_encoder.sam2_model.{published}{key}"])
    tracking = model._tracking
    assert tracking.sam_mask_decoder is model.sam.original_mask_decoder
    assert tracking.memory_encoder is model.sam.memory_encoder
    model.save_pretrained(tmp_path / "ours")
    again = Svac.from_pretrained(tmp_path / "ours", device="cpu")
    assert again.config == model.config
    found = again.state_dict()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())
    # Both layouts give the original decoder to weights of Sa2VA.
    for source in (folder, tmp_path / "ours"):
        taken = again.use_original_sam(source)._tracking.sam_mask_decoder.state_dict()
        assert all(torch.equal(taken[k], v) for k, v in model.sam.original_mask_decoder.state_dict().items())


def reference(folder: Path) -> dict[str, torch.Tensor]:
    """Read all shards and convert them, the plain way."""
    state = {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}
    config = checkpoints.read_config(folder)
    return registry.family_of(config).convert_all(state.items(), config)


def test_a_published_folder_of_shards_and_mixed_dtypes(tiny: Path) -> None:
    dtypes = {t.dtype for path in tiny.glob("*.safetensors") for t in load_file(path).values()}
    assert dtypes == {torch.bfloat16, torch.float32}
    model = Svac.from_pretrained(tiny, device="cpu")
    expected = reference(tiny)
    own = model.state_dict()
    assert own.keys() == expected.keys()
    for key, tensor in own.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[key].float()), key
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])
    # Buffers that no file holds were made, too.
    built = Svac(model.config, model.tokenizer_file)
    made = dict(model.named_buffers())
    for name, buffer in built.named_buffers():
        if name not in own:
            assert torch.equal(made[name], buffer), name


def test_half_precision_keeps_positions_exact(tiny: Path) -> None:
    model = Svac.from_pretrained(tiny, device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {torch.float32}
    assert "mllm.language_model.model.rotary_emb.inv_freq" in dict(model.named_buffers())


def test_a_missing_lm_head_is_the_embedding(tiny: Path) -> None:
    for path in tiny.glob("*.safetensors"):
        save_file({k: v for k, v in load_file(path).items() if "lm_head" not in k}, path)
    language = Svac.from_pretrained(tiny, device="cpu").mllm.language_model
    assert language.lm_head.weight is language.model.embed_tokens.weight


def test_a_missing_or_damaged_shard_is_refused_before_anything_is_read(tiny: Path) -> None:
    shards = sorted(tiny.glob("*.safetensors"))
    assert len(shards) == 3
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:-100])
    with pytest.raises(SvacError, match=r"00002-of-00003.* is damaged"):
        Svac.from_pretrained(tiny)
    shards[1].unlink()
    with pytest.raises(SvacError, match=r"lacks 1 of 3 weight files.*00002-of-00003"):
        Svac.from_pretrained(tiny)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_saving_and_reading_again_is_exact(tiny: Path, tmp_path: Path, dtype: str) -> None:
    model = Svac.from_pretrained(tiny, device="cpu", dtype=dtype)
    ours = tmp_path / "ours"
    model.save_pretrained(ours)
    again = Svac.from_pretrained(ours, device="cpu", dtype=dtype)
    assert again.config == model.config
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert after[key].dtype == tensor.dtype
        assert torch.equal(after[key], tensor), key
    again.save_pretrained(tmp_path / "twice")
    assert (tmp_path / "twice" / "model.safetensors").read_bytes() == (
        ours / "model.safetensors"
    ).read_bytes()
    assert model_version(str(ours)) == model_version(str(tmp_path / "twice"))
    assert model_version(str(ours)).startswith("sa2va-")


def test_half_precision_read_as_single_and_saved_again_is_the_same_file(model: Svac, tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        model.save_pretrained(tmp_path / "a", dtype)
        Svac.from_pretrained(tmp_path / "a", device="cpu", dtype="float32").save_pretrained(
            tmp_path / "b", dtype
        )
        first, second = (tmp_path / name / "model.safetensors" for name in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_tied_weights_are_written_once_and_stay_tied(model: Svac, tmp_path: Path) -> None:
    assert model.config.language.tie_word_embeddings
    model.save_pretrained(tmp_path)
    assert "mllm.language_model.lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    again = Svac.from_pretrained(tmp_path, device="cpu").mllm.language_model
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_large_models_are_saved_in_shards(
    model: Svac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    single = model_version(str(tmp_path))
    monkeypatch.setattr(checkpoints, "SHARD_BYTES", 8_000_000)
    model_version.cache_clear()
    model.save_pretrained(tmp_path)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert model_version(str(tmp_path)) != single
    again = Svac.from_pretrained(tmp_path, device="cpu").state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in model.state_dict().items())
    monkeypatch.undo()
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    model_version.cache_clear()
    assert model_version(str(tmp_path)) == single
