"""Muon and AdamW with warm-up and cosine, over one process or several, and the record of a stage's curves.

Muon (torch's own) makes all directions of a weight matrix's step equally long. On these small nets that is worth
more than anything else that was tried: the words of a sentence were learned in a third of the steps, what stands
where in half.
"""

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
from torch import Tensor, nn
from torch.nn import Parameter


@dataclass
class Schedule:
    """One stage's optimisation.

    Attributes:
        name: stage name, for the log.
        steps: optimiser steps.
        lr: peak learning rate of AdamW; warm-up over 5 %, then cosine to a twentieth.
        seed: seeds the data of every step.
        log: JSON lines file that the curves are appended to.
        every: steps between two lines of it.
        weight_decay: of AdamW.
        matrix_lr: peak learning rate of Muon, likewise.
    """

    name: str
    steps: int
    lr: float
    seed: int
    log: Path
    every: int = 25
    weight_decay: float = 0.02
    matrix_lr: float = 0.02
    _sums: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _at: int = 0
    _started: float = 0.0

    def run(
        self, parameters: Sequence[Parameter], matrices: Sequence[Tensor] = ()
    ) -> Iterator[tuple[int, np.random.Generator]]:
        """Yield each step's number and random generator; `step` must be called once for each.

        Args:
            parameters: all that are trained.
            matrices: which of them take Muon's steps; see `matrices_of`.
        """
        self._parameters = [p for p in parameters if p.requires_grad]
        hidden = {id(p) for p in matrices}
        others = [p for p in self._parameters if id(p) not in hidden]
        adam = torch.optim.AdamW(others, lr=self.lr, betas=(0.9, 0.98), weight_decay=self.weight_decay)
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [(adam, self.lr)]
        if chosen := [p for p in self._parameters if id(p) in hidden]:
            self._optimizers.append((torch.optim.Muon(chosen, weight_decay=0.01), self.matrix_lr))
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
        share = min(1.0, (self._at + 1) / warm) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
        for optimizer, peak in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _average(self._parameters)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimizer, _ in self._optimizers:
            optimizer.step()
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
            print(" ".join(f"{k}={v}" for k, v in line.items()), flush=True)


def matrices_of(*modules: nn.Module) -> list[Tensor]:
    """Return the weights of the linear layers, which Muon is for; not those that are an embedding table as well."""
    inside = [part for module in modules for part in module.modules()]
    tables = {id(part.weight) for part in inside if isinstance(part, nn.Embedding)}
    return [part.weight for part in inside if isinstance(part, nn.Linear) and id(part.weight) not in tables]


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
