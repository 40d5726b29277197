"""This machine's copies of what lies in a bucket: which are whole, which are in use, which are deleted first.

They lie in the data folder, just where they would lie if the storage were a folder: what is written here is published
from here, and stays as the copy. Several processes share them. Beside an entry's files, `.stored.json` lists those that
were verified to be whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from svac_backend.atomic import atomic_write
from svac_backend.errors import SvacError
from svac_backend.storage.folder import Kind, remove

RECORD, LOCKS = ".stored.json", ".storage"
# Seconds: an entry used this recently stays, even if nobody holds it, since its path may just have been handed out.
GRACE_S = 600.0
# Seconds, at least, between two checks whether the copies have outgrown their limit.
EVERY_S = 60.0

log = logging.getLogger(__name__)

_held: ContextVar[dict[Path, int] | None] = ContextVar("held", default=None)


@contextmanager
def held() -> Iterator[None]:
    """Keep what this thread fetches on this machine, whatever the limit, while a job reads it."""
    before = _held.set({})
    try:
        yield
    finally:
        for descriptor in (_held.get() or {}).values():
            os.close(descriptor)
        _held.reset(before)


@dataclass(frozen=True)
class Whole:
    """A file verified to be whole: its SHA-256, its bytes, and when it was last changed, in nanoseconds."""

    sha256: str
    size: int
    changed: int

    def is_still(self, path: Path) -> bool:
        """Whether the file at a path is still the one that was verified."""
        try:
            found = path.stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.size, self.changed)


def look_at(path: Path) -> Whole:
    """Read a file and return its hash, bytes and time. Raises `OSError`."""
    with path.open("rb") as stream:
        about = os.fstat(stream.fileno())
        return Whole(hashlib.file_digest(stream, "sha256").hexdigest(), about.st_size, about.st_mtime_ns)


class Cache:
    """Copies below a folder.

    Args:
        root: the data folder.
        limit: bytes that they may take; 0: no limit.
        clock: returns seconds since 1970.
    """

    def __init__(self, root: Path, limit: int, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.limit = limit
        self._clock = clock
        self._looked = -EVERY_S

    def folder(self, kind: Kind, name: str) -> Path:
        """Return where an entry's copy lies."""
        return self.root / kind.value / PurePosixPath(name)

    @contextmanager
    def locked(self, kind: Kind, name: str) -> Iterator[None]:
        """Keep all other threads and processes from changing an entry's copy."""
        with FileLock(self._lock(kind, name, "lock")):
            yield

    def record(self, kind: Kind, name: str) -> dict[str, Whole]:
        """Return which of an entry's files were verified to be whole, by path in its folder."""
        try:
            found = json.loads((self.folder(kind, name) / RECORD).read_bytes())
            return {path: Whole(**about) for path, about in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # none, or damaged: the files are read again

    def write_record(self, kind: Kind, name: str, files: Mapping[str, Whole]) -> None:
        """Record which files are whole. Raises `OSError`."""
        folder = self.folder(kind, name)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / RECORD, json.dumps({path: asdict(about) for path, about in files.items()}))

    def use(self, kind: Kind, name: str) -> None:
        """Note that an entry is in use now, and hold it if `held` asks for that."""
        folder = self.folder(kind, name)
        if (folder / RECORD).exists():
            os.utime(folder / RECORD, (self._clock(), self._clock()))
        pins = _held.get()
        if pins is None or folder in pins:
            return
        descriptor = os.open(self._lock(kind, name, "pin"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        pins[folder] = descriptor

    def shrink(self, coming: int = 0) -> int:
        """Delete the least recently used copies until the rest, plus `coming`, are within the limit.

        Copies that somebody holds stay, and so does what was never published. Return the number of deleted copies.

        Args:
            coming: bytes that are about to be fetched; 0: check only once a minute.
        """
        now = time.monotonic()
        if not self.limit or (not coming and now - self._looked < EVERY_S):
            return 0
        self._looked = now
        found = sorted(self._copies())
        total, count = coming + sum(size for _, size, _, _ in found), 0
        for used, size, kind, name in found:
            if total <= self.limit or used > self._clock() - GRACE_S:
                break
            if self._forget(kind, name):
                total, count = total - size, count + 1
        if count:
            log.info("deleted %d local copies of what the storage has", count)
        return count

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an entry's copy. Raises `SvacError`: it cannot be deleted."""
        with self.locked(kind, name):
            remove(self.folder(kind, name))

    def _copies(self) -> Iterator[tuple[float, int, Kind, str]]:
        """Yield (last use, bytes, kind, name) of the entries here that the storage has, too."""
        for kind in Kind:
            top = self.root / kind.value
            for path in top.glob("/".join([*"*" * kind.depth, RECORD])):
                name = path.parent.relative_to(top).as_posix()
                try:
                    used = path.stat().st_mtime
                except FileNotFoundError:
                    continue
                yield used, sum(about.size for about in self.record(kind, name).values()), kind, name

    def _forget(self, kind: Kind, name: str) -> bool:
        """Delete a copy unless somebody holds it; a failure must not stop the others."""
        lock = FileLock(self._lock(kind, name, "lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False  # it is being fetched; waiting here while holding another lock could deadlock
        try:
            descriptor = os.open(self._lock(kind, name, "pin"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A file written here since, and not published yet, is not a copy of anything.
                known = {RECORD, *self.record(kind, name)}
                if any(path not in known for path in files_of(self.folder(kind, name))):
                    return False
                remove(self.folder(kind, name))
            except BlockingIOError:
                return False
            except SvacError as error:
                log.warning("%s", error)
                return False
            finally:
                os.close(descriptor)
        finally:
            lock.release()
        return True

    def _lock(self, kind: Kind, name: str, what: str) -> Path:
        folder = self.root / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        mark = hashlib.sha256(f"{kind.value}/{name}".encode()).hexdigest()[:32]
        return folder / f"{mark}.{what}"


def files_of(folder: Path) -> list[str]:
    """Return the paths of an entry's files in its folder, without hidden files and parts of files."""
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part.endswith(".part") for part in parts):
            found.append("/".join(parts))
    return found
