"""Adapters: what they hold, that they are taken out bit for bit, and that damaged or foreign ones are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from svac_backend.errors import SvacError
from svac_backend.learning.adapters import (
    LoraOptions,
    attach_lora,
    detach_lora,
    load_adapter,
    loaded_adapter,
    marks_of,
    save_adapter,
    trained_parameters,
    unload_adapter,
)
from svac_backend.svac.files.adapters import WEIGHTS, read_adapter, verify_adapter
from svac_backend.svac.model import Svac
from svac_backend.video.reader import ArrayVideo
from tests.learning.made import small_model, squares


@pytest.fixture
def model(tokenizer_file: Path) -> Svac:
    return small_model(tokenizer_file)


def made(model: Svac, folder: Path, seed: int = 0) -> Path:
    """Write an adapter with random values."""
    lora = LoraOptions(4, 8, 0.0)
    torch.manual_seed(seed)
    attach_lora(model, lora)
    state = {n: p.data + 0.2 * torch.randn_like(p) for n, p in trained_parameters(model).items()}
    detach_lora(model)
    save_adapter(folder, state, torch.float32, lora=lora, marks=marks_of(model), parent=None, steps=7)
    return folder


def masks(model: Svac) -> torch.Tensor:
    with squares(1).video.open() as video:
        frames = [video.frame(i) for i in range(4)]
    clip = ArrayVideo(torch.tensor(frames[0]).numpy()[None].repeat(4, 0))
    return model.seg_embeddings(clip, _plan(model), ["the square"])


def _plan(model: Svac):  # type: ignore[no-untyped-def]
    from svac_backend.svac.astc import plan

    return plan(4, model.config.method)


def test_loading_changes_the_model_and_unloading_brings_it_back_bit_for_bit(
    model: Svac, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = masks(model)
    folder = made(model, tmp_path / "a")
    assert torch.equal(masks(model), seen)
    info = load_adapter(model, folder)
    assert loaded_adapter(model) == info
    changed = masks(model)
    assert not torch.allclose(changed, seen, atol=1e-2)
    other = made_beside(model, tmp_path / "b")
    load_adapter(model, other)
    assert not torch.equal(masks(model), changed)
    load_adapter(model, folder)
    assert torch.equal(masks(model), changed)
    unload_adapter(model)
    unload_adapter(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(masks(model), seen)
    assert loaded_adapter(model) is None


def made_beside(model: Svac, folder: Path) -> Path:
    unload_adapter(model)
    return made(model, folder, seed=1)


def test_an_adapter_holds_lora_and_three_parts_only(model: Svac, tmp_path: Path) -> None:
    attach_lora(model, LoraOptions(4, 8, 0.0))
    names = set(trained_parameters(model))
    detach_lora(model)
    lora = {n for n in names if "lora" in n}
    assert len(lora) == 2 * 7 * 2  # factors, projections, layers
    assert {n.split(".")[1] for n in names - lora} == {"mlp1", "text_hidden_fcs", "sam_mask_decoder"}
    assert not any("vision_model" in n or "image_encoder" in n or "memory" in n for n in names)


def test_a_damaged_adapter_is_refused_and_the_model_stays(model: Svac, tmp_path: Path) -> None:
    good, bad = made(model, tmp_path / "good"), made(model, tmp_path / "bad", seed=2)
    load_adapter(model, good)
    serving = masks(model)
    weights = bad / WEIGHTS
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(SvacError, match="damaged"):
        load_adapter(model, bad)
    weights.write_bytes(data[:100])
    with pytest.raises(SvacError, match="damaged"):
        load_adapter(model, bad)
    weights.unlink()
    with pytest.raises(SvacError, match="can't be read"):
        verify_adapter(bad)
    with pytest.raises(SvacError, match="no adapter"):
        read_adapter(tmp_path)
    (bad / "adapter.json").write_text('{"format": "svac-backend-adapter"}')
    with pytest.raises(SvacError, match="describes no adapter"):
        read_adapter(bad)
    assert torch.equal(masks(model), serving)


def test_an_adapter_of_another_model_is_refused(model: Svac, tokenizer_file: Path, tmp_path: Path) -> None:
    folder = made(model, tmp_path)
    other = small_model(tokenizer_file)
    with torch.no_grad():
        other.sam.no_mem_embed.add_(0.5)
    with pytest.raises(SvacError, match="another model"):
        load_adapter(other, folder)
    half = small_model(tokenizer_file).bfloat16()
    load_adapter(half, folder)  # the same one in another dtype
    assert half.mllm.mlp1[1].weight.dtype == torch.bfloat16


def test_loras_rank_is_capped_by_the_models_width() -> None:
    assert LoraOptions().capped(896) == LoraOptions(128, 256, 0.05)
    assert LoraOptions().capped(128) == LoraOptions(32, 64, 0.05)


def test_the_id_is_the_hash_of_the_weights(model: Svac, tmp_path: Path) -> None:
    first, again = made(model, tmp_path / "1"), made(model, tmp_path / "2")
    assert read_adapter(first).adapter_id == read_adapter(again).adapter_id == read_adapter(first).sha256[:8]
    assert read_adapter(first).bytes == (first / WEIGHTS).stat().st_size
    assert read_adapter(made(model, tmp_path / "3", seed=5)).adapter_id != read_adapter(first).adapter_id


def test_the_registry_can_look_at_adapters_without_torch() -> None:
    script = (
        "import sys, svac_backend.svac.files.adapters, svac_backend.learning.gate\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
