"""`svac-backend finetune`: learn from collected corrections, or from a folder, and register a version.

Under `accelerate launch` every process runs this; only the first one reports and registers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.markup import escape

from svac_backend.cli.terminal import console
from svac_backend.errors import SvacError
from svac_backend.learning.collect import Collector
from svac_backend.learning.freeze import Run, Videos, open_run
from svac_backend.learning.gate import GateOptions
from svac_backend.learning.process import LOCK_FILE
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.versions import Version, VersionState
from svac_backend.versions import Registry

if TYPE_CHECKING:
    from svac_backend.learning.examples import Example
    from svac_backend.learning.finetune import Outcome

_RUN = "command"
# Seconds between two lines of progress if the output is not a terminal.
_TELL_S = 20.0


def run(
    settings: Settings,
    *,
    data: Path | None = None,
    split: str = "train",
    out: Path | None = None,
    regression: str | None = None,
    changes: Mapping[str, float | None] | None = None,
    register: bool = True,
) -> Outcome:
    """Fine-tune, print the result, and register the version.

    Args: as the command's options in `cli.commands`; `changes` are fields of `TrainOptions`, None for the model's own.

    Raises:
        SvacError: there is nothing to learn from, another fine-tuning runs, memory ran out, or a video can't be read.
    """
    # Imported here, since they import torch: a mistake in the command is reported without that wait.
    from svac_backend.learning.examples import from_corrections, from_mevis
    from svac_backend.learning.finetune import FinetuneData, finetune
    from svac_backend.learning.options import options_from
    from svac_backend.pipeline import load_model

    first = int(os.environ.get("RANK", "0")) == 0
    database = Database.from_settings(settings)
    registry = Registry(settings, database)
    frozen: Run | None = None
    examples: list[Example]
    guard: list[Example] | None = None
    with _alone(settings) if first else nullcontext():
        if data is not None:
            examples = from_mevis(data, split)
            guard = from_mevis(data, regression) if regression else None
            serving = registry.serving(verify=True)
            base, parent = registry.base, serving.id if serving else ""
            folder = out or Path("out") / "finetune"
        else:
            if first:
                _collect(settings, database)
            frozen = open_run(settings, database, _RUN)
            examples = from_corrections(frozen.corrections, Videos(settings, database).find)
            base, parent, folder = frozen.base, frozen.parent, out or frozen.out
        model = load_model(settings)
        options = options_from(settings, model.config)
        outcome = finetune(
            model,
            FinetuneData(examples, regression=guard),
            folder,
            options=options.changed(**(changes or {})),
            gate=GateOptions.from_settings(settings),
            parent=registry.folder(registry.store.find(parent)) if parent else None,
            progress=teller() if first else None,
        )
        if not first:
            return outcome
        console.print(escape(outcome.decision.reason))
        if outcome.report is not None:
            console.print(f"Report: {escape(str(outcome.report))}")
        if outcome.adapter is not None and register:
            version = registry.publish(
                outcome.adapter,
                base=base,
                parent=parent,
                promote=outcome.decision.promote,
                reason=outcome.decision.reason,
                figures=outcome.decision.figures,
                data={"examples": len(examples), "from": str(data) if data else "corrections"},
                tell=lambda sentence: console.print(escape(sentence)),
            )
            _tell(version, outcome.steps, outcome.seconds)
        if frozen is not None and outcome.finished:
            # The next run freezes the corrections of its own time; report and adapter stay.
            frozen.folder.rename(frozen.folder.with_name(f"{_RUN}-{time.strftime('%Y%m%d-%H%M%S')}"))
    return outcome


def teller() -> Callable[[float, str], None]:
    """Return a function that prints progress, but not every step, which would be too much to read."""
    told = [-_TELL_S]

    def tell(done: float, message: str) -> None:
        now = time.monotonic()
        if now - told[0] >= _TELL_S:
            told[0] = now
            console.print(f"{100 * done:3.0f} %  {escape(message)}")

    return tell


def _alone(settings: Settings) -> Any:
    """Hold the lock that every training on this data folder takes. Raises `SvacError` if one runs."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.data_dir / LOCK_FILE)
    try:
        return lock.acquire(timeout=0)
    except Timeout as error:
        raise SvacError(
            f"Another fine-tuning runs on {settings.data_dir}.",
            "Wait until it ends: two would share the device, and both would be slower.",
        ) from error


def _collect(settings: Settings, database: Database) -> None:
    """Collect from webhooks that came since; put off and report what can't be read now."""
    try:
        Collector(settings, database).collect(lambda _, message: console.print(escape(message)))
    except SvacError as error:
        console.print(f"[yellow]Learning only from what was collected before:[/] {escape(str(error))}")


def _tell(version: Version, steps: int, seconds: float) -> None:
    promoted = version.state is VersionState.PROMOTED
    what = "promoted: it serves from now on" if promoted else f"kept but not promoted ({version.state.value})"
    console.print(
        f"Version [bold]{escape(version.name)}[/] is {what}. "
        f"{steps} steps in {seconds / 60:.1f} minutes, {version.size / 1e6:.1f} MB."
    )
