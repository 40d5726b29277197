"""Checks of this machine: settings, model, libraries, data folder, worker."""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from svac_backend.cli.doctor.finding import DoctorWarning, Finding, Status, check, failed
from svac_backend.cli.terminal import counted
from svac_backend.errors import SvacError
from svac_backend.jobs.engine import LEASE_S
from svac_backend.server.security import Gate
from svac_backend.settings import Settings, unknown_variables
from svac_backend.storage.published import open_storage
from svac_backend.store.database import Database, is_there
from svac_backend.store.jobs import JobStore
from svac_backend.store.links import links_from_store
from svac_backend.store.workers import WorkerStore
from svac_backend.svac.files.weights import EMBEDDED, locate, version_of, weight_files
from svac_backend.versions import served_version

GIB = 1 << 30
# A minute of video at 1280x720 needs 0.4 GB of frames.
LOW_DISK, NO_DISK = 2 * GIB, GIB // 10


@check("settings")
def check_settings(settings: Settings) -> str:
    """Check that the settings agree and that no variable is misspelt; never show a value."""
    Gate(settings)
    if unknown := unknown_variables():
        raise DoctorWarning(
            f"{', '.join(unknown)} is not a setting, so it has no effect.",
            "Correct the name; .env.example lists all of them.",
        )
    chosen = ", ".join(sorted(name for name in settings.model_fields_set))
    return f"set: {chosen}" if chosen else "all are at their defaults"


@check("model")
def check_model(settings: Settings) -> str:
    """Check that the model's files are there."""
    folder = locate(settings.model)
    name = served_version(settings)
    size = sum(path.stat().st_size for path in weight_files(folder))
    kind = "embedded" if settings.model in EMBEDDED else str(folder)
    return f"{name}, {size / 1e6:,.1f} MB ({kind})"


@check("torch and sam2")
def check_libraries(settings: Settings) -> str:
    """Check that the model's libraries can be imported and that the device exists."""
    try:
        from svac_backend.svac.model import pick_device
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # A torch and a torchvision that do not match raise different errors each time.
        raise SvacError(
            f"The model's code cannot be imported ({type(error).__name__}: {error}).",
            "Install again with scripts/setup.sh; remove torchvision if something else brought it.",
        ) from error
    device = pick_device(settings.device)
    return f"torch {version('torch')}, sam2 {version('sam2')}, device {device}"


@check("data folder")
def check_data_folder(settings: Settings) -> str:
    """Check that the data folder exists, can be written and has space. The web process and the worker make it."""
    folder = settings.data_dir.absolute()
    if not is_there(settings) or not folder.is_dir():
        raise SvacError(
            f"{folder} holds no data: neither the web process nor the worker has used it.",
            "Start them first, or set SVAC_DATA_DIR to their folder, as an absolute path.",
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SvacError(
            f"{folder} cannot be written ({error.strerror}).",
            "Run this as the user of the web process, or give this user the right to write there.",
        ) from error
    return with_space(folder, "SVAC_DATA_DIR")


@check("storage")
def check_storage(settings: Settings) -> str:
    """Check that the storage of SVAC_STORAGE_URL can be written and read, and how browsers get frames from it."""
    storage = open_storage(settings)
    problem = storage.problem()
    if problem is not None:
        raise SvacError(
            problem, "Until then, what is there is read from the copies here, and new work waits."
        )
    if not storage.remote:
        return with_space(storage.root.absolute(), "SVAC_STORAGE_URL")
    way = "links of its own" if links_from_store(settings) else "links of ours"
    return f"{storage} can be written and read; frames by {way}"


def check_database(settings: Settings) -> tuple[Finding, Database | None]:
    """Check that the database opens; return it for the checks that need it."""
    try:
        database = Database.from_settings(settings)
    except SvacError as error:
        return failed("database", error), None
    return Finding("database", Status.OK, str(database)), database


@check("jobs")
def check_jobs(settings: Settings, database: Database) -> str:
    """Check that no job waits for something that is away."""
    store = JobStore(database)
    retrying = sum(load.retrying for load in store.lanes())
    if retrying:
        first = store.retrying()[0]
        raise DoctorWarning(
            f"{counted(retrying, 'job')} {'waits' if retrying == 1 else 'wait'} to be tried again. Job {first.id} "
            f"({first.kind}, tried {counted(first.tries, 'time')}): {first.error}",
            f"{first.hint} /jobs lists all waiting jobs.",
        )
    return "none waits to be tried again"


@check("worker")
def check_worker(settings: Settings, database: Database) -> str:
    """Check that a worker lives and has the model that the settings name."""
    workers = WorkerStore(database).alive(LEASE_S)
    if not workers:
        raise SvacError(
            "No worker has reported in the last 30 seconds, so nothing is segmented.",
            "Start `svac-backend worker` with the same settings as the web process.",
        )
    described = ", ".join(
        f"{worker.model_version or 'no model'} on {worker.device or '?'}" for worker in workers
    )
    if any(not worker.model_version for worker in workers):
        raise DoctorWarning(
            f"{len(workers)} alive, but its model is not loaded.",
            "Wait until it is; if it stays so, the worker's log says why.",
        )
    try:
        wanted = version_of(settings)
    except SvacError:
        return described
    # The worker puts in another version of the same model before its next job.
    if any(not f"{worker.model_version}-".startswith(f"{wanted}-") for worker in workers):
        raise DoctorWarning(
            f"It has loaded {described}, but the settings here name {wanted}.",
            "Restart the worker, or run this with its settings.",
        )
    return f"{len(workers)} alive: {described}"


def with_space(folder: Path, setting: str) -> str:
    """Return a folder and its free space as text. Raises `SvacError` if there is little; `setting` names the folder."""
    free = shutil.disk_usage(folder).free
    detail = f"{folder}, {free / GIB:.1f} GiB free"
    if free < NO_DISK:
        raise SvacError(detail, f"Free some space, or set {setting} to another disk.")
    if free < LOW_DISK:
        raise DoctorWarning(detail, f"Free some space soon, or set {setting} to another disk.")
    return detail
