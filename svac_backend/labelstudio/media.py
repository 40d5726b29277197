"""A task's media as a local file: read in place where possible, else downloaded once into a cache.

The token goes to the configured Label Studio only, never across a redirect to another host.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api_errors import NEW_TOKEN
from svac_backend.labelstudio.connection import Connection
from svac_backend.labelstudio.download import Download, Source
from svac_backend.labelstudio.tasks import local_files_path
from svac_backend.settings import Settings

CLOUD_SCHEMES = ("s3", "s3s", "gs", "azure-blob", "azure_spi", "dbfs", "redis")
# Routes of Label Studio that a task's data may name without a host.
LABEL_STUDIO_ROUTES = ("/data/", "/tasks/", "/projects/", "/storage-data/")
_LONGEST_ADDRESS = 4096


@dataclass
class MediaFetcher:
    """Turns the media addresses of tasks into local files.

    Attributes:
        cache_dir: downloaded files; created when needed.
        client: the Label Studio that tasks come from; None reads local files and other hosts' addresses only.
        files_root: Label Studio's local files root as seen from here, or None.
        max_bytes: largest download.
        timeout: seconds without a byte after which a try has failed.
        label_studio_hosts: other addresses of the same Label Studio (its own idea of its host name, told by
            `/setup`); media there are asked of `client.url`.
    """

    cache_dir: Path
    client: Connection | None = None
    files_root: Path | None = None
    max_bytes: int = 4096 << 20
    timeout: float = 30.0
    label_studio_hosts: Iterable[str] = field(default_factory=tuple)

    @classmethod
    def from_settings(
        cls, settings: Settings, client: Connection | None, label_studio_hosts: Iterable[str] = ()
    ) -> MediaFetcher:
        """Return a fetcher with the cache in `data_dir/media`."""
        return cls(
            cache_dir=settings.data_dir / "media",
            client=client,
            files_root=settings.label_studio_files_root,
            max_bytes=settings.max_video_mb << 20,
            timeout=settings.label_studio_timeout_s,
            label_studio_hosts=tuple(label_studio_hosts),
        )

    def fetch(self, value: Any, *, task: int | None = None) -> Path:
        """Return a local file with the media of a task.

        Args:
            value: what the task's data holds: `/data/upload/...`, `/data/local-files/?d=...`, an http(s) address,
                a cloud address such as `s3://bucket/key`, or a path below `files_root`.
            task: the task's id; cloud addresses are resolved by Label Studio for a task.

        Raises:
            SvacError: it cannot be read; the message says why.
        """
        if not isinstance(value, str) or not value.strip():
            raise SvacError("The task has no media address.", "Put the video's address into the task's data.")
        value = value.strip()
        if len(value) > _LONGEST_ADDRESS or not value.isprintable():
            raise SvacError(
                "The task's media address is no address.", "Put the video's address into the task's data."
            )
        local = self._on_disk(value)
        if local is not None:
            return local
        key, source = self._source(value, task)
        path = self.cache_dir / (hashlib.sha256(key.encode()).hexdigest()[:32] + _suffix(value))
        authorization = self.client.authorization if self.client else None
        Download(self.max_bytes, self.timeout, authorization=authorization).to(path, source)
        return path

    def _on_disk(self, value: str) -> Path | None:
        """The file itself, when Label Studio's files are visible from here."""
        route = self._route(value)
        # Checked even when the file is not read from here: no task may name what lies outside the root.
        relative = local_files_path(route) if route is not None else None
        if self.files_root is None or (relative is None and not Path(value).is_absolute()):
            return None
        root = self.files_root.resolve()
        path = (Path(value) if relative is None else root / relative).resolve()
        # A link that leads out of the root is Label Studio's business: it is asked instead.
        if not path.is_relative_to(root):
            return None
        try:
            return path if path.is_file() else None
        except OSError as error:
            raise SvacError(
                f"{path} cannot be read ({error.strerror}).", "Correct the task's data."
            ) from error

    def _source(self, value: str, task: int | None) -> tuple[str, Source]:
        """Return what names the file in the cache, and where to download it."""
        scheme = urlsplit(value).scheme.lower()
        if scheme in CLOUD_SCHEMES:
            if task is None:
                raise SvacError(f"{value} can only be read through its task.", "Import it as a task first.")
            uri = quote(base64.urlsafe_b64encode(value.encode()).decode())
            return value, Source(f"{self._base()}/tasks/{task}/resolve/?fileuri={uri}", value, trusted=True)
        route = self._route(value)
        if route is not None:
            url = self._base() + route
            return url, Source(url, route, trusted=True, immutable=route.startswith("/data/upload/"))
        if scheme in ("http", "https"):
            # A query may be a signature.
            return value, Source(value, value.split("?")[0])
        raise SvacError(
            f"'{value[:200]}' is neither a web address, nor media of Label Studio, nor a file below its root.",
            "Use http(s), an upload or a local files address, or set SVAC_LABEL_STUDIO_FILES_ROOT.",
        )

    def _base(self) -> str:
        if self.client is None:
            raise SvacError("The media lie in Label Studio, and no token for it is set.", NEW_TOKEN)
        return self.client.url

    def _route(self, value: str) -> str | None:
        """Path and query of an address on Label Studio, e.g. `/data/upload/1/a.mp4`; None for all others."""
        if value.startswith(LABEL_STUDIO_ROUTES):
            return value
        own = [self.client.url] if self.client else []
        for base in (address.rstrip("/") for address in [*own, *self.label_studio_hosts]):
            if base and value.lower().startswith(f"{base.lower()}/"):
                return value[len(base) :]
        return None


def _suffix(value: str) -> str:
    """The file's extension, when it is a harmless one."""
    relative = local_files_path(value)
    suffix = PurePosixPath(unquote(urlsplit(value).path) if relative is None else relative).suffix
    return suffix.lower() if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
