"""A download: resumed, checked against its announced size, limited, and whole or not there at all."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin

import httpx

from svac_backend.errors import JobCancelled, SvacError
from svac_backend.labelstudio.api.errors import BARRED
from svac_backend.labelstudio.api.places import (
    Pace,
    Places,
    TooSlow,
    check_by_name,
    has_proxy,
    media_client,
    origin,
)

_REDIRECTS, _SMALLEST_PART = 5, 64 << 10
# Most tries for one file, however much progress each of them makes before it breaks off.
_BROKEN = 100
_BUSY = (408, 425, 429)

log = logging.getLogger(__name__)


class Elsewhere(SvacError):
    """A server other than Label Studio does not hand out a file, for whatever reason."""


class _Again(Exception):
    """The transfer broke off or the server is busy: worth another try."""


@dataclass(frozen=True)
class Source:
    """What to download.

    Attributes:
        url: where to begin; redirects are followed.
        shown: its name in messages, without secrets.
        trusted: whether `url` belongs to Label Studio, so that `authorization` may be sent there.
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
        max_bytes: largest file accepted.
        timeout: seconds without an answer or a byte after which a try has failed.
        tries: how often in a row it may fail without progress.
        retry_delay: seconds before the second try; doubles each time.
        authorization: returns the header for trusted addresses.
        places: where files may come from; by default every public host.
        deadline_s: seconds for all tries together.
        least_bps: least average speed, in bytes per second.
        check: called several times a second; raises if the job should end.
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
        """Make `path` hold what `source` has; transfer nothing if it already does.

        Raises:
            SvacError: it is missing, not allowed, too large, empty, a web page, or not available now.
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
        """Transfer the file; return its size and validators, or None if the known copy is up to date."""
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
                    # Some servers answer any range in parts; Label Studio's storage proxy sends 7 MB at a time.
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
                    f"{self.source.shown} is not an address.", "Correct the address in the task's data."
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
        # A range, even from the start, makes Label Studio send the size, which its uploads otherwise lack.
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={offset}-"}
        url, trusted, home = self.source.url, self.source.trusted, origin(self.source.url)
        for _ in range(_REDIRECTS + 1):
            # Once a redirect has left Label Studio, the token is never sent again.
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
        """Check the answer and position the stream; return True if the known copy is up to date."""
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
        # No chunk size: with one, httpx throws away what it has gathered when the transfer breaks off.
        for chunk in response.iter_raw():
            if self.stream.tell() + len(chunk) > self.how.max_bytes:
                raise self._too_large(self.stream.tell() + len(chunk))
            self.stream.write(chunk)
            self.pace.look(len(chunk))

    def _too_slow(self, error: TooSlow) -> SvacError:
        what, hint, temporary = error.args
        hint = f"Check its server and the network. {hint}"
        return SvacError(f"{self.source.shown} {what}.", hint, temporary=temporary)

    def _broken(self, why: str) -> SvacError:
        return SvacError(
            f"{self.source.shown} could not be downloaded ({why}).",
            "Check that its server is up and reachable from the backend, then try again.",
            temporary=True,
        )

    def _too_large(self, size: int) -> SvacError:
        return SvacError(
            f"{self.source.shown} has at least {size >> 20} MB, more than {self.how.max_bytes >> 20} MB.",
            "Raise SVAC_MAX_VIDEO_MB, or cut the video.",
        )


def _content_range(response: httpx.Response) -> tuple[int, int | None]:
    """Return where the body starts, and the whole file's size if the server says it."""
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
    """Return what is known about the copy at `path`; empty if there is none or the record is damaged."""
    try:
        state = json.loads(_state_file(path).read_text())
        return state if isinstance(state, dict) and path.stat().st_size == state.get("size") else {}
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
