"""A task's media as a local file: read in place where possible, else downloaded once into a cache.

A download is resumed, checked against its announced size, limited, and complete or not there at all. The token goes to
the configured Label Studio only, never across a redirect to another host.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpx

from svac_backend.errors import JobCancelled, SvacError, split_address, without_secrets
from svac_backend.labelstudio.api.connection import Connection
from svac_backend.labelstudio.api.errors import BARRED, NEW_TOKEN
from svac_backend.labelstudio.api.places import (
    Pace,
    Places,
    TooSlow,
    check_by_name,
    has_proxy,
    media_client,
    origin,
)
from svac_backend.labelstudio.tasks import local_files_path
from svac_backend.settings import Settings

_REDIRECTS, _SMALLEST_PART = 5, 64 << 10
# Tries for one file at most that broke off, however much progress each of them made.
_BROKEN = 100
_BUSY = (408, 425, 429)

log = logging.getLogger(__name__)


class Elsewhere(SvacError):
    """A server that is not Label Studio does not hand a file out, for whatever reason."""


class _Again(Exception):
    """The transfer broke off or the server is busy: worth another try."""


@dataclass(frozen=True)
class Source:
    """What to download.

    Attributes:
        url: where to begin; redirects are followed.
        shown: how messages call it, without secrets.
        trusted: whether `url` is Label Studio's own, so that `authorization` may be sent there.
        immutable: whether a file of the same size is the same file.
    """

    url: str
    shown: str
    trusted: bool = False
    immutable: bool = False


@dataclass(frozen=True)
class Download:
    """How to download.

    Attributes:
        max_bytes: largest file.
        timeout: seconds without an answer or a byte after which a try has failed.
        tries: how often in a row it may fail without progress.
        retry_delay: seconds before the second try; doubles each time.
        authorization: returns the header for trusted addresses.
        places: where files may come from; by default every public host.
        deadline_s: seconds for all tries together.
        least_bps: bytes a second that must come on average.
        check: called several times a second; raises when the job is to end.
    """

    max_bytes: int
    timeout: float = 30.0
    tries: int = 4
    retry_delay: float = 0.5
    authorization: Callable[[], dict[str, str]] | None = None
    places: Places = field(default_factory=Places)
    deadline_s: float = 3600.0
    least_bps: float = 10_000.0
    check: Callable[[], None] = lambda: None

    def to(self, path: Path, source: Source) -> None:
        """Make `path` hold what `source` has; nothing is transferred when it already does.

        Raises:
            SvacError: it is not there, not allowed, too large, empty, a web page, or cannot be had now.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix="partial-")
            part = Path(name)
            try:
                pace = Pace(self.deadline_s, self.least_bps, self.check)
                with (
                    os.fdopen(handle, "r+b") as stream,
                    media_client(self.places, pace, self.timeout) as http,
                ):
                    fresh = _Transfer(self, http, pace, source, stream, _known(path)).run()
                if fresh is not None:
                    part.replace(path)
                    _state_file(path).write_text(json.dumps(fresh))
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise SvacError(
                f"{source.shown} could not be written to {path.parent} ({error.strerror or error}).",
                "Make room there, or set SVAC_DATA_DIR to another folder.",
            ) from error


