"""Training of LoRA, projector, [SEG] projection and mask decoder, on a CPU, a GPU, or several GPUs with accelerate.

A run writes curves, and checkpoints from which it resumes after a kill.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tensorboardX import SummaryWriter
from torch import Tensor

from svac_backend.atomic import atomic_path
from svac_backend.errors import SvacError
from svac_backend.learning.adapters import (
    LoraOptions,
    attach_lora,
    detach_lora,
    marks_of,
    read_state,
    save_adapter,
    trained_parameters,
    unload_adapter,
)
from svac_backend.learning.curves import read_curves
from svac_backend.learning.examples import Batches, Item
from svac_backend.learning.objective import FrozenParts, Losses, Objective
from svac_backend.learning.options import TrainOptions
from svac_backend.svac.model import Svac
from svac_backend.svac.streaming import prefetch

Progress = Callable[[float, str], None]
_PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "no"}
Ended = Literal["steps", "time", "stopped"]
# Checkpoints that are kept.
_KEPT = 2


@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    Attributes:
        adapter: the adapter's folder; None if the run was stopped: run it again and it resumes.
        steps: optimiser steps, including those of earlier attempts.
        seconds: time spent training, including earlier attempts.
        ended: why it ended.
        curves: JSON lines of the losses.
    """

    adapter: Path | None
    steps: int
    seconds: float
    ended: Ended
    curves: Path


