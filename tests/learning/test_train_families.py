"""Fine-tuning of published families as their authors tuned them: what is trained, what is saved, going on, serving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svac_backend.errors import SvacError
from svac_backend.learning.adapters import load_adapter, read_state, unload_adapter
from svac_backend.learning.examples import Batches
from svac_backend.learning.options import TrainOptions
from svac_backend.learning.train import train
from svac_backend.learning.videos import ClipCache
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.files.adapters import verify_adapter
from svac_backend.video.reader import ArrayVideo
from tests.learning.made import SMALL, small_model, squares

pytestmark = pytest.mark.slow

OPTIONS = TrainOptions(
    steps=3, batch=2, accumulate=1, replay_share=0, lr=3e-2, rank=4, alpha=8, checkpoint_every=1, log_every=1
)


def config_of(family: str) -> SvacConfig:
    """Return the small model's configuration as one of a published family; InternVL3 is Sa2VA with `qwen_chat`."""
    # Object pointers are cut into pieces as wide as memory.
    sam = replace(SMALL.sam, d_model=64, memory_dim=32, original_decoder=family == "sa2va-i")
    config = replace(SMALL, family=family, sam=sam).with_preset(family)
    return replace(config, method=replace(config.method, template="qwen_chat"))


@pytest.mark.parametrize("family", ["sa2va", "sa2va-i"])
def test_a_family_is_tuned_as_published_goes_on_and_serves(
    family: str, tokenizer_file: Path, tmp_path: Path
) -> None:
    config = config_of(family)
    model = small_model(tokenizer_file, config)

    def data(folder: Path) -> Batches:
        return Batches([squares(k) for k in range(3)], [], ClipCache(config, folder / "cache"), batch=2)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole = train(model, data(tmp_path / "a"), tmp_path / "a", OPTIONS)
    stopped = train(model, data(tmp_path / "b"), tmp_path / "b", OPTIONS, should_stop=lambda: True)
    assert (stopped.ended, stopped.steps) == ("stopped", 1)
    resumed = train(model, data(tmp_path / "b"), tmp_path / "b", OPTIONS)
    assert whole.adapter is not None
    assert resumed.adapter is not None
    assert verify_adapter(resumed.adapter).sha256 == verify_adapter(whole.adapter).sha256
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())

    # LoRA on every linear layer of the language model but its head; projectors and the tuned mask decoder whole.
    kept = set(read_state(whole.adapter)[1])
    linear = [
        f"mllm.language_model.{name}"
        for name, module in model.mllm.language_model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    lora = {f"{name}.lora_{side}.default.weight" for name in linear for side in "AB"}
    parts = ("mllm.text_hidden_fcs.", "mllm.mlp1.", "sam.sam_mask_decoder.")
    assert kept == lora | {name for name, _ in model.named_parameters() if name.startswith(parts)}

    video = ArrayVideo(np.random.default_rng(1).integers(0, 255, (9, 32, 48, 3), np.uint8))
    plain = [frame.scores for frame in model.segment(video, ["the square"])]
    load_adapter(model, whole.adapter)
    after = model.state_dict()
    changed = {name for name in before.keys() & after.keys() if not torch.equal(after[name], before[name])}
    assert any(name.startswith("sam.sam_mask_decoder.") for name in changed)
    assert not any(name.startswith("sam.original_mask_decoder.") for name in changed)
    tuned = [frame.scores for frame in model.segment(video, ["the square"])]
    assert not np.array_equal(plain, tuned)
    unload_adapter(model)
    again = [frame.scores for frame in model.segment(video, ["the square"])]
    assert np.array_equal(plain, again)


def test_an_adapter_of_another_family_is_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    config = config_of("sa2va-i")
    model = small_model(tokenizer_file, config)
    batches = Batches([squares(0)], [], ClipCache(config, tmp_path / "cache"), batch=2)
    result = train(model, batches, tmp_path, replace(OPTIONS, steps=1))
    assert result.adapter is not None
    torch.manual_seed(5)
    other = small_model(tokenizer_file, config_of("sa2va"))
    with torch.no_grad():
        other.sam.no_mem_embed.add_(1.0)
    with pytest.raises(SvacError, match="another model"):
        load_adapter(other, result.adapter)
