"""Long training that survives being killed: it goes on from its last checkpoint with the very steps that were left.

Every step's data follows from seed, stage and step alone. A checkpoint has weights, their running mean, the optimisers
and the step; it replaces the one before whole or not at all.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from lab.train_tiny.schedule import matrices_of
from svac_backend.atomic import atomic_path

T = TypeVar("T")


@dataclass(frozen=True)
class StagePlan:
    """How a stage is optimised.

    Attributes:
        name: of the stage.
        number: its place in the recipe; seeds its data.
        steps: optimiser steps.
        lr, matrix_lr: peak learning rates of AdamW and Muon, after a warm-up; with no `matrix_lr`, AdamW trains all.
        rests: names that begin so are not trained.
        slow: names that begin so are trained at `slow_factor` times these rates.
        falls: the learning rate falls to a twentieth along a cosine; else it stays, and another stage has to cool down.
    """

    name: str
    number: int
    steps: int
    lr: float
    matrix_lr: float = 0.0
    rests: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    slow_factor: float = 0.1
    falls: bool = False


@dataclass
class ResumableStage:
    """One stage's training of a module in a work folder.

    Attributes:
        plan: the stage's.
        model: what is trained, in place.
        work: folder of `checkpoint.pt` and `curves.jsonl`.
        seed: of the run.
        mean_over: steps that the running mean of the weights reaches back.
        checkpoint_seconds: between two checkpoints.
        log_every: steps between two lines of the log.
    """

    plan: StagePlan
    model: nn.Module
    work: Path
    seed: int = 0
    mean_over: int = 500
    checkpoint_seconds: float = 300.0
    log_every: int = 25
    step: int = 0
    _sums: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.parameters = self._resting_set()
        self._optimizers = self._made()
        self.mean = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self._saved = time.monotonic()
        self._load()

    @property
    def checkpoint(self) -> Path:
        """Where the stage's state is."""
        return self.work / f"{self.plan.number}-{self.plan.name}.pt"

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.plan.steps

    def batches(self, make: Callable[[np.random.Generator, int], T]) -> Iterator[tuple[int, T]]:
        """Yield the steps that are left with what `make` makes of a generator and the step, one step ahead."""

        def made(step: int) -> T:
            return make(np.random.default_rng([self.seed, self.plan.number, step]), step)

        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(made, self.step)
            while not self.done:
                step, batch = self.step, ahead.result()
                if step + 1 < self.plan.steps:
                    ahead = pool.submit(made, step + 1)
                yield step, batch

    def take(self, loss: Tensor, figures: dict[str, float]) -> None:
        """Do one step, record the figures, and keep a checkpoint when it is time."""
        share = self._share()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if torch.isfinite(norm):
            for optimizer in self._optimizers:
                optimizer.step()
        self._average()
        self.step += 1
        for key, value in {"loss": loss.item(), "gradient": norm.item(), **figures}.items():
            self._sums[key].append(value)
        if self.step % self.log_every == 0 or self.done:
            self.tell({key: round(float(np.mean(values)), 4) for key, values in self._sums.items()})
            self._sums.clear()
        if self.done or time.monotonic() - self._saved > self.checkpoint_seconds:
            self.save()

    def tell(self, figures: dict[str, float]) -> None:
        """Append a line to the curves and print it."""
        line: dict[str, Any] = {
            "stage": self.plan.name,
            "step": self.step,
            "time": round(time.time()),
            **figures,
        }
        with (self.work / "curves.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(" ".join(f"{key}={value}" for key, value in line.items()), flush=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Run the model with the running mean of its weights meanwhile."""
        own = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.mean)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def save(self) -> None:
        """Keep a checkpoint."""
        with atomic_path(self.checkpoint) as path:
            torch.save(
                {
                    "step": self.step,
                    "model": self.model.state_dict(),
                    "mean": self.mean,
                    "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
                },
                path,
            )
        self._saved = time.monotonic()

    def _load(self) -> None:
        if not self.checkpoint.is_file():
            return
        kept = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.step, self.mean = kept["step"], kept["mean"]
        self.model.load_state_dict(kept["model"])
        for optimizer, state in zip(self._optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def _resting_set(self) -> list[Parameter]:
        """Let what rests need no gradients; return what is trained."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(self.plan.rests))
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _made(self) -> list[torch.optim.Optimizer]:
        slow = {id(p) for name, p in self.model.named_parameters() if name.startswith(self.plan.slow)}
        linear = {id(p) for p in matrices_of(self.model)} if self.plan.matrix_lr else set()
        optimizers: list[torch.optim.Optimizer] = []
        for kind, lr in ((False, self.plan.lr), (True, self.plan.matrix_lr)):
            groups = []
            for is_slow in (False, True):
                chosen = [
                    p for p in self.parameters if (id(p) in linear) is kind and (id(p) in slow) is is_slow
                ]
                if chosen:
                    peak = lr * (self.plan.slow_factor if is_slow else 1.0)
                    groups.append({"params": chosen, "lr": peak, "peak": peak})
            if groups:
                optimizers.append(
                    SingleMuon(groups, weight_decay=0.01)
                    if kind
                    else torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)
                )
        return optimizers

    def _share(self) -> float:
        warm = min(1.0, (self.step + 1) / 100)
        if not self.plan.falls:
            return warm
        return warm * (0.05 + 0.95 * 0.5 * (1 + cos(pi * self.step / self.plan.steps)))

    @torch.no_grad()
    def _average(self) -> None:
        weight = max(1 / self.mean_over, 1 / (self.step + 1))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, weight)
            else:
                self.mean[name].copy_(value)


class SingleMuon(torch.optim.Optimizer):
    """`torch.optim.Muon` in single precision: torch's makes its products in bfloat16, which most CPUs emulate.

    On two such cores its step took 3.5 to 7 s, where all else of a training step took 3.

    Args:
        groups: of matrices, with `lr` each.
        weight_decay, momentum: as torch's.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                buffer = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonal(matrix.grad.lerp(buffer, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * max(1.0, len(matrix) / matrix.shape[1]) ** 0.5)


def orthogonal(matrix: Tensor, *, rounds: int = 5) -> Tensor:
    """Return the matrix with singular values near 1, by Muon's quintic iteration."""
    tall = len(matrix) > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(rounds):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x