def train(
    model: Svac,
    data: Batches,
    out: Path,
    options: TrainOptions,
    *,
    parent: Path | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train an adapter. Called again with the same arguments after a kill, it resumes from the last checkpoint.

    Args:
        model: the base model; on return it has no adapter and is bit for bit as it was.
        data: what to learn from.
        out: folder of the run; gets `adapter/`, `checkpoints/`, `curves.jsonl` and `events/`.
        options: how to train.
        parent: an adapter to start from.
        progress: called with a fraction 0..1 and a message; an exception that it raises ends the run.
        should_stop: asked after each step; True writes a checkpoint and ends.

    Raises:
        SvacError: memory ran out, a video can't be read, or the folder can't be written.
    """
    unload_adapter(model)
    before = {name: (p.data, p.requires_grad) for name, p in model.named_parameters()}
    try:
        return _Training(model, data, out, options, parent).run(progress, should_stop)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(options) from error
    except RuntimeError as error:
        # PyTorch's CPU allocator has no exception class of its own.
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        raise _out_of_memory(options) from error
    finally:
        if model.mllm.language_model.is_activation_checkpointing:
            model.mllm.language_model.activation_checkpointing_disable()
        detach_lora(model)
        _restore(model, before)
        model.eval()


class _Training:
    def __init__(
        self, model: Svac, data: Batches, out: Path, options: TrainOptions, parent: Path | None
    ) -> None:
        self.model, self.data, self.out, self.options = model, data, out, options
        self.steps = options.count(len(data.examples))
        self.lora = LoraOptions(options.rank, options.alpha, options.dropout).capped(
            model.config.language.hidden_size
        )
        self.marks = marks_of(model)
        self.dtype = next(model.mllm.language_model.parameters()).dtype
        self.parent = None
        start: dict[str, Tensor] = {}
        if parent is not None:
            info, start = read_state(parent)
            self.parent = info.adapter_id
            self.lora = LoraOptions(info.rank, info.alpha, options.dropout)
        self.accelerator = Accelerator(
            cpu=model.device.type == "cpu",
            mixed_precision=_PRECISIONS[self.dtype],
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        model.requires_grad_(False)
        torch.manual_seed(options.seed)
        attach_lora(model, self.lora)
        self.trained = trained_parameters(model)
        for name, parameter in self.trained.items():
            value = start.get(name, parameter.data)
            # Small updates vanish in half precision, so trained parameters are kept in full precision.
            parameter.data = value.to(parameter.device, torch.float32, copy=True)
            parameter.requires_grad_(True)
        # The adapter's values before training, which `keep` interpolates from.
        self.start = {n: p.data.clone() for n, p in self.trained.items()} if options.keep < 1 else {}
        self._prepare_language()
        about = {
            "options": asdict(options),
            "steps": self.steps,
            "lora": asdict(self.lora),
            "parent": self.parent,
            "data": _data_mark(data),
        }
        self.checkpoints = Checkpoints(out / "checkpoints", about)
        if self.accelerator.is_main_process:
            claim(out, about)

    def _prepare_language(self) -> None:
        """Enable dropout for LoRA only; on a GPU, compute activations twice instead of keeping them."""
        self.model.eval()
        language = self.model.mllm.language_model
        language.train()
        wanted = self.options.gradient_checkpointing
        if self.accelerator.device.type == "cuda" if wanted is None else wanted:
            language.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

    def run(self, progress: Progress | None, should_stop: Callable[[], bool] | None) -> TrainResult:
        o, accelerator = self.options, self.accelerator
        objective = Objective(self.model, FrozenParts(self.model))
        decoder = [p for name, p in self.trained.items() if name.startswith("sam.")]
        others = [p for name, p in self.trained.items() if not name.startswith("sam.")]
        groups = [{"params": others, "factor": 1.0}, {"params": decoder, "factor": o.decoder_rate}]
        optimizer: Any = torch.optim.AdamW(
            groups, lr=o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay
        )
        done, before = 0, 0.0
        if found := self.checkpoints.last():
            done, before, state, optimizer_state = found
            for name, parameter in self.trained.items():
                parameter.data.copy_(state[name])
            optimizer.load_state_dict(optimizer_state)
        objective, optimizer = accelerator.prepare(objective, optimizer)
        curves = Curves(self.out, o.log_every, done, of=self.steps) if accelerator.is_main_process else None
        began = time.monotonic()
        ended: Ended = "steps"
        feed = prefetch((self._items(step) for step in range(done, self.steps)), 1)
        try:
            for parts in feed:
                if progress:
                    progress(done / self.steps, f"step {done + 1} of {self.steps}")
                figures = self._step(objective, optimizer, done, parts)
                done += 1
                seconds = before + time.monotonic() - began
                ended = self._end(done, seconds, should_stop)
                over = ended != "steps" or done == self.steps
                if curves:
                    curves.add(done, seconds, figures, last=over)
                if over or done % o.checkpoint_every == 0:
                    self._checkpoint(done, optimizer, seconds)
                if over:
                    break
        finally:
            feed.close()
            if curves:
                curves.close()
        seconds = before + time.monotonic() - began
        path = self.out / "curves.jsonl"
        if ended == "stopped":
            return TrainResult(None, done, seconds, ended, path)
        if done < self.steps:
            ended = "time"
        adapter = self.out / "adapter"
        if accelerator.is_main_process:
            save_adapter(
                adapter,
                self._kept(),
                self.dtype,
                lora=self.lora,
                marks=self.marks,
                parent=self.parent,
                steps=done,
            )
        accelerator.wait_for_everyone()
        return TrainResult(adapter, done, seconds, ended, path)

    def _kept(self) -> dict[str, Tensor]:
        """Return the adapter's values: part of the way, `keep`, from the old values to the trained ones."""
        share = self.options.keep
        if share == 1:
            return {name: p.data for name, p in self.trained.items()}
        return {
            # LoRA's product starts at 0 because its second factor does; the start of the first factor does not matter.
            name: p.data
            if self.parent is None and ".lora_A." in name
            else self.start[name].lerp(p.data, share)
            for name, p in self.trained.items()
        }

    def _items(self, step: int) -> list[list[Item]]:
        """Return this process's examples of a step, divided into the parts that are computed one by one."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        items = self.data.items(step, rank=rank, world=world)
        count = min(self.options.accumulate, len(items))
        return [items[k::count] for k in range(count)]

    def _step(self, objective: Any, optimizer: Any, done: int, parts: list[list[Item]]) -> dict[str, float]:
        o, accelerator = self.options, self.accelerator
        # Dropout and sampled points depend on the step alone, so that a resumed run repeats them.
        torch.manual_seed(int.from_bytes(hashlib.sha256(f"{o.seed} {done}".encode()).digest()[:7], "big"))
        rate = learning_rate(done, self.steps, o)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for k, items in enumerate(parts):
            waits = accelerator.no_sync(objective) if k + 1 < len(parts) else nullcontext()
            with waits, accelerator.autocast():
                losses: Losses = objective(items)
                accelerator.backward(losses.total / len(parts))
            for name, value in _figures(losses).items():
                sums[name] = sums.get(name, 0.0) + value / len(parts)
        norm = accelerator.clip_grad_norm_(list(self.trained.values()), o.clip)
        if not math.isfinite(sums["loss"]) or not math.isfinite(float(norm)):
            raise SvacError(
                f"Training diverged at step {done + 1}: the loss is no longer a number.",
                "Lower the learning rate, for example to half.",
            )
        optimizer.step()
        return {**sums, "lr": rate, "gradient": float(norm)}

    def _end(self, done: int, seconds: float, should_stop: Callable[[], bool] | None) -> Ended:
        """Return whether and why the run ends here; all processes must agree, so the first one decides."""
        limit = self.options.max_minutes * 60
        stop = bool(should_stop and should_stop())
        late = bool(limit and seconds >= limit and done < self.steps)
        if self.accelerator.num_processes > 1:
            told = torch.tensor([int(stop), int(late)], device=self.accelerator.device)
            stop, late = (bool(v) for v in self.accelerator.gather(told).view(-1, 2)[0].tolist())
        return "stopped" if stop else "time" if late else "steps"

    def _checkpoint(self, done: int, optimizer: Any, seconds: float) -> None:
        if self.accelerator.is_main_process:
            state = {name: p.data for name, p in self.trained.items()}
            self.checkpoints.save(done, state, optimizer.state_dict(), seconds)
        self.accelerator.wait_for_everyone()


def learning_rate(done: int, steps: int, options: TrainOptions) -> float:
    """Return the rate of the step after `done`: a linear rise, then a cosine down to a hundredth."""
    rise = max(1, round(steps * options.warmup))
    if done < rise:
        return options.lr * (done + 1) / rise
    part = (done - rise) / max(1, steps - rise)
    return options.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part)))


def _figures(losses: Losses) -> dict[str, float]:
    parts = {**vars(losses), "loss": losses.total, "iou": torch.tensor(losses.iou)}
    return {name: float(value.detach()) for name, value in parts.items()}


def _data_mark(data: Batches) -> str:
    """Return a hash of what is learned from: other data is another run."""
    digest = hashlib.sha256(repr((data.batch, data.replay_share, data.frames_per_clip, data.seed)).encode())
    for example in (*data.examples, *data.replay):
        frames = [(i, example.masks[i]["counts"] if i in example.masks else "") for i in example.frames]
        digest.update(repr((example.video.key, example.expression, sorted(example.drawn), frames)).encode())
    return digest.hexdigest()[:16]


def _out_of_memory(options: TrainOptions) -> SvacError:
    return SvacError(
        f"There is not enough memory to train with a batch of {options.batch} in {options.accumulate} parts.",
        f"Compute the step in {options.batch} parts (accumulate), lower the rank of LoRA or frames_per_clip, turn on "
        "gradient_checkpointing, or take a smaller model; docs/learn.md lists the memory needed.",
    )


def _restore(model: Svac, before: dict[str, tuple[Tensor, bool]]) -> None:
    """Restore every parameter's old value, bit for bit, by putting the old tensor back."""
    for name, (value, trainable) in before.items():
        parameter = model.get_parameter(name)
        parameter.grad = None
        parameter.data = value
        parameter.requires_grad_(trainable)


class Checkpoints:
    """The checkpoints of one run; each appears whole or not at all, and the last two are kept.

    Args:
        folder: where they lie.
        about: identifies the run; a run does not resume from the checkpoints of another.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self._about = json.loads(json.dumps(about))

    def save(self, step: int, state: Mapping[str, Tensor], optimizer: dict[str, Any], seconds: float) -> None:
        """Write the trained parameters (safetensors) and the optimiser's state after `step` steps."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for half in self.folder.glob(".step-*.part"):  # of a run that was killed
            shutil.rmtree(half)
        target = self.folder / f"step-{step:06d}"
        with atomic_path(target) as made:
            made.mkdir()
            values = {key: t.detach().cpu().contiguous() for key, t in state.items()}
            save_file(values, made / "trained.safetensors")
            torch.save(optimizer, made / "optimizer.pt")
            run = {"step": step, "seconds": seconds, "about": self._about}
            (made / "run.json").write_text(json.dumps(run))
            shutil.rmtree(target, ignore_errors=True)
        for old in self._found()[:-_KEPT]:
            shutil.rmtree(old)

    def last(self) -> tuple[int, float, dict[str, Tensor], dict[str, Any]] | None:
        """Return steps, seconds, trained parameters and optimiser state of the last undamaged checkpoint of this run.

        None if there is none.
        """
        for folder in reversed(self._found()):
            try:
                run = json.loads((folder / "run.json").read_text())
                if run["about"] != self._about:
                    return None
                state = load_file(folder / "trained.safetensors")
                # Only tensors and numbers, so a checkpoint cannot bring code.
                optimizer = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
                return run["step"], run["seconds"], state, optimizer
            except (OSError, ValueError, KeyError, SafetensorError, RuntimeError, EOFError):
                continue
        return None

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))


