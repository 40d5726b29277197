"""A folder of pictures, one per frame, as a video: the layout of the referring-video benchmarks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svac_backend.errors import SvacError
from svac_backend.video.source import VideoSource, evenly_spaced

SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageFolderVideo(VideoSource):
    """The pictures of a folder as a video; it decodes what is asked for and keeps none.

    The pictures are decoded by Pillow without turning them by their EXIF orientation, as the benchmarks' own code does.

    Args:
        folder: where the pictures lie.
        names: names of the frames without suffix, in order; None takes every picture, in the order of the numbers in
            their names.
        fps: frames per second; a folder does not say.
        max_side: largest width or height in pixels.

    Raises:
        SvacError: no such folder, no picture, a missing frame, a first frame that can't be read or is too large, or a
            frame rate that is not positive.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str] | None = None,
        *,
        fps: float = 24.0,
        max_side: int = 8192,
    ) -> None:
        self.folder = Path(folder)
        self._files = find_frames(self.folder, names)
        with _opened(self._files[0]) as first:
            width, height = first.size
        if max(width, height) > max_side:
            raise SvacError(
                f"{self._files[0]} has {width}x{height} pixels; {max_side} a side is the most.",
                "Scale the pictures down, or raise SVAC_MAX_VIDEO_SIDE.",
            )
        super().__init__(*evenly_spaced(width, height, len(self._files), fps, "images"))

    @property
    def fingerprint(self) -> str:
        """A hash of the names, sizes and modification times of the files."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self._files:
            found = file.stat()
            digest.update(f"{file.name}:{found.st_size}:{found.st_mtime_ns};".encode())
        return f"images-{len(self)}-{digest.hexdigest()}"

    def _read(self, i: int) -> NDArray[np.uint8]:
        file = self._files[i]
        wanted = (self.info.width, self.info.height)
        with _opened(file) as picture:
            # Before decoding: a damaged header must not fill the memory.
            if picture.size != wanted:
                raise SvacError(
                    f"{file} has {picture.size[0]}x{picture.size[1]} pixels, the frames before it "
                    f"{wanted[0]}x{wanted[1]}.",
                    "Give every frame of a video the same size; download the data set again if it is not yours.",
                )
            try:
                return np.array(picture.convert("RGB"))
            except (OSError, SyntaxError, ValueError) as error:
                raise _damaged(file) from error


def frame_order(name: str) -> tuple[list[tuple[str, int]], str]:
    """Return what sorts names of frames as people count: `2` before `10`, and `a9` before `a10`."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", name)
    return [(text, int(number or -1)) for text, number in parts], name


def find_frames(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Return the files of a video's frames, in order.

    Args:
        folder: where the pictures lie.
        names: names without suffix; None takes every picture, in the order of the numbers in their names.

    Raises:
        SvacError: no such folder, no picture, or a frame that is missing.
    """
    try:
        found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        entries = sorted(found, key=lambda path: frame_order(path.name))
    except OSError as error:
        raise SvacError(
            f"The folder of frames {folder} cannot be read: {error.strerror}.",
            "Check the path; the data set may not be unpacked wholly.",
        ) from error
    if names is None:
        files = entries
    else:
        by_name = {path.stem: path for path in reversed(entries)}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise SvacError(
                f"{len(missing)} of {len(names)} frames are missing in {folder}, the first is {missing[0]}.jpg.",
                "Unpack the data set again.",
            )
        files = [by_name[name] for name in names]
    if not files:
        raise SvacError(f"There is no picture in {folder}.", f"Give a folder of {', '.join(SUFFIXES)} files.")
    return files


def _opened(file: Path) -> Image.Image:
    """Open a picture and read its header."""
    try:
        return Image.open(file)
    except FileNotFoundError as error:
        raise SvacError(f"The frame {file} is missing.", "Unpack the data set again.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(file) from error


def _damaged(file: Path) -> SvacError:
    return SvacError(f"{file} is damaged or no picture.", "Unpack the data set again.")
