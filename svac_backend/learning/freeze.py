"""The folder of a fine-tuning run, and what it learns from, frozen when it begins. Free of torch.

`<data folder>/training/<job>/` holds `data.bin` (corrections and lineage), `out/` (what `learning.finetune` writes),
`result.json` once it is done, and `log.txt`. `Videos` finds the videos of the corrections.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svac_backend.atomic import atomic_write
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, NotStored
from svac_backend.storage.published import open_storage
from svac_backend.store.corrections import Correction, CorrectionStore
from svac_backend.store.database import Database, pack, unpack
from svac_backend.store.events import ConnectionStore, Inbox
from svac_backend.store.versions import Training, TrainingStore
from svac_backend.versions import Registry

DATA, RESULT, OUT, LOG = "data.bin", "result.json", "out", "log.txt"
# What a finished run no longer needs; the registry has a copy of the adapter.
SCRATCH = ("cache", "checkpoints", "adapter")
# What another machine that continues the run can make again faster than fetch.
CACHE = f"{OUT}/cache"


@dataclass(frozen=True)
class Run:
    """A fine-tuning run.

    Attributes:
        folder: its folder.
        base: version of the model without an adapter.
        parent: id of the adapter that served when it began, or empty.
        event: number of the last webhook that had been used then.
        corrections: what it learns from.
    """

    folder: Path
    base: str
    parent: str
    event: int
    corrections: tuple[Correction, ...]

    @property
    def out(self) -> Path:
        """Folder of the training itself."""
        return self.folder / OUT

    @property
    def log(self) -> Path:
        """Log of the training process."""
        return self.folder / LOG

    def result(self) -> dict[str, Any] | None:
        """Return the result, or None if the run is not done."""
        try:
            found: dict[str, Any] = json.loads((self.folder / RESULT).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found

    def finish(self, result: dict[str, Any]) -> None:
        """Store the result."""
        atomic_write(self.folder / RESULT, json.dumps(result).encode())

    def tidy(self) -> None:
        """Delete what only an unfinished run needs."""
        for name in SCRATCH:
            shutil.rmtree(self.out / name, ignore_errors=True)


def open_run(settings: Settings, database: Database, job_id: str) -> Run:
    """Return a run; if it has not begun, give it the corrections that are there now.

    Raises:
        SvacError: there is no model, or the folder cannot be written.
    """
    storage = open_storage(settings)
    folder = storage.folder(Kind.RUNS, job_id)
    if storage.remote:
        with suppress(NotStored):  # it has begun on another machine
            storage.fetch(Kind.RUNS, job_id)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / DATA).is_file():
            atomic_write(folder / DATA, pack(_freeze(settings, database)), mode=0o600)
        run = read_run(folder)
    except OSError as error:
        raise SvacError(
            f"The fine-tuning cannot write to {folder} ({error.strerror}).",
            "Make room on the disk of SVAC_DATA_DIR, and let this user write there.",
        ) from error
    storage.publish(Kind.RUNS, job_id, without=[CACHE])
    TrainingStore(database).begin(Training(job_id, run.base, run.parent, run.event, len(run.corrections)))
    return run


def read_run(folder: Path) -> Run:
    """Read a run that has begun.

    Raises:
        OSError: it has not.
    """
    data = unpack((folder / DATA).read_bytes())
    corrections = tuple(Correction.from_json(one) for one in data["corrections"])
    return Run(folder, data["base"], data["parent"], data["event"], corrections)


def _freeze(settings: Settings, database: Database) -> dict[str, Any]:
    registry = Registry(settings, database)
    parent = registry.serving(verify=True)
    return {
        # Before the corrections are read: what comes in between is among them, and still counts as new.
        "event": Inbox(database).position(),
        "base": registry.base,
        "parent": parent.id if parent else "",
        "corrections": [one.to_json() for one in CorrectionStore(database).for_training()],
    }


class Videos:
    """Finds the videos of corrections, as the worker finds those of tasks."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._access = LabelStudioAccess(settings, ConnectionStore(database))
        self._found: dict[str, Path] = {}

    def find(self, one: Correction) -> Path:
        """Return the file of a correction's video.

        Raises:
            SvacError: it cannot be read; the message names the task.
        """
        if one.video_path is not None:
            return one.video_path
        known = self._found.get(one.annotation.video)
        if known is None:
            try:
                known = self._access.fetch(one.project_id, one.hostname, one.video_url, one.task_id)
            except SvacError as error:
                raise SvacError(
                    f"The video of task {one.task_id} cannot be learned from: {error.message}",
                    f"{error.hint} Or delete the task's annotation.",
                    temporary=error.temporary,
                ) from error
            self._found[one.annotation.video] = known
        return known
