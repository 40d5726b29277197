#!/usr/bin/env python3
"""Train `svac-tiny` from nothing, measure it, and write weights, config, tokenizer and model card.

python scripts/train_embedded.py --work data/embedded            # about 45 minutes on 2 free cores
python scripts/train_embedded.py --work data/embedded --publish  # and replace the weights in the package
"""

from __future__ import annotations

import os

# Threads that spin while they wait starve whatever else runs on the machine; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

from svac_backend.svac.model import Svac
from svac_backend.svac.weights import EMBEDDED
from svac_backend.training.embedded.card import write_card
from svac_backend.training.embedded.measure import measure
from svac_backend.training.embedded.recipe import SCENES, Steps, train


def main(
    work: Annotated[
        Path, typer.Option(help="Folder of checkpoints and curves; a run continues what is there.")
    ],
    scale: Annotated[float, typer.Option(help="Steps of every stage, times this.")] = 1.0,
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="0: as many as torch wants.")] = 0,
    scenes: Annotated[int, typer.Option(help="Validation scenes to measure on.")] = 200,
    publish: Annotated[bool, typer.Option(help="Replace the weights that ship in the package.")] = False,
) -> None:
    """Train, measure, and write `work/model`."""
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = Steps().scaled(scale)
    train(work, steps=steps, device=device, seed=seed)
    # Measured is what ships: the fp16 file, loaded the way users load it.
    figures = measure(
        Svac.from_pretrained(work / "model", device=device, dtype="float32"), SCENES, seeds=range(scenes)
    )
    for kind, row in figures.items():
        print(f"{kind:12} n={row.count:4} J={row.j:5.1f} F={row.f:5.1f} chance={row.chance:5.1f}")
    (work / "figures.json").write_text(
        json.dumps({kind: vars(row) for kind, row in figures.items()}, indent=2)
    )
    write_card(work / "model", figures, steps)
    if publish:
        target = EMBEDDED["svac-tiny"]
        target.mkdir(parents=True, exist_ok=True)
        for path in (work / "model").iterdir():
            shutil.copy2(path, target / path.name)
        print(f"published to {target}")


if __name__ == "__main__":
    typer.run(main)
