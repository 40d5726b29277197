"""Benchmarks, each printing a table: `python scripts/benchmark.py --help`.

A benchmark lives in `scripts/lab/benchmarks/<name>.py`; its command here imports it when it is called, so that one
benchmark does not need what another does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from svac_backend.errors import SvacError

SHARED_MASKS = Path(__file__).parents[1] / ".." / "shared" / "masks"

app = typer.Typer(help="Benchmarks, each printing a table.", no_args_is_help=True, add_completion=False)


@app.command()
def rle(
    masks: Annotated[
        Path | None, typer.Option(help="Folder of mask PNGs; ../shared/masks, else generated.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many masks, spread evenly over the folder.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions of each mask; the best one counts.")] = 5,
) -> None:
    """Brush RLE: our codec and the Label Studio SDK's, side by side."""
    from lab.benchmarks import rle as benchmark

    folder = masks or (SHARED_MASKS if SHARED_MASKS.is_dir() else None)
    loaded, what = benchmark.load_masks(folder, count)
    results = benchmark.compare(loaded, rounds=rounds)

    sizes = sorted({f"{mask.shape[1]}x{mask.shape[0]}" for mask in loaded})
    table = Table(title=f"Brush RLE, {len(loaded)} {what} ({', '.join(sizes)}), {rounds} rounds in turns")
    for column in ("", "SDK best ms", "ours best ms", "times faster", "SDK median ms", "ours median ms"):
        table.add_column(column, justify="right" if column else "left")
    for result in results:
        row = (
            result.sdk.best_ms,
            result.ours.best_ms,
            result.ratio,
            result.sdk.median_ms,
            result.ours.median_ms,
        )
        table.add_row(result.task, *(f"{value:.2f}" for value in row))
    Console().print(table)


@app.command()
def server(
    seconds: Annotated[float, typer.Option(min=1, help="How long to measure.")] = 10.0,
    threads: Annotated[int, typer.Option(min=1, max=16, help="Threads that send.")] = 3,
    rate: Annotated[float, typer.Option(min=0.1, max=50, help="Requests per second of each thread.")] = 8.0,
    webhooks: Annotated[
        float, typer.Option(min=0, max=500, help="Instead: so many webhooks a second, while training runs.")
    ] = 0.0,
) -> None:
    """The web process: how fast it answers while the worker is busy with the model, or training takes all cores."""
    if webhooks:
        from lab.benchmarks import webhooks as storm

        Console().print(storm.table(storm.run(seconds=seconds, rate=webhooks)))
        return
    from lab.benchmarks import server as benchmark

    Console().print(benchmark.table(benchmark.run(seconds=seconds, threads=threads, rate=rate)))


@app.command()
def model(
    size: Annotated[
        str,
        typer.Option(
            help="tiny (the embedded model); 1b or 4b (full shapes, random weights); sa2va, internvl3, sa2va-i, "
            "sasasa2va, qwen3-vl or qwen2.5-vl (small shapes of that family, random weights)."
        ),
    ] = "tiny",
    frames: Annotated[int, typer.Option(min=1, help="Length of the synthetic clip.")] = 100,
    width: Annotated[int, typer.Option(min=32, help="Its width in pixels.")] = 1280,
    height: Annotated[int, typer.Option(min=32, help="Its height in pixels.")] = 720,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each way, in turns; the median counts.")] = 5,
) -> None:
    """The model: our way to run it against the published one, for 1 and for 5 expressions on one video."""
    from lab.benchmarks import model as benchmark

    if size not in benchmark.SIZES:
        raise SvacError(f"There is no size {size!r}.", f"Use one of {', '.join(benchmark.SIZES)}.")
    shown, lines = benchmark.run(
        size=size, frames=frames, width=width, height=height, device=device, rounds=rounds
    )
    console = Console()
    console.print(shown)
    for line in lines:
        console.print(line, highlight=False)


@app.command()
def evaluate(
    masks: Annotated[
        Path, typer.Option(help="Folder of sequences with ground_truth and prediction.")
    ] = SHARED_MASKS,
    vos_python: Annotated[
        Path | None, typer.Option(help="Python of an environment that has vos-benchmark installed.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes of each.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each, in turns; the best one counts.")] = 3,
) -> None:
    """J and F of whole sequences: ours and vos-benchmark, side by side."""
    from lab.benchmarks import evaluate as benchmark

    Console().print(
        benchmark.table(benchmark.run(masks, vos_python=vos_python, processes=processes, rounds=rounds))
    )