class _Transfer:
    """One file on its way into `stream`."""

    def __init__(
        self,
        how: Download,
        http: httpx.Client,
        pace: Pace,
        source: Source,
        stream: BinaryIO,
        known: dict[str, Any],
    ) -> None:
        self.how, self.http, self.pace, self.source = how, http, pace, source
        self.stream, self.known = stream, known
        self.state: dict[str, Any] = {}
        self.elsewhere = not source.trusted

    def run(self) -> dict[str, Any] | None:
        """Transfer the file; return its size and validators, or None when the known copy is up to date."""
        try:
            return self._run()
        except JobCancelled:
            raise
        except SvacError as error:
            if self.elsewhere:
                raise Elsewhere(error.message, error.hint) from error
            raise

    def _run(self) -> dict[str, Any] | None:
        failures = broken = 0
        while True:
            before = self.stream.tell()
            try:
                with self._open(before) as response:
                    if self._begin(response, before):
                        return None
                    self._copy(response)
                if self.state["size"] in (None, self.stream.tell()):
                    break
                if self.stream.tell() - before >= _SMALLEST_PART:
                    # Some servers answer any range in parts; Label Studio's storage proxy in 7 MB.
                    continue
                raise _Again(f"{self.stream.tell()} of {self.state['size']} bytes came")
            except (_Again, httpx.TransportError) as error:
                failures = 1 if self.stream.tell() > before else failures + 1
                broken += 1
                if failures >= self.how.tries or broken >= _BROKEN:
                    raise self._broken(f"{error}" or type(error).__name__) from error
                self._rest(self.how.retry_delay * 2 ** (failures - 1))
            except TooSlow as error:
                raise self._too_slow(error) from error
            except httpx.InvalidURL as error:
                raise SvacError(
                    f"{self.source.shown} is no address.", "Correct the address in the task's data."
                ) from error
        if self.stream.tell() == 0:
            raise SvacError(f"{self.source.shown} is empty.", "Upload the file again.")
        return {**self.state, "size": self.stream.tell()}

    def _rest(self, seconds: float) -> None:
        try:
            self.pace.sleep(seconds)
        except TooSlow as error:
            raise self._too_slow(error) from error

    @contextmanager
    def _open(self, offset: int) -> Iterator[httpx.Response]:
        # A range from the start on makes Label Studio tell the size; without one its uploads have none.
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={offset}-"}
        url, trusted, home = self.source.url, self.source.trusted, origin(self.source.url)
        for _ in range(_REDIRECTS + 1):
            # Once the way has left Label Studio the token is never sent again.
            trusted = trusted and origin(url) == home
            self.elsewhere = not trusted
            if has_proxy():
                check_by_name(self.how.places, self.pace, url)
            auth = self.how.authorization() if trusted and self.how.authorization else {}
            request = self.http.build_request("GET", url, headers={**headers, **auth})
            response = self.http.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    yield response
                    return
                url = self._further(url, response.headers["location"])
            finally:
                response.close()
        raise SvacError(f"{self.source.shown} is redirected without an end.", "Correct the address.")

    def _further(self, url: str, location: str) -> str:
        try:
            url = urljoin(url, location)
            origin(url)
        except (SvacError, ValueError) as error:
            raise SvacError(
                f"{self.source.shown} leads to an address that is not http.", "Correct the address."
            ) from error
        return url

    def _begin(self, response: httpx.Response, offset: int) -> bool:
        """Check the answer and place the stream; return True when the known copy is up to date."""
        self._refuse(response, offset)
        start, size = _content_range(response)
        told = response.headers
        state = {"size": size, "etag": told.get("etag"), "modified": told.get("last-modified")}
        if size is not None and size > self.how.max_bytes:
            raise self._too_large(size)
        if offset == 0 and self._same(state):
            return True
        if start != offset or (offset and state != self.state):
            # The server sends the whole file, or another one than before.
            self.stream.seek(0)
            self.stream.truncate()
            if start != 0:
                raise _Again("the server sent another part than the one asked for")
        self.state = state
        return False

    def _same(self, state: dict[str, Any]) -> bool:
        has_validator = bool(state["etag"] or state["modified"])
        return state["size"] is not None and state == self.known and (has_validator or self.source.immutable)

    def _refuse(self, response: httpx.Response, offset: int) -> None:
        status, shown = response.status_code, self.source.shown
        if status >= 500 or status in _BUSY:
            raise _Again(f"status {status}")
        if status == 416:
            if offset == 0:
                raise SvacError(f"{shown} is empty.", "Upload the file again.")
            self.stream.seek(0)
            self.stream.truncate()
            raise _Again("the file became shorter")
        if status in BARRED:
            raise SvacError(
                f"{shown} may not be read ({status}).",
                "Use the token of a member of the project; local files need a storage in the project"
                " and LOCAL_FILES_SERVING_ENABLED=true."
                if self.source.trusted
                else "Make the address public, or upload the file to Label Studio.",
                temporary=True,
            )
        if status in (404, 410):
            raise SvacError(f"{shown} does not exist ({status}).", "Correct the address in the task's data.")
        if not response.is_success:
            raise SvacError(f"{shown} was refused ({status}).", "Open it in a browser to see why.")
        if response.headers.get("content-type", "").startswith("text/html"):
            raise SvacError(f"{shown} is a web page, not a file.", "Give the address of the file itself.")

    def _copy(self, response: httpx.Response) -> None:
        # Without a chunk size: with one, httpx throws away what it had gathered when the transfer breaks off.
        for chunk in response.iter_raw():
            if self.stream.tell() + len(chunk) > self.how.max_bytes:
                raise self._too_large(self.stream.tell() + len(chunk))
            self.stream.write(chunk)
            self.pace.look(len(chunk))

    def _too_slow(self, error: TooSlow) -> SvacError:
        what, hint = error.args
        return SvacError(f"{self.source.shown} {what}.", f"Look at its server and the network. {hint}")

    def _broken(self, why: str) -> SvacError:
        return SvacError(
            f"{self.source.shown} could not be downloaded ({why}).",
            "Look whether its server is up and reachable from the backend, then try again.",
            temporary=True,
        )

    def _too_large(self, size: int) -> SvacError:
        return SvacError(
            f"{self.source.shown} has at least {size >> 20} MB, more than {self.how.max_bytes >> 20} MB.",
            "Raise SVAC_MAX_VIDEO_MB, or cut the video.",
        )


