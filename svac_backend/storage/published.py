"""Storage in a bucket: each machine works on its own copies, and what is published appears whole or not at all.

In the bucket, an entry consists of:

    <kind>/<name>/<first 16 digits of the hash>/<file>    its files; no object is ever overwritten with other content
    manifests/<kind>/<name>.json                          the list of its files, with hashes and sizes; written last
    notes/<kind>/<name>/<file>                            see `Storage.write_note`

Two machines that publish the same files write the same objects; if the files differ, the last manifest counts, and all
that it names is there. A day later, `sweep` deletes what no manifest names any more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from svac_backend.atomic import atomic_write
from svac_backend.errors import SvacError, lacks_room, no_room
from svac_backend.settings import Settings
from svac_backend.storage.bucket import Bucket, NoObject
from svac_backend.storage.cache import LOCKS, Cache, Whole, files_of, look_at
from svac_backend.storage.folder import Kind, NotStored, Storage, Stored, checked, days_ago

FORMAT = "svac-storage-1"
MANIFESTS, NOTES = "manifests", "notes"
# Transfers at the same time; each waits for the network, not for a core.
TOGETHER = 16
# Files up to this size in bytes are read once, hashed and sent, since they may be growing, as logs do.
SMALL = 4 << 20
TRIES = 3
# Seconds for which `fetch_file` trusts a manifest that it has read: pages ask for frame after frame.
FRESH_S = 30.0
# Seconds for which the answer to whether the store can be used counts, and seconds that finding out may take.
PROBE_S, PATIENCE_S = 15.0, 5.0
GIB = 1 << 30

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Found = TypeVar("Found")
# Path in the entry's folder -> (sha256, bytes).
Manifest = dict[str, tuple[str, int]]


class BucketStorage(Storage):
    """A bucket, and the copies in this machine's data folder.

    Args:
        bucket: where everyone finds it.
        cache: the copies here.
    """

    remote = True

    def __init__(self, bucket: Bucket, cache: Cache) -> None:
        super().__init__(cache.root)
        self.bucket = bucket
        self.cache = cache
        self._read: dict[tuple[Kind, str], tuple[float, Manifest]] = {}
        self._secrets: dict[str, bytes] = {}
        self._probed: tuple[float, str | None] = (-PROBE_S, None)
        self._reading = threading.Lock()

    def __str__(self) -> str:
        return str(self.bucket)

    def publish(self, kind: Kind, name: str, *, without: Collection[str] = ()) -> None:
        """See `Storage.publish`."""
        folder = self.folder(kind, name)
        for attempt in range(1, TRIES + 1):
            try:
                self._publish(kind, name, folder, without)
                self.cache.use(kind, name)
                break
            except (FileNotFoundError, _Changed) as error:
                # A process at work replaces files: a checkpoint by the next one.
                if attempt == TRIES or not folder.is_dir():
                    raise SvacError(
                        f"{folder} changes while it is stored ({error}).", "Try again later.", temporary=True
                    ) from error
            except OSError as error:
                raise _unusable(folder, error) from error
        self.cache.shrink()

    def _publish(self, kind: Kind, name: str, folder: Path, without: Collection[str]) -> None:
        before, known = self._manifest(kind, name) or {}, self.cache.record(kind, name)
        paths = [path for path in files_of(folder) if not _is_below(path, without)]

        def store(path: str) -> tuple[str, Whole]:
            return path, self._store(kind, name, path, before, known.get(path))

        found = dict(_together(store, paths))
        manifest = {path: (about.sha256, about.size) for path, about in found.items()}
        if manifest != before or not manifest:
            content = {"format": FORMAT, "files": manifest, "made": time.time()}
            self.bucket.write(_manifest_key(kind, name), json.dumps(content).encode())
        self.cache.write_record(kind, name, found)
        with self._reading:
            self._read[kind, name] = time.monotonic(), manifest

    def _store(self, kind: Kind, name: str, path: str, before: Manifest, known: Whole | None) -> Whole:
        """Make sure that a file is in the bucket; return what was stored. Raises `FileNotFoundError`, `_Changed`."""
        file = self.folder(kind, name) / path
        if known is None or not known.is_still(file):
            about = file.stat()
            if about.st_size <= SMALL:
                content = file.read_bytes()
                known = Whole(hashlib.sha256(content).hexdigest(), len(content), about.st_mtime_ns)
                if before.get(path) != (known.sha256, known.size):
                    self.bucket.write(_key(kind, name, path, known.sha256), content)
                return known
            known = look_at(file)
        if before.get(path) != (known.sha256, known.size):
            self.bucket.put(file, _key(kind, name, path, known.sha256))
            if not known.is_still(file):
                raise _Changed(path)
        return known

    def fetch(self, kind: Kind, name: str, *, verify: bool = False) -> Path:
        """See `Storage.fetch`. While the store is away, a copy that was verified will do."""
        folder = self.folder(kind, name)
        with self.cache.locked(kind, name):
            known = self.cache.record(kind, name)
            try:
                manifest = self._manifest(kind, name)
            except SvacError as error:
                if not known or not all(about.is_still(folder / path) for path, about in known.items()):
                    raise
                log.warning("%s/%s is read from the copy here: %s", kind.value, name, error)
                self.cache.use(kind, name)
                return folder
            if manifest is None:
                raise NotStored(kind, name, str(self))
            try:
                self._bring(kind, name, manifest, {} if verify else known)
                for path in known.keys() - manifest.keys():
                    (folder / path).unlink(missing_ok=True)
            except OSError as error:
                raise _unusable(folder, error) from error
            self.cache.use(kind, name)
        return folder

    def fetch_file(self, kind: Kind, name: str, file: str) -> Path:
        """See `Storage.fetch_file`."""
        manifest = self._known_manifest(kind, name)
        if file not in manifest:
            raise NotStored(kind, f"{name}/{file}", str(self))
        path, known = self.folder(kind, name) / file, self.cache.record(kind, name).get(file)
        if known is None or known.sha256 != manifest[file][0] or not known.is_still(path):
            with self.cache.locked(kind, name):
                try:
                    known_files = self.cache.record(kind, name)
                    self._bring(kind, name, {file: manifest[file]}, known_files, keep=known_files)
                except OSError as error:
                    raise _unusable(path, error) from error
        self.cache.use(kind, name)
        return path

    def _bring(
        self,
        kind: Kind,
        name: str,
        manifest: Manifest,
        known: Mapping[str, Whole],
        *,
        keep: Mapping[str, Whole] | None = None,
    ) -> None:
        """Fetch the files of a manifest that are not here, and record all as whole. The entry is locked."""
        folder = self.folder(kind, name)

        def is_here(path: str) -> bool:
            about = known.get(path)
            return about is not None and about.sha256 == manifest[path][0] and about.is_still(folder / path)

        absent = [path for path in manifest if not is_here(path)]
        if not absent and keep is None and set(known) == set(manifest):
            return
        self.cache.shrink(sum(manifest[path][1] for path in absent))

        def bring(path: str) -> tuple[str, Whole]:
            return path, self._bring_one(kind, name, path, *manifest[path])

        found = {path: known[path] for path in manifest if path not in absent}
        found.update(_together(bring, absent))
        self.cache.write_record(kind, name, {**(keep or {}), **found})

    def _bring_one(self, kind: Kind, name: str, path: str, sha256: str, size: int) -> Whole:
        """Bring one file here as the manifest describes it; a file that is here already is verified, not fetched."""
        target = self.folder(kind, name) / path
        if target.is_file() and target.stat().st_size == size:
            about = look_at(target)
            if about.sha256 == sha256:
                return about
            log.warning("the local copy %s is damaged; fetching it again", target)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{threading.get_ident()}.part")
        key = _key(kind, name, path, sha256)
        try:
            for attempt in range(1, TRIES + 1):
                try:
                    self.bucket.get(key, part)
                except NoObject as error:
                    raise SvacError(
                        f"{key} is missing in {self}, or has just been replaced.",
                        "Try again.",
                        temporary=True,
                    ) from error
                about = look_at(part)
                if about.sha256 == sha256:
                    part.replace(target)
                    return about
                log.warning("%s came with %d of %d bytes, or others; try %d", key, about.size, size, attempt)
        finally:
            part.unlink(missing_ok=True)
        raise SvacError(
            f"{key} arrives damaged from {self}.",
            "If that persists, delete it there and make it again.",
            temporary=True,
        )

    def has(self, kind: Kind, name: str) -> bool:
        """See `Storage.has`."""
        return self._manifest(kind, name) is not None

    def delete(self, kind: Kind, name: str) -> None:
        """See `Storage.delete`."""
        name = checked(kind, name)
        self.bucket.delete([_manifest_key(kind, name)])  # first, so that nobody starts to fetch it
        rest = [
            *self.bucket.listing(f"{kind.value}/{name}"),
            *self.bucket.listing(f"{NOTES}/{kind.value}/{name}"),
        ]
        self.bucket.delete([about.key for about in rest])
        with self._reading:
            self._read.pop((kind, name), None)
        self.cache.delete(kind, name)

    def entries(self, kind: Kind) -> list[Stored]:
        """See `Storage.entries`."""
        start = f"{MANIFESTS}/{kind.value}/"
        found = self.bucket.listing(start.rstrip("/"))
        return [Stored(one.key[len(start) :].removesuffix(".json"), one.changed) for one in found]

    def size(self, kind: Kind, name: str) -> int:
        """See `Storage.size`."""
        return sum(size for _, size in (self._manifest(kind, name) or {}).values())

    def measure(self) -> dict[Kind, tuple[int, int]]:
        """See `Storage.measure`."""
        found = {}
        for kind in Kind:
            objects = self.bucket.listing(kind.value)
            found[kind] = (len(objects), sum(one.size for one in objects))
        return found

    def write_note(self, kind: Kind, name: str, file: str, content: bytes) -> None:
        """See `Storage.write_note`."""
        self.bucket.write(f"{NOTES}/{kind.value}/{checked(kind, name)}/{file}", content)

    def notes(self, kind: Kind, file: str) -> Iterator[tuple[str, bytes]]:
        """See `Storage.notes`."""
        start = f"{NOTES}/{kind.value}/"
        keys = [one.key for one in self.bucket.listing(start.rstrip("/")) if one.key.endswith(f"/{file}")]

        def read(key: str) -> tuple[str, bytes] | None:
            try:
                return key[len(start) : -len(file) - 1], self.bucket.read(key)
            except NoObject:
                return None

        yield from (found for found in _together(read, keys) if found is not None)

    def link(self, kind: Kind, name: str, file: str, seconds: float) -> str | None:
        """See `Storage.link`; the file must have been published."""
        about = self._known_manifest(kind, name).get(file)
        if about is None:
            raise NotStored(kind, f"{name}/{file}", str(self))
        return self.bucket.sign(_key(kind, name, file, about[0]), seconds)

    def _known_manifest(self, kind: Kind, name: str) -> Manifest:
        with self._reading:
            read, found = self._read.get((kind, name), (-FRESH_S, None))
        if found is None or time.monotonic() - read > FRESH_S:
            found = self._manifest(kind, name)
            if found is None:
                raise NotStored(kind, name, str(self))
            with self._reading:
                if len(self._read) > 1000:  # each may name thousands of files
                    self._read.clear()
                self._read[kind, name] = time.monotonic(), found
        return found

    def shared(self, name: str, own: bytes) -> bytes:
        """See `Storage.shared`. While the store is away, the last known secret will do."""
        with self._reading:
            if name in self._secrets:
                return self._secrets[name]
        copy = self.root / LOCKS / name
        try:
            found = self.bucket.create(f"keys/{name}", own)
        except SvacError as error:
            if not copy.is_file():
                raise
            log.warning("using the last known %s: %s", name, error)
            return copy.read_bytes()
        try:
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            atomic_write(copy, found, mode=0o600)
        except OSError as error:
            raise _unusable(copy, error) from error
        with self._reading:
            self._secrets[name] = found
        return found

    def prune(self, kind: Kind, limit: float) -> int:
        """See `Storage.prune`."""
        sizes: dict[str, int] = {}
        for about in self.bucket.listing(kind.value):
            name = "/".join(about.key.split("/")[1 : 1 + kind.depth])
            sizes[name] = sizes.get(name, 0) + about.size
        total, count = sum(sizes.values()), 0
        for one in sorted(self.entries(kind), key=lambda one: one.changed):
            if total <= limit or one.changed > days_ago(1):
                break
            self.delete(kind, one.name)
            total, count = total - sizes.get(one.name, 0), count + 1
        return count

    def sweep(self) -> int:
        """See `Storage.sweep`."""
        count, old = 0, days_ago(1)
        for kind in Kind:
            objects: dict[str, list[tuple[str, float]]] = {}
            for about in self.bucket.listing(kind.value):
                name = "/".join(about.key.split("/")[1 : 1 + kind.depth])
                objects.setdefault(name, []).append((about.key, about.changed))
            for name, found in objects.items():
                manifest = self._manifest(kind, name) or {}
                needed = {_key(kind, name, path, sha256) for path, (sha256, _) in manifest.items()}
                gone = [key for key, changed in found if key not in needed and changed < old]
                self.bucket.delete(gone)
                count += len(gone)
        return count

    def problem(self) -> str | None:
        """See `Storage.problem`. It writes, reads and deletes an object; the result counts for a while."""
        when, found = self._probed
        if time.monotonic() - when > PROBE_S:
            pool = ThreadPoolExecutor(1, thread_name_prefix="storage-probe")
            try:
                found = pool.submit(self._probe).result(PATIENCE_S)
            except TimeoutError:
                found = f"{self} has not answered within {PATIENCE_S:g} s."
            pool.shutdown(wait=False)
            self._probed = time.monotonic(), found
        return found

    def _probe(self) -> str | None:
        key = f"notes/probe-{threading.get_native_id()}-{time.time_ns()}"
        try:
            self.bucket.write(key, key.encode())
            same = self.bucket.read(key) == key.encode()
            self.bucket.delete([key])
        except SvacError as error:
            return str(error)
        except NoObject:
            same = False
        return None if same else f"{self} does not return what was written to it."

    def _manifest(self, kind: Kind, name: str) -> Manifest | None:
        try:
            text = self.bucket.read(_manifest_key(kind, name))
        except NoObject:
            return None
        try:
            found: dict[str, Any] = json.loads(text)
            if found["format"] != FORMAT:
                raise SvacError(f"{self} was written by a newer version.", "Update svac-backend.")
            return {str(path): (str(sha256), int(size)) for path, (sha256, size) in found["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SvacError(
                f"{_manifest_key(kind, name)} in {self} is damaged.", "Delete it there: it is made again."
            ) from error


class _Changed(Exception):
    """A file was changed while it was sent."""


def open_storage(settings: Settings) -> Storage:
    """Return the storage that the settings name, without connecting to it yet.

    Raises:
        SettingsError: the library for it is not installed.
    """
    url = settings.storage_url
    if url is None:
        return Storage(settings.data_dir)
    if "://" not in url:
        return Storage(Path(url))
    key = (url, settings.data_dir.absolute(), settings.storage_cache_gb)
    with _opening:
        if key not in _opened:
            _opened[key] = BucketStorage(Bucket(url), Cache(key[1], int(settings.storage_cache_gb * GIB)))
        return _opened[key]


# One for each place in a process, since it remembers manifests and has connections.
_opened: dict[tuple[str, Path, float], BucketStorage] = {}
_opening = threading.Lock()


def _key(kind: Kind, name: str, path: str, sha256: str) -> str:
    return f"{kind.value}/{name}/{sha256[:16]}/{path}"


def _manifest_key(kind: Kind, name: str) -> str:
    return f"{MANIFESTS}/{kind.value}/{checked(kind, name)}.json"


def _is_below(path: str, tops: Collection[str]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


def _together(work: Callable[[Item], Found], items: Collection[Item]) -> Iterator[Found]:
    """Yield what `work` returns for each item, doing several at a time; the first error ends it."""
    if not items:
        return
    pool = ThreadPoolExecutor(min(TOGETHER, len(items)), thread_name_prefix="storage")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _unusable(path: Path, error: OSError) -> SvacError:
    if lacks_room(error):
        return no_room(error)
    return SvacError(
        f"{path} cannot be used ({error.strerror or error}).", "Let this user read and write SVAC_DATA_DIR."
    )
