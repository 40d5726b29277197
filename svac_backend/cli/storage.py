"""The data folder: `storage`, `backup`, `restore`; and `media renew | clean` for served frames and their links.

A backup is a tar file: a copy of the database as of one moment, the files beside it that cannot be made again, and at
the end a list of the files with their hashes. The database is copied first: the files that it names exist by then.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import typer
from rich.table import Table

from svac_backend.atomic import atomic_path
from svac_backend.cli.terminal import answer, bar, console, counted, rows_of
from svac_backend.errors import SvacError
from svac_backend.jobs.renew import RECORD, LinkedTask, due_tasks, gone_tasks, linked_tasks, renew
from svac_backend.jobs.retention import kept, measure
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.learning.freeze import CACHE
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, Storage
from svac_backend.storage.published import open_storage
from svac_backend.store.database import FILE_NAME, Database, is_there
from svac_backend.store.events import ConnectionStore
from svac_backend.store.links import MediaLinks, links_from_store
from svac_backend.store.postgresql import Postgresql
from svac_backend.store.schema import HEAD
from svac_backend.store.versions import VersionStore
from svac_backend.store.workers import LOCKS, lock_is_held

# The last entry of a backup.
LIST, FORMAT = "backup.json", 1
# Left out: downloads can be fetched again, locks belong to running processes, and older states are not this one.
LEFT_OUT, BEFORE = ("media", LOCKS), "before-restore-"


def run_renew(settings: Settings, *, every: bool = False) -> None:
    """Give tasks new links to their frames; print what was done.

    Without `every`, only tasks whose links are old or have another SVAC_MEDIA_URL or key.

    Raises:
        SvacError: SVAC_MEDIA_URL is not set, Label Studio cannot be reached, or it refused some tasks.
    """
    if settings.media_url is None and not links_from_store(settings):
        raise SvacError(
            "SVAC_MEDIA_URL is not set, so new links have no address.",
            "Set it to the address at which the annotators' browsers reach `svac-backend serve`.",
        )
    links, storage = MediaLinks.of_frames(settings), open_storage(settings)
    tasks = due_tasks(links, storage, every=every)
    if not tasks:
        count = sum(1 for _ in linked_tasks(links.root, storage))
        console.print(f"Nothing to renew: the links of {counted(count, 'task')} are new enough.")
        return
    with closing(Database.from_settings(settings)) as database, bar("renewing links") as progress:
        access = LabelStudioAccess(settings, ConnectionStore(database))
        done = renew(tasks, links, access.client, lambda fraction, _: progress(fraction), storage)
    console.print(f"{done}.")
    if done.refused:
        raise SvacError(
            f"Label Studio refused {counted(len(done.refused), 'task')}.",
            "Fix the cause, and run this again.",
        )


def run_clean(settings: Settings, *, yes: bool = False) -> None:
    """Delete the frames of tasks that were deleted in Label Studio, after asking unless `yes`.

    Raises:
        SvacError: Label Studio cannot be reached, or refuses.
    """
    root, storage = MediaLinks.from_settings(settings).root, open_storage(settings)
    with closing(Database.from_settings(settings)) as database, console.status("asking Label Studio"):
        gone = gone_tasks(root, LabelStudioAccess(settings, ConnectionStore(database)).client, storage)
    if not gone:
        console.print("Nothing to delete: every task with frames here is in Label Studio.")
        return
    size = sum(storage.size(Kind.FRAMES, _name(task)) for task in gone)
    names = ", ".join(f"{task.project_id}/{task.task}" for task in gone[:10])
    more = f" and {len(gone) - 10} more" if len(gone) > 10 else ""
    console.print(f"Deleted in {settings.label_studio_url}, as project/task: {names}{more}")
    if not yes and not typer.confirm(f"Delete their frames ({size / 1e6:,.1f} MB)?"):
        console.print("Nothing was deleted.")
        return
    for task in gone:
        storage.delete(Kind.FRAMES, _name(task))
    console.print(
        f"The frames of {counted(len(gone), 'task')} are deleted; {size / 1e6:,.1f} MB are free again."
    )


def _name(task: LinkedTask) -> str:
    return f"{task.folder.parent.name}/{task.folder.name}"


def run_storage(settings: Settings, *, as_json: bool = False) -> None:
    """Print what takes up space in the data folder, and how long it is kept.

    Raises:
        SvacError: the data folder cannot be used.
    """
    table = Table("what", "number", "MB", "kept", box=None)
    with closing(Database.from_settings(settings)) as database:
        for name, (count, size) in measure(settings, database).items():
            table.add_row(name, str(count), f"{size / 1e6:.1f}", kept(settings, name))
    answer(rows_of(table), table, as_json=as_json)


def run_publish(settings: Settings) -> None:
    """Copy the frames, runs and versions of the data folder into the bucket; downloads get there by themselves.

    Raises:
        SvacError: the settings name no bucket, or it cannot be used; started again, it continues where it was.
    """
    storage = open_storage(settings)
    if not storage.remote:
        raise SvacError(
            "SVAC_STORAGE_URL names no bucket to copy the files to.",
            "Set it to s3://bucket/prefix, gs:// or az://.",
        )
    here = Storage(storage.root)
    found = [(kind, one.name) for kind in Kind if kind is not Kind.MEDIA for one in here.entries(kind)]
    with bar("storing") as progress:
        for number, (kind, name) in enumerate(found):
            progress(number / len(found))
            storage.publish(kind, name, without=[CACHE] if kind is Kind.RUNS else [])
        for name, text in here.notes(Kind.FRAMES, RECORD):
            storage.write_note(Kind.FRAMES, name, RECORD, text)
    console.print(f"{counted(len(found), 'folder')} stored in {storage}.")


def run_backup(settings: Settings, file: Path) -> int:
    """Write a backup of the data folder while all processes may keep running; return the number of its files.

    Raises:
        SvacError: there is no data folder, or the file cannot be written.
    """
    folder = settings.data_dir
    if not is_there(settings):
        raise SvacError(f"There is no data in {folder.absolute()}.", "Set SVAC_DATA_DIR to the folder.")
    try:
        with (
            console.status("writing the backup"),
            closing(Database.from_settings(settings)) as database,
            atomic_path(file, durable=True) as part,
            tempfile.TemporaryDirectory(dir=file.absolute().parent) as scratch,
        ):
            part.touch(mode=0o600)
            copy = Path(scratch) / FILE_NAME
            database.copy_to(copy)
            with tarfile.open(part, "w") as tar:
                hashes = {FILE_NAME: _add(tar, copy, FILE_NAME)}
                for path in _kept(settings, {file.absolute(), part.absolute()}):
                    name = path.relative_to(folder).as_posix()
                    try:
                        hashes[name] = _add(tar, path, name)
                    except FileNotFoundError:
                        continue  # deleted in the meantime
                data = json.dumps({"format": FORMAT, "made": time.time(), "sha256": hashes}).encode()
                info = tarfile.TarInfo(LIST)
                info.size, info.mode = len(data), 0o600
                tar.addfile(info, BytesIO(data))
    except OSError as error:
        raise SvacError(
            f"The backup {file} cannot be written ({error.strerror or error}).",
            "Free some space there, or name another place.",
        ) from error
    console.print(f"{counted(len(hashes), 'file')}, {file.stat().st_size / 1e6:.1f} MB")
    if settings.storage_url is not None:
        stored = {kind: of for kind, of in open_storage(settings).measure().items() if of[0]}
        told = ", ".join(f"{kind.name.lower()} {size / 1e6:.1f} MB" for kind, (_, size) in stored.items())
        console.print(
            f"Not in it: what lies in {settings.storage_url} ({told or 'nothing'}). Let that storage keep older "
            "states itself, by versioning or snapshots."
        )
    return len(hashes)


def run_restore(settings: Settings, file: Path) -> None:
    """Replace the content of the data folder by a backup; the old content is kept beside it.

    Raises:
        SvacError: the file is not a backup, is damaged or newer, or a process still uses the folder.
    """
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_if_used(settings)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{BEFORE}part-") as scratch:
            fresh = Path(scratch)
            with console.status("reading the backup"):
                count = _unpack(file, fresh)
            # Two restores may begin in the same second.
            aside = Path(tempfile.mkdtemp(dir=folder, prefix=time.strftime(f"{BEFORE}%Y%m%d-%H%M%S-")))
            if settings.database_url is not None:
                _into_server(settings, fresh / FILE_NAME, aside / FILE_NAME)
            old = [path for path in folder.iterdir() if not _left_out(path.name)]
            # The database last: until then the folder is as it was, except for files that can be moved back.
            for path in sorted(old, key=lambda path: path.name == FILE_NAME):
                path.rename(aside / path.name)
            for path in sorted(fresh.iterdir(), key=lambda path: path.name == FILE_NAME):
                path.rename(folder / path.name)
    except OSError as error:
        raise SvacError(
            f"The backup cannot be restored to {folder} ({error.strerror or error}).",
            f"Free some space, and try again; the old content is in {folder}, or in its before-restore-... folder.",
        ) from error
    Database.from_settings(settings).close()  # upgrades an older database
    console.print(f"{counted(count, 'file')} restored to {folder}; what was there before is in {aside.name}.")
    if settings.storage_url is not None:
        _name_missing(settings)


def _name_missing(settings: Settings) -> None:
    """Print which versions the database names but the storage, which is not in a backup, lacks."""
    storage = open_storage(settings)
    with closing(Database.from_settings(settings)) as database:
        found = VersionStore(database).all()
    missing = [one.name for one in found if not storage.has(Kind.VERSIONS, one.id)]
    told = f"lacks the versions {', '.join(missing)}" if missing else "has all versions that the backup names"
    console.print(f"{storage} is as it was: it {told}.", style="yellow" if missing else None)


def _into_server(settings: Settings, file: Path, aside: Path) -> None:
    """Replace the PostgreSQL server's content by that of a backup; the old content is kept in a file."""
    Database(file.parent).close()  # upgrades an older database
    with closing(Database.from_settings(settings)) as database:
        database.copy_to(aside)
        database.copy_from(file)
    file.unlink()


