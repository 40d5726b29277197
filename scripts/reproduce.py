#!/usr/bin/env python3
"""Put the paper's three claims to the test on generated videos: train each variant a little, score it, draw it.

python scripts/reproduce.py --out out/reproduction                  # all claims, 3 seeds; goes on where it was stopped
python scripts/reproduce.py --out out/reproduction --seeds 0,1 --threads 1 &   # a process for each core is faster
python scripts/reproduce.py --out out/reproduction --seeds 2,3 --threads 1
python scripts/reproduce.py --out out/as-it-is --adapt 0            # nothing is trained
python scripts/reproduce.py --out out/reproduction --draw           # only plots and tables, from results.jsonl
"""

from __future__ import annotations

import os

# Threads that spin while they wait starve whatever else runs on the machine; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from svac_backend.errors import SvacError

app = typer.Typer(add_completion=False)


@app.command()
def reproduce(
    out: Annotated[Path, typer.Option(help="Folder of results, plots and tables.")] = Path(
        "out/reproduction"
    ),
    claims: Annotated[str, typer.Option(help="Which of frames, tokens and csa.")] = "frames,tokens,csa",
    seeds: Annotated[str, typer.Option(help="Seeds of each variant, 0 to 14.")] = "0,1,2",
    scenes: Annotated[int, typer.Option(min=1, max=200, help="Scored scenes of each seed.")] = 12,
    adapt: Annotated[
        int, typer.Option(min=0, help="Training steps of each variant; 0: the weights as they are.")
    ] = 40,
    adapt_tokens: Annotated[
        int,
        typer.Option(
            min=0, help="Variants with more visual tokens take weights of fewer frames; 0: no limit."
        ),
    ] = 1500,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of these steps.")] = 2e-4,
    length: Annotated[int, typer.Option(min=6, help="Frames of a clip.")] = 100,
    scored: Annotated[int, typer.Option(min=1, help="Frames of a clip that are scored.")] = 16,
    name: Annotated[str, typer.Option("--model", help="Embedded model, folder or repository.")] = "svac-tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="torch's threads; 0: as many as it wants.")] = 0,
    draw: Annotated[bool, typer.Option("--draw", help="Only draw what is there.")] = False,
    into: Annotated[
        Path | None, typer.Option(help="Also write tables and plots into this document, between its marks.")
    ] = None,
) -> None:
    """Put the paper's three claims to the test."""
    from lab.reproduction.report import write_report
    from lab.reproduction.results import Results
    from lab.reproduction.variants import CLAIMS

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    if not all(part.strip().isdigit() for part in seeds.split(",")):
        raise SvacError(f"{seeds!r} are no seeds.", "Give numbers with commas between, such as 0,1,2.")
    numbers = sorted({int(part) for part in seeds.split(",")})
    wanted = [claim.strip() for claim in claims.split(",") if claim.strip()]
    unknown = [claim for claim in wanted if claim not in CLAIMS]
    if unknown or not wanted:
        raise SvacError(
            f"There is no claim {unknown[0]!r}." if unknown else "No claim is named.",
            f"Choose from {', '.join(CLAIMS)}.",
        )
    if draw:
        results = Results(out)
    else:
        import cv2
        import torch
        from lab.reproduction.adaptation import Adaptation
        from lab.reproduction.study import Study, StudySettings

        from svac_backend.svac.files.weights import model_version
        from svac_backend.svac.model import Svac

        if threads:
            torch.set_num_threads(threads)
        cv2.setNumThreads(1)
        torch.manual_seed(0)
        model = Svac.from_pretrained(name, device=device, dtype="float32")
        settings = StudySettings(
            model=model_version(name),
            scenes=scenes,
            scored=scored,
            length=length,
            limit=adapt_tokens,
            adaptation=Adaptation(steps=adapt, lr=lr),
        )
        results = Study(model, settings, out, say).run(wanted, numbers)
    for path in write_report(results.lines, out, into):
        say(f"wrote {path}")


def main() -> None:
    """Run; a mistake of the user ends in one line, not in a traceback."""
    try:
        app()
    except SvacError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
