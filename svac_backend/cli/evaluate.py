"""`svac-backend evaluate`: predictions on a benchmark, their J and F, and a report."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from svac_backend.cli.terminal import bar, console, counted
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.predict import predict
from svac_backend.evaluation.predictions import PredictionRun, Predictions, writing
from svac_backend.evaluation.report import WORST_CASES, worst_cases, write_report
from svac_backend.evaluation.score import BenchmarkScores, score, summarize, write_csv, write_json
from svac_backend.evaluation.truth import open_truth
from svac_backend.settings import Settings


def run(
    settings: Settings,
    dataset: str,
    root: Path,
    *,
    split: str | None = None,
    out: Path | None = None,
    workers: int = 1,
    limit: int | None = None,
    predictions: Path | None = None,
    zipped: bool = False,
) -> tuple[BenchmarkScores | None, list[Path]]:
    """Predict what is missing, score everything, and write `results.json`, `results.csv` and `report.html`.

    Returns:
        The scores (None for a split without masks), and the paths of what was written for people.

    Args: as the command's options in `cli.commands`; `predictions` may come from another program.

    Raises:
        SvacError: the data set, the model, the predictions or the output folder can't be used.
    """
    whole = open_benchmark(dataset, root, split)
    benchmark = whole.limited(limit)
    out = out or Path("out") / f"{benchmark.dataset}-{benchmark.split}"
    truth = open_truth(benchmark)
    if predictions is not None:
        found = Predictions.found_in(predictions, benchmark)
        if truth is None:
            raise SvacError(
                f"The split {benchmark.split!r} of {dataset} has no masks here, so nothing can be scored.",
                "Send the predictions to the challenge's server, or take another split with --split.",
            )
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
    else:
        found = Predictions(out, benchmark)
        with found.locked(), bar("predicting") as progress:
            done = predict(benchmark, found, settings, workers=workers, progress=progress)
        _tell(done, workers)
    if zipped:
        console.print(f"Submission: {escape(str(found.zip(benchmark)))}")
    if truth is None:
        console.print(
            f"The split {benchmark.split!r} of {dataset} has no masks here: predictions only, in "
            f"{escape(str(found.masks))}. Its scores come from the challenge's server."
        )
        return None, [found.masks]
    with bar("scoring") as progress:
        scores = score(benchmark, truth, found, workers=workers, progress=progress)
    results = summarize(
        scores,
        dataset=benchmark.dataset,
        split=benchmark.split,
        videos_of=len(whole.videos),
        manifest=found.manifest(),
    )
    write_json(results, out / "results.json")
    write_csv(results, out / "results.csv")
    cases = worst_cases(benchmark, truth, found, scores, WORST_CASES)
    write_report(results, cases, out / "report.html")
    _show(results, out)
    return results, [out / name for name in ("results.json", "results.csv", "report.html")]


def _tell(done: PredictionRun, workers: int) -> None:
    if done.workers == 1 < workers and done.expressions:
        console.print("One process predicted: more would share a GPU, or there was only one video.")
    if not done.frames:
        console.print(f"All had been predicted before: {counted(done.skipped, 'expression')}.")
        return
    console.print(
        f"{counted(done.expressions, 'expression')} on {counted(done.frames, 'frame')} in {done.seconds:.1f} s "
        f"({done.frames / done.seconds:.1f} frames/s, {done.workers} process{'es' if done.workers > 1 else ''})"
        + (f"; {counted(done.skipped, 'expression')} had been predicted before." if done.skipped else ".")
    )


def _show(results: BenchmarkScores, out: Path) -> None:
    for figures in (*results.types, results.overall):
        extra = "" if figures.accuracy is None else f"  A {figures.accuracy:.1f}"
        extra += "" if figures.robustness is None else f"  R {figures.robustness:.1f}"
        console.print(
            f"{figures.name}: J&F [bold]{figures.j_and_f:.1f}[/]  J {figures.j:.1f}  F {figures.f:.1f}{extra}  "
            f"({counted(figures.expressions, 'expression')})"
        )
    if results.missing:
        console.print(
            f"Without a prediction, and so with a score of 0: {counted(len(results.missing), 'expression')}."
        )
    if len(results.sequences) < results.videos_of:
        console.print(f"Only {len(results.sequences)} of {results.videos_of} videos were scored.")
    console.print(f"Report: {escape(str(out / 'report.html'))}")