def _kept(settings: Settings, but: set[Path]) -> Iterator[Path]:
    """Yield the files of a data folder that belong in a backup, except the database."""
    folder, storage = settings.data_dir, open_storage(settings)
    copies = {kind.value for kind in Kind} if storage.remote else set()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        passing = any(part.startswith(".") or part.endswith((".lock", ".part")) for part in parts)
        wanted = (
            not passing
            and not _left_out(parts[0])
            and parts[0] not in copies
            and not parts[0].startswith(FILE_NAME)
            and path.absolute() not in but
        )
        if wanted and path.is_file() and not path.is_symlink():
            yield path


def _left_out(name: str) -> bool:
    return name in LEFT_OUT or name.startswith(BEFORE)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> str:
    """Add a file at its present length; return its hash."""
    with path.open("rb") as stream:
        info = tar.gettarinfo(arcname=name, fileobj=stream)
        hashed = _Hashed(stream)
        tar.addfile(info, hashed)
    return hashed.sha256.hexdigest()


class _Hashed:
    """A stream that hashes everything read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.sha256 = hashlib.sha256()
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self.sha256.update(piece)
        return piece


def _refuse_if_used(settings: Settings) -> None:
    folder = settings.data_dir
    used = any(lock_is_held(path) for path in (folder / LOCKS).glob("*.lock"))
    if not used and settings.database_url is not None:
        with closing(Database.from_settings(settings)) as database:
            used = isinstance(database.system, Postgresql) and database.system.others() > 0
    elif not used and (folder / FILE_NAME).is_file():
        with closing(sqlite3.connect(folder / FILE_NAME, timeout=1)) as connection:
            try:
                # This works only if no other process has the database open; the next one to open it sets WAL again.
                connection.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.OperationalError as error:
                used = "locked" in str(error)
            except sqlite3.DatabaseError:
                pass  # damaged, which is a reason to restore a backup
    if used:
        raise SvacError(
            f"A process still uses {folder} or its database.",
            "Stop `svac-backend serve` and all workers, and try again.",
        )


def _unpack(file: Path, folder: Path) -> int:
    """Unpack a backup into an empty folder and check all of it; return the number of its files."""
    try:
        with tarfile.open(file) as tar:
            tar.extractall(folder, filter="data")
        about = json.loads((folder / LIST).read_bytes())
        (folder / LIST).unlink()
        if about["format"] != FORMAT:
            raise SvacError(f"{file} was written by a newer version.", "Update svac-backend.")
        for name, sha256 in about["sha256"].items():
            if _hash(folder / name) != sha256:
                raise ValueError(name)
        with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                raise ValueError(FILE_NAME)
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (tarfile.TarError, ValueError, KeyError, FileNotFoundError, sqlite3.Error, EOFError) as error:
        raise SvacError(
            f"{file} is not a complete backup ({error}).", "Use another one; nothing was changed."
        ) from error
    if revision > HEAD:
        raise SvacError(f"{file} comes from a newer version (schema {revision}).", "Update svac-backend.")
    return len(about["sha256"])


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
