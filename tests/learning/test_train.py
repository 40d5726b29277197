"""Training: it learns, goes on where it was killed and ends with the same weights, and leaves the model as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from svac_backend.errors import SvacError
from svac_backend.learning import train as train_module
from svac_backend.learning.adapters import load_adapter, read_state
from svac_backend.learning.curves import read_curves
from svac_backend.learning.examples import Batches
from svac_backend.learning.options import TrainOptions, options_for
from svac_backend.learning.train import Checkpoints, learning_rate, train
from svac_backend.learning.videos import ClipCache
from svac_backend.svac.files.adapters import verify_adapter
from svac_backend.svac.model import Svac
from tests.learning.made import SMALL, small_model, squares

pytestmark = pytest.mark.slow

OPTIONS = TrainOptions(
    steps=6, batch=2, accumulate=1, replay_share=0, lr=3e-3, rank=4, alpha=8, checkpoint_every=2, log_every=2
)


@pytest.fixture
def model(tokenizer_file: Path) -> Svac:
    return small_model(tokenizer_file)


def data(folder: Path) -> Batches:
    return Batches([squares(k) for k in range(3)], [], ClipCache(SMALL, folder / "cache"), batch=2)


def test_the_model_is_left_as_it_was_and_the_adapter_changes_it(model: Svac, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = {name: p.requires_grad for name, p in model.named_parameters()}
    told: list[tuple[float, str]] = []
    result = train(model, data(tmp_path), tmp_path, OPTIONS, progress=lambda f, m: told.append((f, m)))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wanted
    assert not model.training
    assert (result.ended, result.steps) == ("steps", 6)
    assert result.adapter is not None
    assert verify_adapter(result.adapter).steps == 6
    load_adapter(model, result.adapter)
    assert not torch.equal(model.mllm.mlp1[1].weight, before["mllm.mlp1.1.weight"])
    assert told[0] == (0.0, "step 1 of 6")
    assert [f for f, _ in told] == sorted(f for f, _ in told)
    lines = read_curves(result.curves)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {"loss", "lm", "bce", "dice", "existence", "iou", "lr", "gradient", "seconds"} <= lines[0].keys()
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


def test_the_loss_falls(model: Svac, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=20, lr=1e-2, log_every=5, checkpoint_every=100)
    lines = read_curves(train(model, data(tmp_path), tmp_path, options).curves)
    for part in ("loss", "lm"):
        assert lines[-1][part] < lines[0][part]
    for part in ("bce", "dice", "existence"):
        assert lines[-1][part] < 0.7 * lines[0][part], part


def test_a_stopped_run_goes_on_and_ends_with_the_same_weights(model: Svac, tmp_path: Path) -> None:
    whole = train(model, data(tmp_path / "a"), tmp_path / "a", OPTIONS)
    asked = iter([False, False, True])
    first = train(model, data(tmp_path / "b"), tmp_path / "b", OPTIONS, should_stop=lambda: next(asked))
    assert (first.ended, first.steps, first.adapter) == ("stopped", 3, None)
    second = train(model, data(tmp_path / "b"), tmp_path / "b", OPTIONS)
    assert second.steps == whole.steps == 6
    assert whole.adapter is not None
    assert second.adapter is not None
    assert verify_adapter(second.adapter).sha256 == verify_adapter(whole.adapter).sha256
    assert [line["step"] for line in read_curves(second.curves)] == [2, 3, 4, 6]


def test_a_run_that_failed_goes_on_from_its_last_checkpoint(model: Svac, tmp_path: Path) -> None:
    def fails(done: float, message: str) -> None:
        if message.startswith("step 6"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, data(tmp_path), tmp_path, OPTIONS, progress=fails)
    seen: list[str] = []
    result = train(model, data(tmp_path), tmp_path, OPTIONS, progress=lambda _, m: seen.append(m))
    assert seen == ["step 5 of 6", "step 6 of 6"]
    assert [line["step"] for line in read_curves(result.curves)] == [2, 4, 6]
    assert not model.training


def test_other_data_or_options_are_another_run(model: Svac, tmp_path: Path) -> None:
    train(model, data(tmp_path), tmp_path, replace(OPTIONS, steps=2))
    seen: list[str] = []
    other = replace(data(tmp_path), examples=[squares(k) for k in (0, 1, 2, 9)])
    train(model, other, tmp_path, replace(OPTIONS, steps=2), progress=lambda _, m: seen.append(m))
    assert seen[0] == "step 1 of 2"


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, {"run": 1})
    for step in (2, 4, 6):
        kept.save(step, {"w": torch.full((2,), float(step))}, {"state": {}, "param_groups": []}, 1.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000004", "step-000006"]
    file = tmp_path / "step-000006" / "trained.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    found = kept.last()
    assert found is not None
    assert (found[0], found[2]["w"].tolist()) == (4, [4.0, 4.0])
    assert Checkpoints(tmp_path, {"run": 2}).last() is None


def test_a_checkpoint_brings_no_code(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, {})
    kept.save(1, {"w": torch.zeros(1)}, {}, 0.0)
    torch.save({"bad": Path}, tmp_path / "step-000001" / "optimizer.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        torch.load(tmp_path / "step-000001" / "optimizer.pt", weights_only=True)


def test_training_goes_on_from_a_parent(model: Svac, tmp_path: Path) -> None:
    first = train(model, data(tmp_path / "a"), tmp_path / "a", OPTIONS)
    assert first.adapter is not None
    still = replace(OPTIONS, steps=1, lr=1e-12)
    second = train(model, data(tmp_path / "b"), tmp_path / "b", still, parent=first.adapter)
    assert second.adapter is not None
    load_adapter(model, first.adapter)
    one = {n: p.clone() for n, p in model.named_parameters()}
    load_adapter(model, second.adapter)
    assert all(torch.allclose(p, one[n], atol=1e-6) for n, p in model.named_parameters())
    assert verify_adapter(second.adapter).parent == verify_adapter(first.adapter).adapter_id


def test_the_time_limit_ends_a_run_with_an_adapter(model: Svac, tmp_path: Path) -> None:
    result = train(model, data(tmp_path), tmp_path, replace(OPTIONS, steps=500, max_minutes=1e-5))
    assert result.ended == "time"
    assert 1 <= result.steps < 500
    assert result.adapter is not None


def test_memory_that_runs_out_is_said_in_words(
    model: Svac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(train_module.Objective, "forward", full)
    with pytest.raises(SvacError) as caught:
        train(model, data(tmp_path), tmp_path, OPTIONS)
    assert "memory" in caught.value.message
    assert "accumulate" in caught.value.hint
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_code_trains_in_bf16_with_gradient_checkpointing(
    tokenizer_file: Path, tmp_path: Path
) -> None:
    """What a GPU does, on the CPU: half precision for what is frozen, full for what is trained."""
    AcceleratorState._reset_state()
    model = small_model(tokenizer_file).bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = replace(OPTIONS, steps=2, accumulate=2, gradient_checkpointing=True)
    try:
        result = train(model, data(tmp_path), tmp_path, options)
    finally:
        AcceleratorState._reset_state()
    assert result.adapter is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    load_adapter(model, result.adapter)
    assert model.mllm.mlp1[1].weight.dtype == torch.bfloat16
    assert not model.mllm.language_model.is_activation_checkpointing


def test_parts_of_a_step_add_up_to_the_step(model: Svac, tmp_path: Path) -> None:
    losses = []
    for name, parts in (("one", 1), ("two", 2)):
        options = replace(OPTIONS, steps=1, accumulate=parts, dropout=0.0, log_every=1)
        losses.append(read_curves(train(model, data(tmp_path / name), tmp_path / name, options).curves)[0])
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=0.05)
    assert losses[0]["gradient"] == pytest.approx(losses[1]["gradient"], rel=0.15)


def test_the_adapter_goes_a_part_of_the_way(model: Svac, tmp_path: Path) -> None:
    whole = train(model, data(tmp_path / "a"), tmp_path / "a", OPTIONS)
    half = train(model, data(tmp_path / "b"), tmp_path / "b", replace(OPTIONS, keep=0.5))
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert whole.adapter is not None
    assert half.adapter is not None
    _, trained = read_state(whole.adapter)
    _, part = read_state(half.adapter)
    for name, value in part.items():
        if ".lora_A." in name:
            assert torch.equal(value, trained[name])
        else:
            old = base.get(name, torch.zeros_like(value))
            assert torch.allclose(value, (old + trained[name]) / 2, atol=1e-6)


def test_the_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, 100, TrainOptions()) for step in range(100)]
    assert rates[0] == pytest.approx(4e-5 / 5)
    assert max(rates) == pytest.approx(4e-5)
    assert rates.index(max(rates)) in (4, 5)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-6


def test_steps_follow_from_the_corrections() -> None:
    options = TrainOptions()
    assert options.count(10) == options.min_steps
    assert options.count(800) == 800
    assert options.count(10**6) == options.max_steps
    assert options.changed(steps=7, lr=None).count(10**6) == 7
    assert options_for(SMALL).lr > options.lr
    for wrong in ({"batch": 0}, {"replay_share": 1.0}, {"steps": -1}, {"lr": 0.0}):
        with pytest.raises(SvacError):
            TrainOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SvacError, match="no option"):
        options.changed(nonsense=1)


@pytest.mark.integration
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_steps(
    tokenizer_file: Path, tmp_path: Path
) -> None:
    """kill -9 in the middle; the second process ends with the weights of a run that was left alone."""
    script = (
        "import sys, torch\nfrom pathlib import Path\nfrom dataclasses import replace\n"
        "from tests.learning.test_train import OPTIONS, data\nfrom tests.learning.made import small_model\n"
        "from svac_backend.learning.train import train\ntorch.set_num_threads(1)\n"
        "out = Path(sys.argv[2])\n"
        "r = train(small_model(Path(sys.argv[1])), data(out), out, replace(OPTIONS, steps=60))\n"
        "print(r.steps)\n"
    )
    root = Path(__file__).parents[2]

    def start(out: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", script, str(tokenizer_file), str(out)],
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}{os.pathsep}{root / 'scripts'}"},
        )

    process = start(tmp_path / "killed")
    until = time.monotonic() + 60
    while not (tmp_path / "killed" / "checkpoints" / "step-000010").is_dir():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (tmp_path / "killed" / "adapter").exists()
    found = Checkpoints(tmp_path / "killed" / "checkpoints", {})._found()
    reached = json.loads((found[-1] / "run.json").read_text())["step"]
    assert 10 <= reached < 60
    for out in ("killed", "alone"):
        stdout, _ = start(tmp_path / out).communicate(timeout=120)
        assert stdout.strip() == "60"
    hashes = [verify_adapter(tmp_path / out / "adapter").sha256 for out in ("killed", "alone")]
    assert hashes[0] == hashes[1]
