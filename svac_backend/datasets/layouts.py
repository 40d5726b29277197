"""A data set on disk in one of the field's layouts: written video by video, whole or not at all, and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from svac_backend.atomic import atomic_path
from svac_backend.datasets import coco, davis, mevis, mots, yolo, youtube_vis, youtube_vos
from svac_backend.datasets.video_tracks import VideoTracks, check_masks, same_name
from svac_backend.errors import SvacError
from svac_backend.video.frames import MANIFEST, write_frames
from svac_backend.video.source import VideoSource

_LAYOUTS: dict[str, ModuleType] = {
    "davis": davis,
    "youtube-vos": youtube_vos,
    "youtube-vis": youtube_vis,
    "mevis": mevis,
    "coco": coco,
    "yolo": yolo,
    "mots": mots,
}
FORMATS = tuple(_LAYOUTS)
# Folders of the layouts beside their splits.
_TAKEN = ("Annotations", "JPEGImages", "ImageSets", "meta_expressions", "instances", "seqmaps")

# Opens the source of a data set's video.
Opener = Callable[[VideoTracks], AbstractContextManager[VideoSource]]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class DataSet:
    """One split of a data set on disk.

    Attributes:
        folder: folder of the data set.
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
        if not named or self.split in _TAKEN:
            raise SvacError(
                f"'{self.split}' cannot name a split.", "Give letters, digits and _, for example train."
            )

    @property
    def _module(self) -> ModuleType:
        return _LAYOUTS[str(self.layout)]

    def check_new(self) -> None:
        """Check that the folder can take an export: it must be missing or empty. Raises `SvacError` if it is not."""
        out, hint = self.folder, "Give a new folder with --out."
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise SvacError(f"{out} exists and is not a folder.", hint)
        if out.is_dir() and any(out.iterdir()):
            raise SvacError(f"{out} is not empty; an export overwrites nothing.", hint)

    def read(self) -> Iterator[VideoTracks]:
        """Yield the videos of the split, in the data set's order; none is kept in memory.

        Raises:
            SvacError: there is no such folder, or something in it is missing or damaged.
        """
        if not self.folder.is_dir():
            raise SvacError(f"There is no folder {self.folder}.", "Give the folder of the data set.")
        names: set[str] = set()
        for video in self._module.read(self.folder, self.split):
            if video.name in names:
                raise same_name()
            names.add(video.name)
            check_masks(video)
            yield video
        if not names:
            raise SvacError(f"The split {self.split!r} of {self.folder} has no video.", "Name another split.")

    def write(
        self,
        videos: Iterable[VideoTracks],
        *,
        labels: Sequence[str] | None = None,
        opener: Opener | None = None,
        quality: int = 90,
        progress: Progress | None = None,
    ) -> list[str]:
        """Write the data set, one video after the other; the folder appears once it is complete.

        Args:
            videos: what to write; each is taken once the previous one is written, and none is kept.
            labels: the labels that get the first numbers, in this order, if the layout numbers them; None: those of
                `videos` by name if it is a list, or else as they come.
            opener: opens the videos to write their frames as JPEG; None writes no frames.
            quality: quality of the JPEGs, 1 to 100.
            progress: called with 0..1 if `videos` is a list.

        Returns:
            What the layout could not keep, in sentences.

        Raises:
            SvacError: the folder is not empty or can't be written, the videos don't fit the layout, or a video can't
                be read or has other frames than its annotations.
        """
        self.check_new()
        total = 0
        if isinstance(videos, Sequence):
            total = sum(len(video.frames) for video in videos)
            if labels is None:
                labels = sorted({track.label for video in videos for track in video.tracks})
        names: set[str] = set()
        done = 0
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder) as part:
                part.mkdir()
                writer = self._module.Writer(part, self.split, labels or ())
                for video in videos:
                    if video.name in names:
                        raise same_name()
                    names.add(video.name)
                    check_masks(video)
                    writer.add(video)
                    if opener is not None:
                        self._write_frames(part, video, opener, quality)
                    done += len(video.frames)
                    if progress and total:
                        progress(done / total)
                if not names:
                    raise SvacError(
                        "There is nothing to export.", "Annotate a task first, or take --source predictions."
                    )
                notes: list[str] = writer.close()
        except OSError as error:
            raise SvacError(
                f"The export cannot be written to {self.folder}: {error.strerror or error}.",
                "Give a folder that this user may write to, on a disk with space: --out DIR.",
            ) from error
        return notes

    def _write_frames(self, part: Path, video: VideoTracks, opener: Opener, quality: int) -> None:
        folder = self._module.pictures(part, self.split, video.name)
        with opener(video) as source:
            _check_source(source, video)
            files = write_frames(source, folder, quality=quality, indices=video.frames)
        (folder / MANIFEST).unlink()
        if self._module is mots:  # MOTS counts from 1, without gaps
            counted = folder.with_name("counted")
            counted.mkdir()
            for place, file in enumerate(files):
                file.rename(counted / f"{mots.picture_name(place)}{file.suffix}")
            folder.rmdir()
            counted.rename(folder)


def _check_source(source: VideoSource, video: VideoTracks) -> None:
    info = source.info
    if (info.width, info.height) != (video.width, video.height):
        raise SvacError(
            f"{video.name} has {info.width}x{info.height} pixels, but its annotations {video.width}x{video.height}.",
            "The annotations belong to another video; --no-frames exports them without its frames.",
        )
    if video.frames and video.frames[-1] >= len(source):
        raise SvacError(
            f"{video.name} has {len(source)} frames, but its annotations go up to frame {video.frames[-1]}.",
            "The annotations belong to another video; --no-frames exports them without its frames.",
        )
