"""Storage: frames, downloads, runs and versions, by kind and name. By default it is a folder, SVAC_DATA_DIR itself.

To write an entry, write into its `folder`, then call `publish`; to read one, call `fetch`, and read in the folder that
it returns. If all share one folder, both cost nothing; in `storage.published`, which is for buckets, they copy files.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

from svac_backend.atomic import atomic_write
from svac_backend.errors import SvacError

log = logging.getLogger(__name__)


class Kind(str, Enum):
    """The kinds of entries; the value is the folder's name. `depth` is the number of parts of an entry's name."""

    FRAMES = "served"  # <project>/<task>: frames that the web process or the bucket serves to browsers
    MEDIA = "media"  # a downloaded video
    RUNS = "training"  # the folder of a fine-tuning run, by its job
    VERSIONS = "versions"  # an adapter, by its version's id

    @property
    def depth(self) -> int:
        """Number of parts of an entry's name."""
        return 2 if self is Kind.FRAMES else 1


class NotStored(SvacError):
    """There is no such entry."""

    def __init__(self, kind: Kind, name: str, where: str) -> None:
        super().__init__(
            f"{kind.value}/{name} is not in {where}.",
            "Restore it from a backup, or make it again; all processes need the same SVAC_STORAGE_URL.",
        )


@dataclass(frozen=True)
class Stored:
    """An entry: its name, and when it was last published, in seconds since 1970."""

    name: str
    changed: float


class Storage:
    """A folder that all processes can see, e.g. the data folder of a single machine, or an NFS share.

    Args:
        root: the folder.
    """

    # Whether others see what was written only once it is published.
    remote = False

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def folder(self, kind: Kind, name: str) -> Path:
        """Return where an entry lies, or is to be written, on this machine; it need not exist."""
        return self.root / kind.value / PurePosixPath(checked(kind, name))

    def publish(self, kind: Kind, name: str, *, without: Collection[str] = ()) -> None:
        """Make everyone see what is in an entry's folder now; until that is complete, they see what was there before.

        Hidden files and parts of files are left out.

        Args:
            kind, name: of the entry.
            without: paths in the folder, of files or folders, that nobody else needs.

        Raises:
            SvacError: the storage cannot be used.
        """

    def fetch(self, kind: Kind, name: str, *, verify: bool = False) -> Path:
        """Return the folder, on this machine, of an entry as it was last published.

        It stays there for at least ten minutes, and for as long as the caller is within `storage.cache.held`.

        Args:
            kind, name: of the entry.
            verify: read every byte of the local copy, even if it was verified before.

        Raises:
            NotStored: there is no such entry.
            SvacError: the storage cannot be used, or a file in it is damaged.
        """
        folder = self.folder(kind, name)
        if not folder.exists():
            raise NotStored(kind, name, str(self))
        return folder

    def fetch_file(self, kind: Kind, name: str, file: str) -> Path:
        """Return the path of one file of an entry, without fetching the others. Raises as `fetch`."""
        path = self.folder(kind, name) / file
        if not path.is_file():
            raise NotStored(kind, f"{name}/{file}", str(self))
        return path

    def has(self, kind: Kind, name: str) -> bool:
        """Return whether there is an entry. Raises `SvacError`: the storage cannot be used."""
        return self.folder(kind, name).exists()

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an entry for everyone, if there is one.

        Raises:
            SvacError: it cannot be deleted.
        """
        remove(self.folder(kind, name))

    def entries(self, kind: Kind) -> list[Stored]:
        """Return the entries of a kind. Raises `SvacError`: the storage cannot be used."""
        found = (self.root / kind.value).glob("/".join("*" * kind.depth))
        return [
            Stored(path.relative_to(self.root / kind.value).as_posix(), path.stat().st_mtime)
            for path in sorted(found)
            if path.is_dir() and not path.name.startswith(".")
        ]

    def size(self, kind: Kind, name: str) -> int:
        """Return the size of an entry in bytes. Raises `SvacError`: the storage cannot be used."""
        folder = self.folder(kind, name)
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def measure(self) -> dict[Kind, tuple[int, int]]:
        """Return (number of files, bytes) of each kind. Raises `SvacError`: the storage cannot be used."""
        found = {}
        for kind in Kind:
            sizes = [path.stat().st_size for path in (self.root / kind.value).rglob("*") if path.is_file()]
            found[kind] = (len(sizes), sum(sizes))
        return found

    def write_note(self, kind: Kind, name: str, file: str, content: bytes) -> None:
        """Write a small file about an entry. It may change independently and is not part of what is published.

        Raises:
            SvacError: it cannot be written.
        """
        path = self.folder(kind, name) / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
        except OSError as error:
            raise SvacError(
                f"{path} cannot be written ({error.strerror}).",
                "Free some space there, or let this user write there.",
            ) from error

    def notes(self, kind: Kind, file: str) -> Iterator[tuple[str, bytes]]:
        """Yield (name of the entry, content) of all notes with a file name. Raises `SvacError`: the storage is away."""
        root = self.root / kind.value
        for path in root.glob("/".join([*"*" * kind.depth, file])):
            name = path.parent.relative_to(root).as_posix()
            try:
                yield name, path.read_bytes()
            except OSError as error:  # an unreadable note must not hide the others
                log.error("%s cannot be read: %s", path, error.strerror)

    def link(self, kind: Kind, name: str, file: str, seconds: float) -> str | None:
        """Return an address at which browsers get a file for `seconds` without our web process; None if there is none.

        Raises:
            SvacError: the storage cannot be used.
        """
        return None

    def shared(self, name: str, own: bytes) -> bytes:
        """Return the secret with a name that all machines share: the first one that any of them stored.

        Args:
            name: a file name.
            own: this machine's secret, which becomes everybody's if there is none yet.

        Raises:
            SvacError: the storage cannot be used.
        """
        return own

    def prune(self, kind: Kind, limit: float) -> int:
        """Delete a bucket's oldest entries, except today's, until at most `limit` bytes are left; return their number.

        In a folder, `jobs.retention` prunes downloads, since it sees what was used last.
        """
        return 0

    def sweep(self) -> int:
        """Delete what no entry needs any more, e.g. remains of broken uploads; return the number of files."""
        return 0

    def problem(self) -> str | None:
        """Return a sentence on why the storage cannot be used now; None if it can."""
        if not self.root.exists() or os.access(self.root, os.W_OK):
            return None
        return f"{self.root} cannot be written: let this user write there, or set SVAC_STORAGE_URL."


def checked(kind: Kind, name: str) -> str:
    """Return an entry's name. Raises `SvacError`: it could lead to another folder."""
    parts = name.split("/")
    if len(parts) != kind.depth or any(not part or part.startswith(".") or "\\" in part for part in parts):
        raise SvacError(f"{name[:100]!r} is not the name of an entry.", "This is a bug: please report it.")
    return name


def remove(folder: Path) -> None:
    """Delete a folder, if it is there.

    Raises:
        SvacError: it cannot be deleted.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SvacError(
            f"{folder} cannot be deleted ({error.strerror}).", "Delete this folder yourself."
        ) from error


def days_ago(days: float) -> float:
    """Return the time `days` days ago, in seconds since 1970."""
    return time.time() - days * 86_400.0
