"""Attacks, faults, load and growth against the real server and worker: `python scripts/drill.py --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from lab.drill.attacks import ATTACKS
from lab.drill.faults import FAULTS
from lab.drill.fuzz import FUZZ
from lab.drill.growth import GROWTH
from lab.drill.load import LOAD
from lab.drill.outcome import Drill, Options, Outcome, table
from rich.console import Console

from svac_backend.errors import SvacError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
DRILLS: list[Drill] = [*FAULTS, *ATTACKS, *LOAD, *FUZZ, *GROWTH]

Rounds = Annotated[int, typer.Option(min=1, help="Rounds of each fault.")]
Tasks = Annotated[int, typer.Option(min=1, help="Tasks of each round.")]
Away = Annotated[float, typer.Option(min=0, help="Seconds that a fault lasts.")]
Patience = Annotated[float, typer.Option(min=1, help="Seconds to wait for what should recover.")]
Requests = Annotated[int, typer.Option(min=1, help="Malformed requests of the fuzz.")]
Load = Annotated[float, typer.Option(min=1, help="Seconds of load.")]
Events = Annotated[int, typer.Option(min=1, help="Webhooks in the grown database.")]
Jobs = Annotated[int, typer.Option(min=1, help="Finished jobs in the grown database.")]
Seed = Annotated[int, typer.Option(help="Of every choice.")]
ToJson = Annotated[Path | None, typer.Option("--json", help="Write the results there, too.")]
Keep = Annotated[Path | None, typer.Option(help="Keep data and logs in this folder.")]


@app.command("list")
def list_drills() -> None:
    """Say what there is."""
    for drill in DRILLS:
        print(f"{drill.name:16} {drill.what}")


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(help="What to drill; see `list`.")],
    rounds: Rounds = 3,
    tasks: Tasks = 4,
    away: Away = 60.0,
    patience: Patience = 300.0,
    requests: Requests = 2000,
    load: Load = 60.0,
    events: Events = 1_000_000,
    jobs: Jobs = 100_000,
    seed: Seed = 0,
    to_json: ToJson = None,
    keep: Keep = None,
) -> None:
    """Drill some; exit status 1 when one does not hold."""
    known = {drill.name: drill for drill in DRILLS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise typer.BadParameter(f"no drill is called {unknown[0]}; `list` names them")
    options = Options(
        rounds=rounds,
        tasks=tasks,
        away_s=away,
        patience_s=patience,
        requests=requests,
        load_s=load,
        events=events,
        jobs=jobs,
        seed=seed,
        keep=keep,
    )
    outcomes: list[Outcome] = []
    for name in names:
        print(f"{name}: {known[name].what} ...", flush=True)
        try:
            outcomes.append(known[name].run(options))
        except SvacError as error:
            outcomes.append(Outcome.broken(name, str(error)))
        print(f"{name}: {'held' if outcomes[-1].held else 'BROKEN'}", flush=True)
        if to_json is not None:
            to_json.write_text(json.dumps([one.to_json() for one in outcomes], indent=1))
    Console().print(table(outcomes))
    if not all(one.held for one in outcomes):
        raise typer.Exit(1)


@app.command("all")
def run_all(
    rounds: Rounds = 10,
    tasks: Tasks = 4,
    away: Away = 60.0,
    patience: Patience = 300.0,
    requests: Requests = 20_000,
    load: Load = 300.0,
    events: Events = 1_000_000,
    jobs: Jobs = 100_000,
    seed: Seed = 0,
    to_json: ToJson = None,
    keep: Keep = None,
) -> None:
    """Drill all, at full size; it takes hours."""
    names = [drill.name for drill in DRILLS]
    run(names, rounds, tasks, away, patience, requests, load, events, jobs, seed, to_json, keep)


if __name__ == "__main__":
    app()
