#!/usr/bin/env python3
"""Train `svac-tiny` from nothing, measure it, and write weights, config, tokenizer and model card.

python scripts/train_embedded.py --work data/embedded            # about 45 minutes on 2 free cores
python scripts/train_embedded.py --work data/embedded --publish  # and replace the weights in the package
python scripts/train_embedded.py --work data/memory --onto svac-tiny  # memory and prompts only, language as it is
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
from svac_backend.training.embedded.memory_measure import measure_hidden, measure_memory
from svac_backend.training.embedded.recipe import SCENES, Steps, train


def main(
    work: Annotated[
        Path, typer.Option(help="Folder of checkpoints and curves; a run continues what is there.")
    ],
    scale: Annotated[float, typer.Option(help="Steps of every stage, times this.")] = 1.0,
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="0: as many as torch wants.")] = 0,
    onto: Annotated[
        str | None, typer.Option(help="A model whose language path is kept; trains memory and prompts only.")
    ] = None,
    scenes: Annotated[int, typer.Option(help="Validation scenes to measure on.")] = 200,
    publish: Annotated[bool, typer.Option(help="Replace the weights that ship in the package.")] = False,
) -> None:
    """Train, measure, and write `work/model`."""
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = Steps().scaled(scale)
    train(work, steps=steps, device=device, seed=seed, onto=onto)
    # Measured is what ships: the fp16 file, loaded the way users load it.
    model = Svac.from_pretrained(work / "model", device=device, dtype="float32")
    figures = measure(model, SCENES, seeds=range(scenes))
    travelled = measure_memory(model.sam, SCENES, seeds=range(scenes // 2))
    travelled |= measure_hidden(model.sam, SCENES, batches=max(1, scenes // 4))
    for kind, row in figures.items():
        print(f"{kind:12} n={row.count:4} J={row.j:5.1f} F={row.f:5.1f} chance={row.chance:5.1f}")
    for name, values in travelled.items():
        print(f"{name:20} J={' '.join(f'{value:.0f}' for value in values)}")
    (work / "figures.json").write_text(
        json.dumps({kind: vars(row) for kind, row in figures.items()} | {"memory": travelled}, indent=2)
    )
    write_card(work / "model", figures, travelled, steps)
    if publish:
        target = EMBEDDED["svac-tiny"]
        target.mkdir(parents=True, exist_ok=True)
        for path in (work / "model").iterdir():
            shutil.copy2(path, target / path.name)
        print(f"published to {target}")


if __name__ == "__main__":
    typer.run(main)
