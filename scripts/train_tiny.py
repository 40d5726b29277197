#!/usr/bin/env python3
r"""Train `svac-tiny` from nothing, measure it, and write weights, config, tokenizer and model card.

python scripts/train_tiny.py --work data/embedded            # trains, measures, writes data/embedded/model
python scripts/train_tiny.py --work data/embedded --publish  # and replaces the weights in the package
python scripts/train_tiny.py --work data/memory --onto svac-tiny  # memory only; what is said stays as it is
python scripts/train_tiny.py --work data/check --measure svac-tiny  # trains nothing: the card's figures again

Without a GPU, a process for each core is faster than one process for all:

python -m torch.distributed.run --standalone --nproc-per-node 2 \
    scripts/train_tiny.py --work data/embedded --threads 1
"""

from __future__ import annotations

import os

# Threads that spin while they wait starve whatever else runs on the machine; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from lab.train_tiny.memory_measure import measure_hidden, measure_memory
from lab.train_tiny.recipe import SCENES, StageSteps, train
from lab.train_tiny.report import measure_all, measure_and_write_card

from svac_backend.svac.files.weights import EMBEDDED
from svac_backend.svac.model import Svac


def main(
    work: Annotated[
        Path, typer.Option(help="Folder of checkpoints and curves; a run continues what is there.")
    ],
    scale: Annotated[float, typer.Option(help="Steps of every stage, times this.")] = 1.0,
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="Of each process; 0: as many as torch wants.")] = 0,
    onto: Annotated[
        str | None, typer.Option(help="A model whose language path is kept; trains memory only.")
    ] = None,
    videos: Annotated[int, typer.Option(help="Held-out videos to measure on; 0: all 90.")] = 0,
    publish: Annotated[bool, typer.Option(help="Replace the weights that ship in the package.")] = False,
    measured: Annotated[
        str | None, typer.Option("--measure", help="Measure this model as the card says; trains nothing.")
    ] = None,
) -> None:
    """Train, measure, and write `work/model`."""
    if threads:
        torch.set_num_threads(threads)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked = {"videos": videos or None, "control_videos": 45, "workers": os.cpu_count() or 1, "device": device}
    if measured:
        measure_all(measured, work, **asked)
        return
    steps = StageSteps().scaled(scale)
    train(work, steps=steps, device=device, seed=seed, onto=onto)
    if dist.is_initialized():
        first = dist.get_rank() == 0
        dist.destroy_process_group()
        if not first:
            return
    # Measured is what ships: the fp16 file, loaded the way users load it.
    model = Svac.from_pretrained(work / "model", device=device, dtype="float32")
    sam = model.hint_sam or model.sam
    scenes = replace(SCENES, width=sam.image_size, height=sam.image_size)
    travelled = measure_memory(sam, scenes, seeds=range(100))
    travelled |= measure_hidden(sam, scenes, batches=50)
    measure_and_write_card(work / "model", work, travelled, vars(steps), **asked)
    if publish:
        target = EMBEDDED["svac-tiny"]
        target.mkdir(parents=True, exist_ok=True)
        for path in (work / "model").iterdir():
            shutil.copy2(path, target / path.name)
        print(f"published to {target}")


if __name__ == "__main__":
    typer.run(main)
