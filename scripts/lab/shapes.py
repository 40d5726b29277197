"""The published models' shapes, and models of them with random weights: in full, or small.

The config.json of each is as its authors' saving writes it.

Sizes of the base models are those of their public configurations; what equals the default of the authors' class is left
out, as their saving leaves it out. Rows of the embeddings are those of the key lists in `tests/golden`, and of the same
tokenizer where there is no list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from svac_backend.svac.config import QwenVision, SvacConfig, VisionConfig
from svac_backend.svac.families.family import SAM_KEYS, Folder
from svac_backend.svac.families.registry import recognise
from svac_backend.svac.files.weights import locate
from svac_backend.svac.model import Svac

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
VIT_6B = {"num_hidden_layers": 45, "image_size": 448}
# Language models' width, layers, heads, key-value heads and width of the MLP.
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
)


def _qwen2(*sizes: int, **more: Any) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        **dict(zip(_SIZES, sizes, strict=True)),
        "vocab_size": 151655,  # from before the special tokens were added: the embedding decides
        "rope_theta": 1000000.0,
        **more,
    }


def _internlm2(*sizes: int, factor: float) -> dict[str, Any]:
    return {
        "architectures": ["InternLM2ForCausalLM"],
        **dict(zip(_SIZES, sizes, strict=True)),
        "vocab_size": 92558,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000,
        "rope_scaling": {"factor": factor, "type": "dynamic"},
        "rms_norm_eps": 1e-5,
    }


def _internvl(language: dict[str, Any], vision: dict[str, Any] = VIT_300M, **more: Any) -> dict[str, Any]:
    return {"vision_config": vision, "llm_config": language, "ps_version": "v2", **more}


def _internvl3(*sizes: int) -> dict[str, Any]:
    return _internvl(_qwen2(*sizes, rope_scaling={"factor": 2.0, "type": "dynamic"}), template="qwen_chat")


def _qwen_vl(
    kind: str, sections: list[int], text: dict[str, Any], vision: dict[str, Any], **rope: Any
) -> dict[str, Any]:
    scaling = {"rope_type": "default", "mrope_section": sections, **rope}
    text = {"rope_scaling": scaling, **text, "model_type": f"{kind}_text"}
    return {
        "architectures": ["Sa2VAChatModelQwen"],
        "model_type": "sa2va_chat",
        "template": "qwen_chat",
        "text_config": text | {"architectures": ["Sa2VAChatModelQwen"]},
        "vision_config": vision | {"model_type": kind},
    }


def _qwen25_vl(*sizes: int, tied: bool) -> dict[str, Any]:
    text = {**dict(zip(_SIZES, sizes, strict=True)), "rms_norm_eps": 1e-6, "tie_word_embeddings": tied}
    vision = {"hidden_size": 1280, "out_hidden_size": sizes[0]}
    return _qwen_vl("qwen2_5_vl", [16, 24, 24], text, vision, type="default")


def _qwen3_vl(*sizes: int) -> dict[str, Any]:
    text = {**dict(zip(_SIZES, sizes, strict=True)), "tie_word_embeddings": True}
    vision = {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "out_hidden_size": sizes[0],
        "deepstack_visual_indexes": [5, 11, 17],
    }
    return _qwen_vl("qwen3_vl", [24, 20, 20], text, vision, mrope_interleaved=True)


_1B = _internvl(_qwen2(896, 24, 14, 2, 4864))
_4B = _internvl(_qwen2(2048, 36, 16, 2, 11008))
_8B = _internvl(_internlm2(4096, 32, 32, 8, 14336, factor=2.0))
_26B = _internvl(_internlm2(6144, 48, 48, 8, 16384, factor=3.0), VIT_6B)


@dataclass(frozen=True)
class Shape:
    """One published model.

    Attributes:
        data: its config.json.
        rows: of its embeddings.
        keys: names of tensors by which its family is recognised.
    """

    data: dict[str, Any]
    rows: int
    keys: tuple[str, ...] = ()

    def config(self, name: str) -> SvacConfig:
        """Return its configuration, read as a folder of that name is."""
        found = recognise(Folder(self.data, frozenset(self.keys), name.rpartition("/")[2]))
        config = found.read_config(self.data)
        return replace(config, language=replace(config.language, vocab_size=self.rows))


_TUNED = (f"{SAM_KEYS}sam_mask_decoder_modified.iou_token.weight",)
SHAPES: dict[str, Shape] = {
    "ByteDance/Sa2VA-1B": Shape(_1B, 151679),
    "ByteDance/Sa2VA-4B": Shape(_4B, 151679),
    "ByteDance/Sa2VA-8B": Shape(_8B, 92558),
    "ByteDance/Sa2VA-26B": Shape(_26B, 92558),
    "ByteDance/Sa2VA-InternVL3-2B": Shape(_internvl3(1536, 28, 12, 2, 8960), 151679),
    "ByteDance/Sa2VA-InternVL3-8B": Shape(_internvl3(3584, 28, 28, 4, 18944), 151679),
    "ByteDance/Sa2VA-InternVL3-14B": Shape(_internvl3(5120, 48, 40, 8, 13824), 151679),
    "ByteDance/Sa2VA-Qwen3-VL-2B": Shape(_qwen3_vl(2048, 28, 16, 8, 6144), 151674),
    "ByteDance/Sa2VA-Qwen3-VL-4B": Shape(_qwen3_vl(2560, 36, 32, 8, 9728), 151674),
    "ByteDance/Sa2VA-Qwen2_5-VL-3B": Shape(_qwen25_vl(2048, 36, 16, 2, 11008, tied=True), 151670),
    "ByteDance/Sa2VA-Qwen2_5-VL-7B": Shape(_qwen25_vl(3584, 28, 28, 4, 18944, tied=False), 151670),
    "kumuji/Sa2VA-i-1B": Shape(_1B, 151679, _TUNED),
    "kumuji/Sa2VA-i-4B": Shape(_4B, 151679, _TUNED),
    "kumuji/Sa2VA-i-8B": Shape(_8B, 92558, _TUNED),
    "kumuji/Sa2VA-i-26B": Shape(_26B, 92558, _TUNED),
    "QuanzhuNiu/SaSaSa2VA-4B": Shape(_4B, 151679),
    "QuanzhuNiu/SaSaSa2VA-26B": Shape(_26B, 92558),
}


def config_of(name: str) -> SvacConfig:
    """Return the configuration of a published model, by the name of its repository."""
    return SHAPES[name].config(name)


# A model of each family, to be made small.
FAMILIES = {
    "sa2va": "ByteDance/Sa2VA-1B",
    "internvl3": "ByteDance/Sa2VA-InternVL3-2B",
    "sa2va-i": "kumuji/Sa2VA-i-1B",
    "sasasa2va": "QuanzhuNiu/SaSaSa2VA-4B",
    "qwen3-vl": "ByteDance/Sa2VA-Qwen3-VL-2B",
    "qwen2.5-vl": "ByteDance/Sa2VA-Qwen2_5-VL-3B",
}
_SMALL_VISION: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}


def small_config(family: str) -> SvacConfig:
    """Return a family's configuration with towers of a few layers and the embedded model's SAM-2."""
    config = config_of(FAMILIES[family])
    embedded = SvacConfig.load(locate("svac-tiny") / "config.json")
    if isinstance(config.vision, QwenVision):
        vision: VisionConfig = replace(
            config.vision,
            **_SMALL_VISION,
            out_hidden_size=128,
            deepstack_visual_indexes=(0, 1, 2) if config.vision.deepstack_visual_indexes else (),
            fullatt_block_indexes=(1, 3) if config.vision.fullatt_block_indexes else (),
        )
    else:
        size = {"image_size": embedded.vision.image_size, "patch_size": embedded.vision.patch_size}
        vision = replace(config.vision, **_SMALL_VISION, **size)
    rope = config.language.rope_scaling
    if rope and "mrope_section" in rope:
        rope = {"mrope_section": [6, 5, 5]}  # half of a head
    language = replace(
        config.language,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        head_dim=None if config.language.head_dim is None else 32,
        vocab_size=4096,
        rope_scaling=rope,
    )
    sam = replace(embedded.sam, original_decoder=config.sam.original_decoder)
    return replace(config, vision=vision, language=language, sam=sam)


def tokenizer_of(config: SvacConfig) -> Path:
    """Return a tokenizer that has the special tokens of a configuration's family; its words don't matter here."""
    if isinstance(config.vision, QwenVision):
        return Path(__file__).parents[2] / "tests" / "golden" / "tokenizer_qwen" / "tokenizer.json"
    return locate("svac-tiny") / "tokenizer.json"


def random_model(config: SvacConfig, device: torch.device, dtype: torch.dtype) -> Svac:
    """Build a model with random weights, the same ones each time on one kind of device, right where it is to run.

    Its masks show something: random weights may say of everything that it is not there.
    """
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = Svac(config, tokenizer_of(config))
    finally:
        torch.set_default_dtype(before)
    model = model.to(device, dtype).eval()
    with torch.no_grad():
        for name, module in model.sam.named_children():
            if name.endswith("mask_decoder"):
                module.pred_obj_score_head.layers[-1].bias.fill_(10.0)
    return model