@dataclass
class Curves:
    """Curves as JSON lines and as TensorBoard's event files.

    Attributes:
        folder: gets `curves.jsonl` and `events/`.
        every: steps that one line stands for.
        start: steps that were done before; lines of later steps, from before a kill, are dropped.
        of: total number of steps.
    """

    folder: Path
    every: int
    start: int = 0
    of: int = 0
    _sums: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        """Begin, or resume."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_curves(self.path) if line["step"] <= self.start]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._events = SummaryWriter(
            str(self.folder / "events"), purge_step=self.start + 1, write_to_disk=True, flush_secs=30
        )

    @property
    def path(self) -> Path:
        """The JSON lines."""
        return self.folder / "curves.jsonl"

    def add(self, step: int, seconds: float, figures: Mapping[str, float], *, last: bool = False) -> None:
        """Record a step (1-based); NaN values are left out."""
        for name, value in figures.items():
            if value == value:
                self._sums[name].append(value)
        if step % self.every and not last:
            return
        means = {name: round(sum(values) / len(values), 6) for name, values in self._sums.items()}
        self._sums.clear()
        with self.path.open("a") as file:
            file.write(
                json.dumps({"step": step, "of": self.of, "seconds": round(seconds, 1), **means}) + "\n"
            )
        for name, value in means.items():
            self._events.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """Close the event file."""
        self._events.close()


def claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Make the folder of a run.

    Raises:
        SvacError: it can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise SvacError(
            f"{folder} can't be written ({error.strerror}).", "Give a folder on a disk with space."
        ) from error
