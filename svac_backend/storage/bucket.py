"""A bucket in a cloud, through fsspec: bytes in and out, and every fault as a `SvacError` that says what to do.

The libraries find their credentials themselves, in AWS_ACCESS_KEY_ID and the like; we never see them. Their error
messages are not passed on, since they may name a key.
"""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec

from svac_backend.errors import SettingsError, SvacError, lacks_room, no_room

# Seconds to wait for a store that is away: for a connection, and for the next byte.
CONNECT_S, READ_S = 10, 60
# Seconds: the protocols allow no longer life for a signed link.
LONGEST_LINK_S = 7 * 86_400
LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or the machine's identity",
}
_REFUSALS = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "NoCredential")

log = logging.getLogger(__name__)


class NoObject(Exception):
    """There is no object with that key."""


@dataclass(frozen=True)
class About:
    """What a listing says about an object: its key below the bucket's prefix, bytes, and seconds since 1970."""

    key: str
    size: int
    changed: float


class Bucket:
    """The objects below a prefix of a bucket.

    An object is written whole or not at all, as the protocols promise. Calls may come from any thread.

    Args:
        url: `s3://bucket/prefix`, `gs://`, or `az://`.

    Raises:
        SettingsError: the library for its protocol is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.scheme, _, path = self.url.partition("://")
        self._base = path
        self._fs = _filesystem(self.scheme)

    def __str__(self) -> str:
        return self.url

    def read(self, key: str) -> bytes:
        """Return an object. Raises `NoObject`: there is none; `SvacError`: the store cannot be used."""
        with self._told(key):
            return bytes(self._fs.cat_file(self._path(key)))

    def write(self, key: str, content: bytes) -> None:
        """Write an object, replacing what was there. Raises `SvacError`: the store cannot be used."""
        with self._told(key):
            self._fs.pipe_file(self._path(key), content, **self._type(key))

    def create(self, key: str, content: bytes) -> bytes:
        """Write an object unless it is there; return what is there now. Raises `SvacError`: see `write`."""
        try:
            return self.read(key)
        except NoObject:
            pass
        try:
            with self._told(key):
                # If a store does not know the condition, the later of two simultaneous writers wins, for both.
                self._fs.pipe_file(self._path(key), content, mode="create")
        except _Exists:
            log.debug("another process has just made %s", key)
        return self.read(key)

    def put(self, path: Path, key: str) -> None:
        """Write a file as an object. Raises `SvacError`: the store cannot be used; `OSError`: the file cannot."""
        path.stat()  # a fault of the file is for the caller to handle
        with self._told(key):
            self._fs.put_file(str(path), self._path(key), **self._type(key))

    def get(self, key: str, path: Path) -> None:
        """Write an object into a file. Raises `NoObject`: there is none; `SvacError`: the store cannot be used."""
        with self._told(key):
            self._fs.get_file(self._path(key), str(path))

    def listing(self, prefix: str) -> list[About]:
        """Return all objects below a prefix, which must be a folder. Raises `SvacError`: the store cannot be used."""
        try:
            with self._told(prefix):
                found = self._fs.find(self._path(prefix), detail=True)
        except NoObject:
            return []
        start = len(self._base) + 1
        return [
            About(path[start:], int(about["size"] or 0), _time(about))
            for path, about in sorted(found.items())
            if about.get("type") == "file"
        ]

    def delete(self, keys: list[str]) -> None:
        """Delete objects; they need not be there. Raises `SvacError`: the store cannot be used."""
        try:
            with self._told(keys[0] if keys else ""):
                if keys:
                    self._fs.rm([self._path(key) for key in keys])
        except NoObject:  # another process was faster
            log.debug("some of %d objects were gone already", len(keys))

    def sign(self, key: str, seconds: float) -> str | None:
        """Return a link valid for `seconds`, `LONGEST_LINK_S` at most; None if these credentials cannot sign links."""
        try:
            with self._told(key):
                try:
                    return str(self._fs.sign(self._path(key), expiration=int(min(seconds, LONGEST_LINK_S))))
                except (NotImplementedError, AttributeError):
                    return None
        except SvacError:
            if self.scheme == "s3":
                raise
            return None  # gcsfs and adlfs have many ways to say that credentials cannot sign

    def _type(self, key: str) -> dict[str, str]:
        """Return the option that sets an object's content type; the library for Azure finds out by itself."""
        name = {"s3": "ContentType", "gs": "content_type"}.get(self.scheme)
        kind = mimetypes.guess_type(key)[0]
        return {name: kind} if name and kind else {}

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}" if key else self._base

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Turn a library's errors into our own. They are not chained: their texts hold what must not be shown."""
        try:
            yield
        except FileExistsError:
            raise _Exists from None
        except Exception as error:  # noqa: BLE001 (from three libraries and those below them)
            raise self._failure(key, error) from None

    def _failure(self, key: str, error: Exception) -> Exception:
        text = f"{error} {error.__cause__ or ''}"
        cause = error.__cause__ or error
        # Of a store's answer, only the code may be shown: 403, NoSuchBucket.
        answered = getattr(cause, "response", None)
        code = answered.get("Error", {}).get("Code") if isinstance(answered, dict) else None
        name = str(code or type(cause).__name__)
        if lacks_room(error):
            return no_room(error)
        if isinstance(error, FileNotFoundError) and "bucket" not in text and "container" not in text:
            return NoObject(key)
        if "PreconditionFailed" in text or "ConditionNotMet" in text or "pre-conditions" in text:
            return _Exists()
        hint = f"Check {CREDENTIALS[self.scheme]}."
        if isinstance(error, FileNotFoundError):
            what = f"There is no bucket for {self} ({name})."
            hint = f"Create the bucket, or correct SVAC_STORAGE_URL. {hint}"
        elif isinstance(error, PermissionError) or any(word in text + name for word in _REFUSALS):
            what = f"{self} may not be used with these credentials ({name})."
        else:
            what = f"{self} does not answer as it should ({name})."
            hint = f"Check that it is up and reachable from here. {hint}"
        # All of these may be fixed while a job waits: a store comes back, a bucket is created, a key is renewed.
        return SvacError(what, hint, temporary=True)


class _Exists(Exception):
    """An object that was to be made is there already."""


def _time(about: dict[str, Any]) -> float:
    for name in ("LastModified", "updated", "mtime", "last_modified"):
        found = about.get(name)
        if isinstance(found, datetime):
            return found.timestamp()
        if isinstance(found, str):
            return datetime.fromisoformat(found.replace("Z", "+00:00")).timestamp()
    return 0.0


@lru_cache(maxsize=4)
def _filesystem(scheme: str) -> Any:
    """Return the file system of a protocol, one per process: each has connections and an event loop of its own."""
    # No listings cache: what other machines publish must be seen at once.
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme == "s3":
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retries": {"max_attempts": 2},
            "signature_version": "s3v4",
        }
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        library = LIBRARIES[scheme]
        raise SettingsError(
            f"SVAC_STORAGE_URL begins with {scheme}://, but {library} is not installed.",
            f"pip install {library}, or svac-backend[{scheme}].",
        ) from error
    except Exception as error:  # noqa: BLE001 (some libraries look for credentials at once)
        raise SvacError(
            f"The storage {scheme}:// cannot be used ({type(error).__name__}).",
            f"Check {CREDENTIALS[scheme]}.",
            temporary=True,
        ) from None
