"""AdamW with warm-up and cosine, over one process or several, and the record of a stage's curves."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter


@dataclass
class Schedule:
    """One stage's optimisation.

    Attributes:
        name: stage name, for the log.
        steps: optimiser steps.
        lr: peak learning rate; warm-up over 5 %, then cosine to a twentieth.
        seed: seeds the data of every step.
        log: JSON lines file that the curves are appended to.
    """

    name: str
    steps: int
    lr: float
    seed: int
    log: Path
    every: int = 25
    weight_decay: float = 0.02
    _sums: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _at: int = 0
    _started: float = 0.0

    def run(self, parameters: Sequence[Parameter]) -> Iterator[tuple[int, np.random.Generator]]:
        """Yield each step's number and random generator; `step` must be called once for each."""
        self._parameters = [p for p in parameters if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=self.lr, betas=(0.9, 0.98), weight_decay=self.weight_decay
        )
        self._started = time.monotonic()
        for step in range(self.steps):
            self._at = step
            yield step, np.random.default_rng([self.seed, step, _rank()])

    def rng(self) -> np.random.Generator:
        """Return the generator of what is made before the first step, another one in every process."""
        return np.random.default_rng([self.seed, 2**31, _rank()])

    def step(self, loss: Tensor, figures: dict[str, float]) -> None:
        """Do one optimiser step and record the figures; processes average their gradients."""
        warm = max(1, self.steps // 20)
        done = self._at / self.steps
        rate = (
            self.lr * min(1.0, (self._at + 1) / warm) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _average(self._parameters)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        for key, value in {"loss": loss.item(), **figures}.items():
            self._sums[key].append(value)
        if (self._at + 1) % self.every == 0 or self._at + 1 == self.steps:
            means = {key: round(float(np.mean(values)), 4) for key, values in self._sums.items()}
            self._sums.clear()
            line = {
                "stage": self.name,
                "step": self._at + 1,
                "seconds": round(time.monotonic() - self._started, 1),
                **means,
            }
            if _rank():
                return
            with self.log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(" ".join(f"{k}={v}" for k, v in line.items()), flush=True)  # noqa: T201


def _rank() -> int:
    """Return which of the training's processes this is."""
    return dist.get_rank() if dist.is_initialized() else 0


def _average(parameters: Sequence[Parameter]) -> None:
    """Average the gradients over the processes, in one message."""
    if not dist.is_initialized():
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    joined = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(joined)
    joined /= dist.get_world_size()
    for p, part in zip(parameters, joined.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p)
