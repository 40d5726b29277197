"""A data set on disk in one of four layouts: written whole or not at all, and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from svac_backend.atomic import atomic_path
from svac_backend.datasets import coco, davis, mevis, youtube_vis
from svac_backend.datasets.video_tracks import VideoTracks, check_videos
from svac_backend.errors import SvacError
from svac_backend.video.frames import MANIFEST, write_frames
from svac_backend.video.source import VideoSource

_LAYOUTS: dict[str, ModuleType] = {"davis": davis, "youtube-vis": youtube_vis, "mevis": mevis, "coco": coco}
FORMATS = tuple(_LAYOUTS)

# Opens the video that a data set's video was made from.
Opener = Callable[[VideoTracks], AbstractContextManager[VideoSource]]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class DataSet:
    """One split of a data set on disk.

    Attributes:
        folder: of the data set.
        layout: one of `FORMATS`; None is refused.
        split: e.g. `train`.

    Raises:
        SvacError: there is no such layout, or the split cannot name a folder.
    """

    folder: Path
    layout: str | None
    split: str = "train"

    def __post_init__(self) -> None:
        if self.layout is None:
            raise SvacError(
                "The data set's format is not given.", f"Give --format {' | '.join(FORMATS)}, one of these."
            )
        if self.layout not in FORMATS:
            raise SvacError(f"There is no format '{self.layout}'.", f"Choose from {', '.join(FORMATS)}.")
        named = re.fullmatch(r"\w[\w.-]{0,60}", self.split)
        if not named or self.split in ("Annotations", "JPEGImages", "ImageSets"):
            raise SvacError(
                f"'{self.split}' cannot name a split.", "Give letters, digits and _, for example train."
            )

    @property
    def _module(self) -> ModuleType:
        return _LAYOUTS[str(self.layout)]

    def check_new(self) -> None:
        """Check that the folder can take an export: it is not there, or empty. Raises `SvacError` where it can't."""
        out, hint = self.folder, "Give a new folder with --out."
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise SvacError(f"{out} exists and is not a folder.", hint)
        if out.is_dir() and any(out.iterdir()):
            raise SvacError(f"{out} is not empty; an export overwrites nothing.", hint)

    def read(self) -> list[VideoTracks]:
        """Return the videos of the split, sorted as the data set has them.

        Raises:
            SvacError: there is no such folder, or something in it is missing or damaged.
        """
        if not self.folder.is_dir():
            raise SvacError(f"There is no folder {self.folder}.", "Give the folder of the data set.")
        videos: list[VideoTracks] = self._module.read(self.folder, self.split)
        check_videos(videos)
        return videos

    def write(
        self,
        videos: Sequence[VideoTracks],
        *,
        opener: Opener | None = None,
        quality: int = 90,
        progress: Progress | None = None,
    ) -> list[str]:
        """Write the data set; the folder appears when it is complete.

        Args:
            videos: what is written.
            opener: opens the videos to write their frames as JPEG; None writes no frames.
            quality: of the JPEGs, 1 to 100.
            progress: called with 0..1.

        Returns:
            What the layout could not keep, in sentences.

        Raises:
            SvacError: the folder is not empty or can't be written, the videos don't fit the layout, or a video can't
                be read or has other frames than its annotations.
        """
        self.check_new()
        check_videos(videos)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder) as part:
                part.mkdir()
                notes: list[str] = self._module.write(part, self.split, videos)
                if opener is not None:
                    self._write_frames(part, videos, opener, quality, progress)
        except OSError as error:
            raise SvacError(
                f"The export cannot be written to {self.folder}: {error.strerror or error}.",
                "Give a folder that this user may write to, on a disk with space: --out DIR.",
            ) from error
        return notes

    def _write_frames(
        self,
        part: Path,
        videos: Sequence[VideoTracks],
        opener: Opener,
        quality: int,
        progress: Progress | None,
    ) -> None:
        total, done = max(sum(len(video.frames) for video in videos), 1), 0
        for video in videos:
            folder = self._module.pictures(part, self.split, video.name)

            def tell(fraction: float, _: str, done: int = done, count: int = len(video.frames)) -> None:
                if progress:
                    progress((done + count * fraction) / total)

            with opener(video) as source:
                _check_source(source, video)
                write_frames(source, folder, quality=quality, indices=video.frames, progress=tell)
            (folder / MANIFEST).unlink()
            done += len(video.frames)


def _check_source(source: VideoSource, video: VideoTracks) -> None:
    info = source.info
    if (info.width, info.height) != (video.width, video.height):
        raise SvacError(
            f"{video.name} has {info.width}x{info.height} pixels, its annotations {video.width}x{video.height}.",
            "The annotations belong to another video; --no-frames exports them without its frames.",
        )
    if video.frames and video.frames[-1] >= len(source):
        raise SvacError(
            f"{video.name} has {len(source)} frames, its annotations go up to frame {video.frames[-1]}.",
            "The annotations belong to another video; --no-frames exports them without its frames.",
        )
