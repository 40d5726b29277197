"""A task's media as a local file: read in place where possible, else downloaded once into a cache.

The token goes to the configured Label Studio only, never across a redirect to another host. If the storage is a bucket,
machines get from it what another one has downloaded; the source is still asked whether the file is the same.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from svac_backend.errors import SvacError, split_address, without_secrets
from svac_backend.labelstudio.api.connection import Connection
from svac_backend.labelstudio.api.downloads import Download, Elsewhere, Source
from svac_backend.labelstudio.api.errors import NEW_TOKEN
from svac_backend.labelstudio.api.places import Places, origin
from svac_backend.labelstudio.tasks import local_files_path
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, NotStored, Storage
from svac_backend.storage.published import open_storage

log = logging.getLogger(__name__)

CLOUD_SCHEMES = ("s3", "s3s", "gs", "azure-blob", "azure_spi", "dbfs", "redis")
# Routes of Label Studio that a task's data may name without a host.
LABEL_STUDIO_ROUTES = ("/data/", "/tasks/", "/projects/", "/storage-data/")
_LONGEST_ADDRESS = 4096
# Control characters, line ends and lone surrogates. File names may hold any kind of space and joiner.
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")


@dataclass
class MediaFetcher:
    """Turns the media addresses of tasks into local files.

    Attributes:
        cache_dir: folder of downloaded files; made if absent.
        client: the Label Studio that tasks come from; None: read only local files and other hosts' addresses.
        files_root: Label Studio's local files root as seen from here, or None.
        max_bytes: largest download.
        timeout: seconds without a byte after which a try has failed.
        label_studio_hosts: other addresses of the same Label Studio (what it calls itself in `/setup`); media there are
            fetched from `client.url`.
        places: where media may come from, besides `client`.
        deadline_s, least_bps: see `Download`.
        storage: the bucket in which machines share downloads; None: there is none.
    """

    cache_dir: Path
    client: Connection | None = None
    files_root: Path | None = None
    max_bytes: int = 4096 << 20
    timeout: float = 30.0
    label_studio_hosts: Iterable[str] = field(default_factory=tuple)
    places: Places = field(default_factory=Places)
    deadline_s: float = 3600.0
    least_bps: float = 10_000.0
    storage: Storage | None = None

    def __post_init__(self) -> None:
        if self.client is not None:  # whatever it has may be read, above all media of its tasks
            self.places = replace(self.places, own=(*self.places.own, origin(self.client.url)))

    @classmethod
    def from_settings(
        cls, settings: Settings, client: Connection | None, label_studio_hosts: Iterable[str] = ()
    ) -> MediaFetcher:
        """Return a fetcher with the cache in `data_dir/media`."""
        storage = open_storage(settings)
        return cls(
            cache_dir=storage.root / Kind.MEDIA.value,
            client=client,
            files_root=settings.label_studio_files_root,
            max_bytes=settings.max_video_mb << 20,
            timeout=settings.label_studio_timeout_s,
            label_studio_hosts=tuple(label_studio_hosts),
            places=Places.of(settings.media_hosts, [settings.label_studio_url]),
            deadline_s=settings.media_deadline_s,
            least_bps=settings.media_least_kbs * 1000,
            storage=storage if storage.remote else None,
        )

    def fetch(self, value: Any, *, task: int | None = None, check: Callable[[], None] = lambda: None) -> Path:
        """Return a local file with the media of a task.

        Args:
            value: what the task's data holds: `/data/upload/...`, `/data/local-files/?d=...`, an http(s) address,
                a cloud address such as `s3://bucket/key`, or a path below `files_root`.
            task: the task's id; cloud addresses are resolved by Label Studio for a task.
            check: called several times a second; raises if the job should end.

        Raises:
            SvacError: it cannot be read. For media in Label Studio the message says why. For others only the log does:
                otherwise anybody who may add tasks and read jobs could explore the network.
            Exception: what `check` raises.
        """
        if not isinstance(value, str) or not value.strip():
            raise SvacError("The task has no media address.", "Put the video's address into the task's data.")
        value = value.strip()
        if (
            len(value) > _LONGEST_ADDRESS
            or any(unicodedata.category(c) in _NO_TEXT for c in value)
            or split_address(value) is None
        ):
            raise SvacError(
                "The task's media address is not an address.", "Put the video's address into the task's data."
            )
        local = self._on_disk(value)
        if local is not None:
            return local
        key, source = self._source(value, task)
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        path = (self.cache_dir if self.storage is None else self._stored(name)) / (name + _suffix(value))
        how = Download(
            self.max_bytes,
            self.timeout,
            authorization=self.client.authorization if self.client else None,
            places=self.places,
            deadline_s=self.deadline_s,
            least_bps=self.least_bps,
            check=check,
        )
        try:
            how.to(path, source)
        except Elsewhere as error:
            log.warning("media of task %s: %s", task, error)
            raise SvacError(
                f"{source.shown} cannot be read from here.",
                "The log of `svac-backend worker` says why. Hosts of a private network must be in SVAC_MEDIA_HOSTS.",
                temporary=True,  # it may only be away; a refusal waits as long, or one could tell which hosts exist
            ) from None
        os.utime(path)  # recently used files are kept longest, see `jobs.retention`
        if self.storage is not None:
            try:
                self.storage.publish(Kind.MEDIA, name)
            except SvacError as error:  # the others download it themselves
                log.warning("a download is not stored for others: %s", error)
        return path

    def _stored(self, name: str) -> Path:
        """Return the folder of a download, with what another machine has stored in it."""
        if self.storage is None:
            return self.cache_dir
        try:
            return self.storage.fetch(Kind.MEDIA, name)
        except NotStored:
            pass  # this machine is the first
        except SvacError as error:
            log.warning("cannot take a download from the storage: %s", error)
        return self.storage.folder(Kind.MEDIA, name)

    def _on_disk(self, value: str) -> Path | None:
        """Return the file itself if Label Studio's files are visible from here."""
        route = self._route(value)
        # Checked even if the file is not read from here: no task may name a file outside the root.
        relative = local_files_path(route) if route is not None else None
        if self.files_root is None or (relative is None and not Path(value).is_absolute()):
            return None
        root = self.files_root.resolve()
        path = (Path(value) if relative is None else root / relative).resolve()
        # Whether a link may lead out of the root is Label Studio's business, so Label Studio is asked instead.
        if not path.is_relative_to(root):
            return None
        try:
            return path if path.is_file() else None
        except OSError as error:
            raise SvacError(
                f"{path} cannot be read ({error.strerror}).", "Correct the task's data."
            ) from error

    def _source(self, value: str, task: int | None) -> tuple[str, Source]:
        """Return the file's identity in the cache, and where to download it."""
        scheme, shown = urlsplit(value).scheme.lower(), without_secrets(value).removesuffix("?...")[:200]
        if scheme in CLOUD_SCHEMES:
            if task is None:
                raise SvacError(f"{shown} can only be read through its task.", "Import it as a task first.")
            self.places.check_bucket(value)
            uri = quote(base64.urlsafe_b64encode(value.encode()).decode())
            return value, Source(f"{self._base()}/tasks/{task}/resolve/?fileuri={uri}", shown, trusted=True)
        route = self._route(value)
        if route is not None:
            url = self._base() + route
            # The query of a local file is its path; that of others may be a secret.
            named = route if local_files_path(route) is not None else route.split("?")[0]
            return url, Source(url, named, trusted=True, immutable=route.startswith("/data/upload/"))
        if scheme in ("http", "https"):
            return value, Source(value, shown)
        raise SvacError(
            f"'{shown}' is neither a web address, nor media of Label Studio, nor a file below its root.",
            "Use http(s), an upload or a local files address, or set SVAC_LABEL_STUDIO_FILES_ROOT.",
        )

    def _base(self) -> str:
        if self.client is None:
            raise SvacError("The media are in Label Studio, but no token for it is set.", NEW_TOKEN)
        return self.client.url

    def _route(self, value: str) -> str | None:
        """Return path and query of an address on Label Studio, e.g. `/data/upload/1/a.mp4`; None for all others."""
        if value.startswith(LABEL_STUDIO_ROUTES):
            return value
        own = [self.client.url] if self.client else []
        for base in (address.rstrip("/") for address in [*own, *self.label_studio_hosts]):
            if base and value.lower().startswith(f"{base.lower()}/"):
                return value[len(base) :]
            # A Label Studio that lives below a path stores uploads with that path.
            below = re.sub(r"^[a-z]+://[^/]*", "", base, flags=re.IGNORECASE)
            if below and value.startswith(tuple(below + route for route in LABEL_STUDIO_ROUTES)):
                return value[len(below) :]
        return None


def _suffix(value: str) -> str:
    """Return the file's extension if it is harmless."""
    relative = local_files_path(value)
    suffix = PurePosixPath(unquote(urlsplit(value).path) if relative is None else relative).suffix
    return suffix.lower() if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
