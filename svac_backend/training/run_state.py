"""Checkpoints and curves of a run: what a run that was killed goes on from, and what it writes down."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tensorboardX import SummaryWriter
from torch import Tensor

from svac_backend.errors import SvacError

_KEPT = 2


class Checkpoints:
    """Checkpoints of one run; each appears whole or not at all, and the last two are kept.

    Args:
        folder: where.
        about: what the run is; checkpoints of another run are not gone on from.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self._about = json.loads(json.dumps(about))

    def save(self, step: int, state: Mapping[str, Tensor], optimizer: dict[str, Any], seconds: float) -> None:
        """Write what is trained (safetensors) and the optimiser's state after `step` steps."""
        made, target = self.folder / f"step-{step:06d}.part", self.folder / f"step-{step:06d}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        save_file(
            {key: t.detach().cpu().contiguous() for key, t in state.items()}, made / "trained.safetensors"
        )
        torch.save(optimizer, made / "optimizer.pt")
        (made / "run.json").write_text(json.dumps({"step": step, "seconds": seconds, "about": self._about}))
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
        for old in self._found()[:-_KEPT]:
            shutil.rmtree(old)

    def last(self) -> tuple[int, float, dict[str, Tensor], dict[str, Any]] | None:
        """Return steps, seconds, what is trained and the optimiser's state of the last checkpoint of this run.

        A damaged one is passed over for the one before.
        """
        for folder in reversed(self._found()):
            try:
                run = json.loads((folder / "run.json").read_text())
                if run["about"] != self._about:
                    return None
                state = load_file(folder / "trained.safetensors")
                # Nothing but tensors and numbers: a checkpoint can't bring code.
                optimizer = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
                return run["step"], run["seconds"], state, optimizer
            except (OSError, ValueError, KeyError, SafetensorError, RuntimeError, EOFError):
                continue
        return None

    def clear(self) -> None:
        """Delete them all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _found(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step-*") if p.suffix != ".part")


@dataclass
class Curves:
    """Curves as JSON lines and as TensorBoard's event files.

    Attributes:
        folder: gets `curves.jsonl` and `events/`.
        every: steps that one line stands for.
        start: steps that were done before; lines of later ones, from before a kill, are dropped.
    """

    folder: Path
    every: int
    start: int = 0
    _sums: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        """Begin, or go on."""
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
        """Record a step (1-based); NaN is no value."""
        for name, value in figures.items():
            if value == value:
                self._sums[name].append(value)
        if step % self.every and not last:
            return
        means = {name: round(sum(values) / len(values), 6) for name, values in self._sums.items()}
        self._sums.clear()
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **means}) + "\n")
        for name, value in means.items():
            self._events.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """Close the event file."""
        self._events.close()


def read_curves(path: Path) -> list[dict[str, float]]:
    """Return the lines of `curves.jsonl`; a last one that was cut off is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


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
