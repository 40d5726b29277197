"""Signed links, which expire, to the files that the backend itself serves to browsers."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, quote, unquote

from itsdangerous import BadSignature, TimestampSigner

from svac_backend.errors import SvacError, split_address
from svac_backend.settings import Settings
from svac_backend.storage.bucket import LONGEST_LINK_S
from svac_backend.storage.folder import Kind, Storage
from svac_backend.storage.published import open_storage

# Folder below the data folder.
FOLDER, KEY_FILE = "served", "media.key"
ROUTE = "/media/"
# The query parameter that carries a link's signature; `predictions.video_identity` leaves it out of our own addresses.
PARAMETER = "signature"
DAY_S = 86_400.0


class LinkRefused(SvacError):
    """A link is not ours, was changed, or has expired."""


@dataclass(frozen=True)
class MediaLinks:
    """Makes and checks links to files below `root`.

    A link names the file and the time at which it was made, both under an HMAC-SHA256. Its lifetime is looked up when
    it is used, so that a new setting also holds for links that are already out. The key is made once and kept in the
    data folder: whoever has the folder can make links, and without the key file all links are dead.

    Attributes:
        root: folder of the files.
        base_url: address of the web process for browsers, without a slash at its end.
        lifetime_s: seconds for which a link is valid.
        key: signs the links, 64 hexadecimal digits.
        clock: returns seconds since 1970.
    """

    root: Path
    base_url: str
    lifetime_s: float
    key: bytes = field(repr=False)
    clock: Callable[[], float] = time.time

    @classmethod
    def from_settings(cls, settings: Settings) -> MediaLinks:
        """Return the links of a data folder; make its key if it has none yet.

        Raises:
            SvacError: the folder cannot be written, or its key is damaged.
        """
        storage = open_storage(settings)
        key = storage.shared(KEY_FILE, _key(storage.root / KEY_FILE))
        if not re.fullmatch(_KEY, key):
            raise SvacError(f"{KEY_FILE} in {storage} is not a key of media links.", "Delete it there.")
        lifetime_s = settings.media_link_days * DAY_S
        # Absolute: Flask resolves a relative folder against the package.
        return cls(storage.root.absolute() / FOLDER, settings.media_url or "", lifetime_s, key)

    @classmethod
    def of_frames(cls, settings: Settings) -> MediaLinks:
        """Return the links to tasks' frames: signed by the bucket if they lie in one, else as `from_settings`."""
        links, storage = cls.from_settings(settings), open_storage(settings)
        if not links_from_store(settings):
            return links
        return StoreLinks(
            links.root, links.base_url, min(links.lifetime_s, LONGEST_LINK_S), links.key, storage=storage
        )

    @property
    def ready(self) -> bool:
        """Whether there is an address for links to begin with."""
        return bool(self.base_url)

    @property
    def identity(self) -> str:
        """What a link depends on besides its file and time; once it changes, old links are dead or lead elsewhere."""
        return f"{self.base_url} {hashlib.sha256(self.key).hexdigest()[:8]}"

    def url(self, path: Path) -> str:
        """Return a link to a file.

        Raises:
            SvacError: the file is not below `root`.
        """
        try:
            name = path.relative_to(self.root).as_posix()
        except ValueError as error:
            raise SvacError(
                f"{path} is not below {self.root}.", "Serve files of that folder only."
            ) from error
        token = self._signer.sign(name).decode()[len(name) + 1 :]
        return f"{self.base_url}{ROUTE}{quote(name)}?{PARAMETER}={token}"

    def check(self, name: str, token: str) -> float:
        """Return for how many seconds a link is still valid.

        Args:
            name: the file's path below `root`, as the link has it.
            token: its signature.

        Raises:
            LinkRefused: the link is not valid, or has expired.
        """
        age = self.clock() - self._made(name, token)
        if age > self.lifetime_s:
            raise LinkRefused(
                "This link has expired.",
                "Load the task again; if that does not help, run `svac-backend media renew`.",
            )
        return min(self.lifetime_s, self.lifetime_s - age)

    def path_of(self, url: str) -> Path | None:
        """Return the file that one of our links names, even if it has expired; None for any other address."""
        start = f"{self.base_url}{ROUTE}"
        if not self.base_url or not url.startswith(start):
            return None
        parts = split_address(url[len(start) :])
        if parts is None:
            return None
        name = unquote(parts.path)
        try:
            self._made(name, parse_qs(parts.query).get(PARAMETER, [""])[0])
        except LinkRefused:
            return None
        return self.root / PurePosixPath(name)

    def _made(self, name: str, token: str) -> float:
        """Return when a link was made, in seconds since 1970."""
        try:
            # Compared in constant time. The signer's own age limit would refuse links of a clock a second ahead.
            signed = self._signer.unsign(f"{name}.{token}", return_timestamp=True)
        except (BadSignature, UnicodeEncodeError) as error:
            raise LinkRefused(
                "This link is not valid.", "Open the frame from its task in Label Studio."
            ) from error
        return signed[1].timestamp()

    @property
    def _signer(self) -> TimestampSigner:
        return _Signer(self.key, self.clock)


@dataclass(frozen=True)
class StoreLinks(MediaLinks):
    """Links that lead browsers straight to a bucket; if it cannot sign links, to /media like all others.

    Attributes:
        storage: the bucket.
    """

    storage: Storage = field(kw_only=True)

    @property
    def identity(self) -> str:
        """See `MediaLinks.identity`."""
        return f"{self.storage} {self.base_url}"

    @property
    def ready(self) -> bool:
        """See `MediaLinks.ready`."""
        return True

    def url(self, path: Path) -> str:
        """See `MediaLinks.url`; the file must have been published."""
        project, task, *file = path.relative_to(self.root).parts
        link = self.storage.link(Kind.FRAMES, f"{project}/{task}", "/".join(file), self.lifetime_s)
        if link is None and not self.base_url:
            raise SvacError(
                f"{self.storage} signs no links with these credentials.",
                "Give it a key that can, or set SVAC_MEDIA_URL: the web process then serves the frames.",
            )
        return link or super().url(path)


def links_from_store(settings: Settings) -> bool:
    """Whether browsers fetch frames straight from a bucket."""
    by_itself = settings.frames_via == "auto" and settings.label_studio_files_root is None
    return (by_itself or settings.frames_via == "store") and open_storage(settings).remote


class _Signer(TimestampSigner):
    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        # The default of itsdangerous is still SHA-1.
        super().__init__(key, b"svac-backend media", key_derivation="hmac", digest_method=hashlib.sha256)
        self._clock = clock

    def get_timestamp(self) -> int:
        return int(self._clock())


_KEY = rb"[0-9a-f]{64}"


def _key(path: Path) -> bytes:
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes().strip()
    except OSError as error:
        raise SvacError(
            f"The key of media links, {path}, cannot be used ({error.strerror}).",
            "Let this user read and write SVAC_DATA_DIR, on a local disk.",
        ) from error
    if not re.fullmatch(_KEY, key):
        raise SvacError(
            f"{path} is not a key of media links.",
            "Delete it, and restart the web process and the worker: they make a new one and renew all links.",
        )
    return key


def _make_key(path: Path) -> None:
    """Make the key, whole or not at all: the worker and the web process may both try at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".media-key-")  # readable by its owner only
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32))
        try:
            os.link(part, path)
        except FileExistsError:
            return  # the other process was faster; its key counts
    finally:
        Path(part).unlink()
