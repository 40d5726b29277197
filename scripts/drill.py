"""Attacks, faults, load and growth against the real server and worker: `python scripts/drill.py --help`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from lab.drill.attacks import ATTACKS
from lab.drill.bulk import BULK
from lab.drill.cluster import CLUSTER
from lab.drill.faults import FAULTS
from lab.drill.fuzz import FUZZ
from lab.drill.growth import GROWTH
from lab.drill.load import LOAD
from lab.drill.outcome import Database, Drill, Options, Outcome, table
from lab.drill.week import WEEK
from rich.console import Console

from svac_backend.errors import SvacError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
# What `all` does by itself.
FULL = Options(rounds=10, requests=20_000, load_s=300.0, week=1000, bulk=2000)
DRILLS: list[Drill] = [*FAULTS, *CLUSTER, *BULK, *ATTACKS, *LOAD, *FUZZ, *GROWTH, *WEEK]

Rounds = Annotated[int, typer.Option(min=1, help="Rounds of each fault.")]
Tasks = Annotated[int, typer.Option(min=1, help="Tasks of each round.")]
Away = Annotated[float, typer.Option(min=0, help="Seconds that a fault lasts.")]
Patience = Annotated[float, typer.Option(min=1, help="Seconds to wait for what should recover.")]
Requests = Annotated[int, typer.Option(min=1, help="Malformed requests of the fuzz.")]
Load = Annotated[float, typer.Option(min=1, help="Seconds of load.")]
Events = Annotated[int, typer.Option(min=1, help="Webhooks in the grown database.")]
Jobs = Annotated[int, typer.Option(min=1, help="Finished jobs in the grown database.")]
Week = Annotated[int, typer.Option(min=1, help="Tasks of the week of use.")]
Bulk = Annotated[int, typer.Option(min=10, help="Tasks of the project that is predicted as a whole.")]
Seed = Annotated[int, typer.Option(help="Of every choice.")]
Which = Annotated[str, typer.Option("--database", help="`sqlite`, `postgresql`, or `both`.")]
ToJson = Annotated[
    Path | None,
    typer.Option(
        "--json", help="Write the results there, too; what it holds of drills that held is not done again."
    ),
]
Keep = Annotated[Path | None, typer.Option(help="Keep data and logs in this folder.")]


@app.command("list")
def list_drills() -> None:
    """Say what there is, and about how long it takes, as `run` does it by itself and at full size."""
    for drill in DRILLS:
        usual, full = drill.seconds(Options()) / 60, drill.seconds(FULL) / 60
        print(f"{drill.name:16} {usual:4.0f} min {full:5.0f} min  {drill.what}")


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
    week: Week = 100,
    bulk: Bulk = 200,
    seed: Seed = 0,
    database: Which = "sqlite",
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
        week=week,
        bulk=bulk,
        seed=seed,
        keep=keep,
    )
    drill_all([known[name] for name in names], options, database, to_json)


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
    week: Week = 1000,
    bulk: Bulk = 2000,
    seed: Seed = 0,
    database: Which = "both",
    to_json: ToJson = None,
    keep: Keep = None,
) -> None:
    """Drill all, at full size, on both databases; it takes hours (`list`). With --json it goes on where it ended."""
    names = [drill.name for drill in DRILLS]
    run(
        names,
        rounds,
        tasks,
        away,
        patience,
        requests,
        load,
        events,
        jobs,
        week,
        bulk,
        seed,
        database,
        to_json,
        keep,
    )


def drill_all(drills: list[Drill], options: Options, database: str, to_json: Path | None) -> None:
    """Do drills on one database or both; print a table of all.

    Raises:
        typer.Exit: one did not hold.
    """
    if database not in ("sqlite", "postgresql", "both"):
        raise typer.BadParameter(f"there is no database {database}")
    systems: tuple[Database, ...] = ("sqlite", "postgresql") if database == "both" else (database,)  # type: ignore[assignment]
    done: dict[str, Outcome] = {}
    if to_json is not None and to_json.exists():
        done = {one.name: one for one in map(Outcome.from_json, json.loads(to_json.read_text()))}
    planned = {}
    for drill in drills:
        # A fault that only a server can have is the same drill, whichever database the others have.
        of_server = drill.name.endswith("postgresql")
        for system in systems[-1:] if of_server else systems:
            planned[
                f"{drill.name} (PostgreSQL)" if system == "postgresql" and not of_server else drill.name
            ] = (
                drill,
                replace(options, database=system),
            )
    left = {name: plan for name, plan in planned.items() if name not in done or not done[name].held}
    minutes = sum(drill.seconds(given) for drill, given in left.values()) / 60
    print(
        f"{len(left)} of {len(planned)} drills, about {minutes:.0f} minutes on a machine with nothing else to do"
    )
    for name, (drill, given) in left.items():
        print(f"{name}: {drill.what} ...", flush=True)
        try:
            outcome = drill.run(given)
            outcome.name = name
        except SvacError as error:
            outcome = Outcome.broken(name, str(error))
        done[name] = outcome
        print(f"{name}: {'held' if outcome.held else 'BROKEN'}", flush=True)
        if to_json is not None:
            part = to_json.with_name(f"{to_json.name}.part")
            part.write_text(json.dumps([one.to_json() for one in done.values()], indent=1))
            part.replace(to_json)
    outcomes = [done[name] for name in planned]
    Console().print(table(outcomes))
    if not all(one.held for one in outcomes):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