@app.command()
def correct(
    clips: Annotated[int, typer.Option(min=1, max=500, help="How many synthetic clips.")] = 20,
    frames: Annotated[int, typer.Option(min=5, help="Frames of each.")] = 48,
    width: Annotated[int, typer.Option(min=32, help="Their width in pixels.")] = 320,
    height: Annotated[int, typer.Option(min=32, help="Their height in pixels.")] = 180,
    name: Annotated[str, typer.Option("--model", help="Embedded model, folder or repository.")] = "svac-tiny",
    markdown: Annotated[Path | None, typer.Option(help="Also write the table to this file.")] = None,
) -> None:
    """Corrections: J&F of the other frames after 0, 1, 2 and 4 corrected ones, against copying the nearest."""
    from lab.benchmarks import correct as benchmark

    results, wrong, version = benchmark.run(name, clips=clips, frames=frames, width=width, height=height)
    title = benchmark.describe(results, wrong, f"{frames} frames of {width}x{height}", version)
    Console().print(benchmark.table(results, title))
    if markdown:
        benchmark.write_markdown(markdown, results, title)


@app.command()
def flags(
    clips: Annotated[int, typer.Option(min=1, max=500, help="How many clips of each kind.")] = 24,
    frames: Annotated[int, typer.Option(min=5, help="Frames of each.")] = 32,
    width: Annotated[int, typer.Option(min=32, help="Their width in pixels.")] = 256,
    height: Annotated[int, typer.Option(min=32, help="Their height in pixels.")] = 144,
    name: Annotated[str, typer.Option("--model", help="Embedded model, folder or repository.")] = "svac-tiny",
) -> None:
    """Flags: how well doubts find true errors of propagated masks (AUROC), against the model's score alone."""
    from lab.benchmarks import flags as benchmark

    found = benchmark.run(name, count=clips, width=width, height=height, frames=frames)
    Console().print(benchmark.table(found, f"{name}, {frames} frames of {width}x{height}"))


@app.command()
def scores(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs with masks: coco, clothing, cats.")],
    clips: Annotated[int, typer.Option(min=1, max=500, help="How many clips are made of them.")] = 24,
    frames: Annotated[int, typer.Option(min=5, help="Frames of each.")] = 12,
    name: Annotated[str, typer.Option("--model", help="Embedded model, folder or repository.")] = "svac-tiny",
) -> None:
    """Scores: how well they tell a frame's J on photographs under a moving camera, by what it was asked by (AUROC)."""
    from lab.benchmarks import scores as benchmark

    from svac_backend.svac.model import Svac

    model, found = Svac.from_pretrained(name), dict[str, benchmark.Measured]()
    for clip in benchmark.photographed(photos, clips, frames, 320):
        benchmark.measure(model, clip, found)
    Console().print(benchmark.table(found, f"{name}, {clips} clips of {frames} frames"))


@app.command()
def instances(
    clips: Annotated[int, typer.Option(min=1, max=500, help="How many clips.")] = 12,
    frames: Annotated[int, typer.Option(min=5, help="Frames of each.")] = 24,
    width: Annotated[int, typer.Option(min=32, help="Their width in pixels.")] = 256,
    height: Annotated[int, typer.Option(min=32, help="Their height in pixels.")] = 144,
    name: Annotated[str, typer.Option("--model", help="Embedded model, folder or repository.")] = "svac-tiny",
) -> None:
    """Instances: how many of several like things keep one id from first to last frame, and IDF1."""
    from lab.benchmarks import instances as benchmark

    found = benchmark.run(name, clips=clips, width=width, height=height, frames=frames, verbose=True)
    Console(width=140).print(benchmark.table(found, f"{name}, {frames} frames of {width}x{height}"))


@app.command()
def learn(
    clips: Annotated[int, typer.Option(min=8, max=500, help="Corrected clips of the concept.")] = 16,
    unseen: Annotated[int, typer.Option(min=2, max=500, help="Clips of it to measure on.")] = 24,
    scenes: Annotated[
        int, typer.Option(min=5, max=1000, help="Scenes of the model's own held-out set.")
    ] = 60,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; default: the model's own.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="torch's threads; 0: as many as it wants.")] = 0,
    wrong: Annotated[bool, typer.Option(help="Also learn from shuffled corrections.")] = True,
    out: Annotated[Path, typer.Option(help="Folder of the runs and their reports.")] = Path("out/learn"),
) -> None:
    """Fine-tuning: a concept that was never seen, J&F before and after, and what was forgotten."""
    import torch
    from lab.benchmarks import learn as benchmark
    from lab.train_tiny.recipe import CONFIG

    from svac_backend.learning.options import options_for

    if threads:
        torch.set_num_threads(threads)
    console = Console()
    results = benchmark.run(
        out,
        clips=clips,
        unseen=unseen,
        scenes=scenes,
        options=options_for(CONFIG).changed(steps=steps),
        wrong=wrong,
        say=lambda text: console.print(text, highlight=False, markup=False),
    )
    console.print(benchmark.table(results, clips))


