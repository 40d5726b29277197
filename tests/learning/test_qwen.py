"""Fine-tuning Sa2VA on Qwen-VL as its authors did: what is trained, positions and deepstack in a batch, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svac_backend.errors import SvacError
from svac_backend.learning.adapters import (
    LoraOptions,
    attach_lora,
    detach_lora,
    load_adapter,
    trained_parameters,
    unload_adapter,
)
from svac_backend.learning.examples import Batches
from svac_backend.learning.objective import FrozenParts, Objective
from svac_backend.learning.options import TrainOptions
from svac_backend.learning.train import train
from svac_backend.learning.videos import ClipCache
from svac_backend.svac.files.adapters import verify_adapter
from svac_backend.svac.model import Svac
from tests.learning.made import SMALL, squares
from tests.svac.qwen_models import KINDS, QWEN_TOKENIZER, qwen_config

pytestmark = pytest.mark.slow

OPTIONS = TrainOptions(
    steps=4,
    batch=2,
    accumulate=1,
    replay_share=0,
    lr=3e-3,
    rank=4,
    alpha=8,
    checkpoint_every=2,
    log_every=2,
    gradient_checkpointing=True,
)


def small_qwen(kind: str) -> Svac:
    """Return a tiny model with random weights and a small SAM-2, whose images are of a few tokens."""
    method = replace(SMALL.method, image_pixels=(4 * 28 * 28, 8 * 28 * 28))
    config = replace(qwen_config(kind), preset="svac", sam=SMALL.sam, method=method)
    torch.manual_seed(0)
    return Svac(config, QWEN_TOKENIZER).eval()


def data(model: Svac, folder: Path) -> Batches:
    examples = [replace(squares(k), expression="the square " * (k + 1)) for k in range(3)]
    return Batches(examples, [], ClipCache(model.config, folder / "cache"), batch=2, frames_per_clip=2)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_in_a_batch_are_those_of_prediction(kind: str, tmp_path: Path) -> None:
    """Padded beside a longer text, or alone behind the images' cache; and gradients reach what is trained."""
    model = small_qwen(kind)
    items = data(model, tmp_path).items(0)
    attach_lora(model, LoraOptions(4, 8, 0.0))
    trained = trained_parameters(model)
    model.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    lm, embeddings = Objective(model, FrozenParts(model)).answers(items)
    assert len({len(item.expression) for item in items}) == 2
    for item, seg in zip(items, embeddings, strict=True):
        with torch.no_grad():
            seen = model.mllm.visual(item.seen.images)
            prompt = model.chat.build(item.expression, seen.counts, 3)
            (alone,) = model.mllm.seg_states(seen, [prompt], model.chat.context_id)
        assert seg.shape == (3, 32)
        assert torch.allclose(seg, alone, atol=1e-5)
    (lm + torch.cat(embeddings).square().sum()).backward()
    assert all(p.grad is not None for n, p in trained.items() if n.startswith("mllm."))
    assert all(p.grad.abs().sum() > 0 for n, p in trained.items() if "lora_B" in n)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_authors_trained_is_what_an_adapter_holds(kind: str) -> None:
    """The tower is frozen with its merger; LoRA is beside every projection of the language model."""
    model = small_qwen(kind)
    layers = "mllm.language_model.model.layers."
    projections = {
        n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith(layers)
    }
    assert len(projections) == 7 * 4
    attach_lora(model, LoraOptions(4, 8, 0.0))
    names = set(trained_parameters(model))
    detach_lora(model)
    lora = {name for name in names if ".lora_" in name}
    assert {name.partition(".lora_")[0] for name in lora} == projections
    assert len(lora) == 2 * len(projections)
    assert {name.split(".")[1] for name in names - lora} == {"text_hidden_fcs", "sam_mask_decoder"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_and_its_adapter_fits_this_model_only(kind: str, tmp_path: Path) -> None:
    model = small_qwen(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole = train(model, data(model, tmp_path / "a"), tmp_path / "a", OPTIONS)
    asked = iter([False, False, True])
    first = train(
        model, data(model, tmp_path / "b"), tmp_path / "b", OPTIONS, should_stop=lambda: next(asked)
    )
    assert (first.ended, first.steps) == ("stopped", 3)
    second = train(model, data(model, tmp_path / "b"), tmp_path / "b", OPTIONS)
    assert second.steps == whole.steps == 4
    assert whole.adapter is not None
    assert second.adapter is not None
    assert verify_adapter(second.adapter).sha256 == verify_adapter(whole.adapter).sha256
    load_adapter(model, whole.adapter)
    assert not torch.equal(
        model.get_parameter("mllm.text_hidden_fcs.0.0.weight"), before["mllm.text_hidden_fcs.0.0.weight"]
    )
    unload_adapter(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    (other,) = (name for name in KINDS if name != kind)
    with pytest.raises(SvacError, match="another model"):
        load_adapter(small_qwen(other), whole.adapter)
