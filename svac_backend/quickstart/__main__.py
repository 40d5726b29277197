"""`python -m svac_backend.quickstart`; `scripts/quickstart.sh` installs everything first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from svac_backend.errors import SvacError
from svac_backend.quickstart.app import Options, Quickstart


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Verify what was made, stop everything, exit.")
    ] = False,
    video: Annotated[Path | None, typer.Option(help="Your own video instead of the demo's.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to segment in it; repeat it for more objects.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Label Studio.")] = 8080,
    backend_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the backend.")] = 9090,
    data: Annotated[Path, typer.Option(help="Folder that keeps everything.")] = Path(".quickstart"),
) -> None:
    """Start Label Studio and the backend with a pre-labelled project."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if prompt and video is None:
            raise SvacError(
                "--prompt belongs to --video.", "Name the video too, or leave both out for the demo."
            )
        status = Quickstart(Options(data, port, backend_port, check, video, tuple(prompt or ()))).run()
    except SvacError as error:
        console.print(f"[quickstart] {error.message}\n[quickstart] {error.hint}", markup=False)
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    typer.run(main)