def _content_range(response: httpx.Response) -> tuple[int, int | None]:
    """Return where the body starts, and the whole file's size if it is told."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", "").strip())
        if match is None:
            raise _Again("the server sent a part without saying which")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("content-length", "")
    plain = response.headers.get("content-encoding", "identity") == "identity"
    return 0, int(length) if length.isdigit() and plain else None


def _state_file(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _known(path: Path) -> dict[str, Any]:
    """What is known of the copy at `path`; empty when there is none, or a damaged one."""
    try:
        state = json.loads(_state_file(path).read_text())
        return state if isinstance(state, dict) and path.stat().st_size == state.get("size") else {}
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


CLOUD_SCHEMES = ("s3", "s3s", "gs", "azure-blob", "azure_spi", "dbfs", "redis")
# Routes of Label Studio that a task's data may name without a host.
LABEL_STUDIO_ROUTES = ("/data/", "/tasks/", "/projects/", "/storage-data/")
_LONGEST_ADDRESS = 4096
# Control characters, line ends and halves of characters. Names of files may hold any kind of space and joiner.
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")


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
        places: where media may come from, besides `client`.
        deadline_s, least_bps: see `Download`.
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

    def __post_init__(self) -> None:
        if self.client is not None:  # what it has, media of its tasks above all, may be read
            self.places = replace(self.places, own=(*self.places.own, origin(self.client.url)))

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
            places=Places.of(settings.media_hosts, [settings.label_studio_url]),
            deadline_s=settings.media_deadline_s,
            least_bps=settings.media_least_kbs * 1000,
        )

    def fetch(self, value: Any, *, task: int | None = None, check: Callable[[], None] = lambda: None) -> Path:
        """Return a local file with the media of a task.

        Args:
            value: what the task's data holds: `/data/upload/...`, `/data/local-files/?d=...`, an http(s) address,
                a cloud address such as `s3://bucket/key`, or a path below `files_root`.
            task: the task's id; cloud addresses are resolved by Label Studio for a task.
            check: called several times a second; raises when the job is to end.

        Raises:
            SvacError: it cannot be read. Of media in Label Studio the message says why. Of others only the log does:
                else whoever may add tasks and read jobs could look around in the network.
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
                "The task's media address is no address.", "Put the video's address into the task's data."
            )
        local = self._on_disk(value)
        if local is not None:
            return local
        key, source = self._source(value, task)
        path = self.cache_dir / (hashlib.sha256(key.encode()).hexdigest()[:32] + _suffix(value))
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
                temporary=True,  # it may be away; what is refused waits as long, or one could tell what is there
            ) from None
        os.utime(path)  # what was used last is kept longest, see `jobs.retention`
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
            # The query of a local file is its path; of others it may be a secret.
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
            # A Label Studio below a path stores uploads with that path.
            below = re.sub(r"^[a-z]+://[^/]*", "", base, flags=re.IGNORECASE)
            if below and value.startswith(tuple(below + route for route in LABEL_STUDIO_ROUTES)):
                return value[len(below) :]
        return None


def _suffix(value: str) -> str:
    """The file's extension, when it is a harmless one."""
    relative = local_files_path(value)
    suffix = PurePosixPath(unquote(urlsplit(value).path) if relative is None else relative).suffix
    return suffix.lower() if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
