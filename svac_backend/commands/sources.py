"""A user's video files: looked at before anything is changed, then copied to where Label Studio serves them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.video.reader import VideoInfo, VideoReader
from svac_backend.video.source import VideoSource

_CHUNK = 1 << 20
_HASH_DIGITS = 8
# A file name may have 255 bytes; a character can need four of them.
_LONGEST_STEM = 48


@dataclass(frozen=True)
class SourceVideo:
    """A video that can be read.

    Attributes:
        path: the file.
        digest: SHA-256 of its content, hexadecimal.
        info: its size, frames and frame rate.
        pictures: its frames, where it was made of pictures: they are better than what is left of them in the video.
    """

    path: Path
    digest: str
    info: VideoInfo
    pictures: VideoSource | None = None

    @property
    def folder_name(self) -> str:
        """Name of the folder of its frames: `<stem>-<hash>`, the same for the same content."""
        return f"{self.stem}-{self.digest[:_HASH_DIGITS]}"

    @property
    def file_name(self) -> str:
        """Name of its copy, harmless in addresses."""
        suffix = self.path.suffix.lower()
        return self.stem + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "")

    @property
    def stem(self) -> str:
        """The file's name without suffix, harmless in addresses."""
        return re.sub(r"[^\w.-]+", "_", self.path.stem).strip("._-")[:_LONGEST_STEM] or "video"


def open_video(path: Path, settings: Settings) -> VideoReader:
    """Open a video within the limits of the settings.

    Raises:
        SvacError: it cannot be read, or is too large.
    """
    return VideoReader(path, max_side=settings.max_video_side, max_frames=settings.max_frames)


def check_video(path: Path, settings: Settings) -> SourceVideo:
    """Look at a video: that it can be read, and what it is.

    Raises:
        SvacError: it cannot be read, or is too large.
    """
    with open_video(path, settings) as video:
        info = video.info
    return SourceVideo(path, _digest(path), info)


def copy_video(source: SourceVideo, folder: Path, progress: Callable[[float], None] | None = None) -> Path:
    """Have a copy of a video in a folder, whole or not at all; one that is there is kept.

    A hard link would save the space, but an original that is written over later would change under the
    annotations, and Label Studio's user might not be allowed to read it.

    Raises:
        SvacError: the original has changed, or the folder cannot be written.
    """
    target = folder / source.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _digest(target) == source.digest:
            return target
        part = folder / f".{source.file_name}.{os.getpid()}.part"
        try:
            _copy(source, part, progress)
            part.replace(target)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
    except OSError as error:
        raise SvacError(
            f"{source.path.name} cannot be copied to {folder}: {error.strerror or error}.",
            "Look whether this user may write there and the disk has space (SVAC_LABEL_STUDIO_FILES_ROOT).",
        ) from error
    return target


def _copy(source: SourceVideo, part: Path, progress: Callable[[float], None] | None) -> None:
    size, done, digest = source.path.stat().st_size, 0, hashlib.sha256()
    with part.open("wb") as target:
        for chunk in _chunks(source.path):
            digest.update(chunk)
            target.write(chunk)
            done += len(chunk)
            if progress:
                progress(done / max(size, 1))
    shutil.copystat(source.path, part)
    # Label Studio may run as another user.
    part.chmod(0o644)
    if digest.hexdigest() != source.digest:
        raise SvacError(
            f"{source.path.name} was changed while it was imported.", "Wait until it is whole, and try again."
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        for chunk in _chunks(path):
            digest.update(chunk)
    except OSError as error:
        raise SvacError(
            f"{path} cannot be read: {error.strerror}.", "Check the file and its permissions."
        ) from error
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