@app.command()
def loop(
    clips: Annotated[int, typer.Option(min=8, max=500, help="Corrected clips of the concept.")] = 16,
    unseen: Annotated[int, typer.Option(min=2, max=500, help="Clips of it to measure on.")] = 20,
    scenes: Annotated[
        int, typer.Option(min=5, max=1000, help="Scenes of the model's own held-out set.")
    ] = 40,
    kind: Annotated[str, typer.Option(help="brush or polygon.")] = "brush",
    out: Annotated[Path, typer.Option(help="Folder of this run.")] = Path("out/loop"),
) -> None:
    """Fine-tuning through a real Label Studio: predict, correct, Start Training, predict anew."""
    import torch
    from lab.benchmarks import loop as benchmark

    if kind not in ("polygon", "brush"):
        raise SvacError(f"There are no masks of kind {kind!r}.", "Use polygon or brush.")
    torch.set_num_threads(1)
    console = Console()
    found = benchmark.Loop(
        out,
        clips=clips,
        unseen=unseen,
        scenes=scenes,
        kind=kind,
        say=lambda text: console.print(text, highlight=False, markup=False),
    ).run()
    console.print(benchmark.table(found))
    console.print(f"report: {found.report}", highlight=False, markup=False)


@app.command()
def editor(
    kind: Annotated[str, typer.Option(help="polygon or brush.")] = "polygon",
    frames: Annotated[int, typer.Option(min=10, help="Length of the synthetic clip.")] = 100,
    objects: Annotated[int, typer.Option(min=1, max=3, help="Objects on every frame.")] = 3,
    width: Annotated[int, typer.Option(min=32, help="Its width in pixels.")] = 640,
    height: Annotated[int, typer.Option(min=32, help="Its height in pixels.")] = 360,
    screenshots: Annotated[Path | None, typer.Option(help="Folder for a picture of each step.")] = None,
) -> None:
    """The annotator's loop in a real Label Studio and browser: seconds and keys of each step, what blocks the page."""
    from lab.benchmarks import editor as benchmark

    if kind not in ("polygon", "brush"):
        raise SvacError(f"There are no masks of kind {kind!r}.", "Use polygon or brush.")
    size = {"frames": frames, "objects": objects, "width": width, "height": height}
    steps = benchmark.run(kind=kind, **size, screenshots=screenshots)
    Console().print(benchmark.table(steps, f"{kind}, {frames} frames of {width}x{height}, {objects} objects"))


@app.command()
def scaling(
    database: Annotated[str, typer.Option(help="sqlite or postgresql.")] = "postgresql",
    task_s: Annotated[float, typer.Option(min=0.1, help="Assumed seconds of a GPU for a task.")] = 10.0,
    push_s: Annotated[float, typer.Option(min=0.001, help="Assumed seconds of Label Studio for one.")] = 0.6,
    pushers: Annotated[int, typer.Option(min=1, help="Assumed processes of Label Studio.")] = 4,
    cores: Annotated[int, typer.Option(min=1, help="Assumed cores of the database; 1 for SQLite.")] = 4,
) -> None:
    """What the job table's calls cost here, and what 10, 100 and 1,000 GPUs would make of that: computed, not tried."""
    from lab.benchmarks import scaling as benchmark

    if database not in ("sqlite", "postgresql"):
        raise SvacError(f"There is no database {database!r}.", "Use sqlite or postgresql.")
    costs = benchmark.measure(database)
    measured = Table(title=f"Measured: milliseconds of the processor for a call, {database}")
    for name in vars(costs):
        measured.add_column(name, justify="right")
    measured.add_row(*(f"{value:.2f}" for value in vars(costs).values()))
    given = benchmark.Assumed(
        task_s=task_s,
        push_s=push_s,
        pushers=pushers,
        database_cores=1 if database == "sqlite" else cores,
    )
    computed = Table(title=f"Computed, with {given}")
    for name in ("GPUs", "tasks an hour", "GPUs busy", "database", "store", "Label Studio", "limit"):
        computed.add_column(name, justify="left" if name == "limit" else "right")
    for gpus in (1, 10, 100, 1000):
        found = benchmark.simulate(gpus, costs, given)
        shares = (found.gpu, found.database, found.store, found.label_studio)
        computed.add_row(
            str(gpus),
            f"{found.tasks_an_hour:,.0f}",
            *(f"{100 * share:.0f} %" for share in shares),
            found.limit,
        )
    for table in (measured, computed):
        Console().print(table)


@app.command()
def engines(jobs: Annotated[int, typer.Option(min=1, help="Jobs for each engine.")] = 40) -> None:
    """The smallest job from its submission to its end, by a worker of each engine: milliseconds, the median."""
    from lab.benchmarks import scaling as benchmark

    for engine in ("local", "ray"):
        print(f"{engine}: {benchmark.small_job_ms(engine, jobs):.0f} ms")


def main() -> None:
    """Run the chosen benchmark; a mistake of the user ends in one line, not in a traceback."""
    try:
        app()
    except SvacError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
