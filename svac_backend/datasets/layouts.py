"""Data sets on disk in one of the four layouts: written whole or not at all, and read."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

from svac_backend.datasets import coco, davis, mevis, youtube_vis
from svac_backend.datasets.dataset import FORMATS, VideoTracks, check_videos
from svac_backend.errors import SvacError
from svac_backend.video.frames import MANIFEST, write_frames
from svac_backend.video.source import VideoSource

_LAYOUTS: dict[str, ModuleType] = {"davis": davis, "youtube-vis": youtube_vis, "mevis": mevis, "coco": coco}

# Opens the video that a data set's video was made from.
Opener = Callable[[VideoTracks], AbstractContextManager[VideoSource]]
Progress = Callable[[float], None]


def check_layout(layout: str, split: str) -> None:
    """Check the name of a layout and of a split.

    Raises:
        SvacError: there is no such layout, or the split cannot name a folder.
    """
    if layout not in FORMATS:
        raise SvacError(f"There is no format '{layout}'.", f"Choose from {', '.join(FORMATS)}.")
    if not re.fullmatch(r"\w[\w.-]{0,60}", split) or split in ("Annotations", "JPEGImages", "ImageSets"):
        raise SvacError(f"'{split}' cannot name a split.", "Give letters, digits and _, for example train.")


def check_target(out: Path) -> None:
    """Check that a folder can take an export: it is not there, or empty.

    Raises:
        SvacError: something is in it, or it is a file.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise SvacError(f"{out} is there and no folder.", "Give a new folder with --out.")
    if out.is_dir() and any(out.iterdir()):
        raise SvacError(f"{out} is not empty; an export overwrites nothing.", "Give a new folder with --out.")


def write_dataset(
    out: Path,
    layout: str,
    split: str,
    videos: Sequence[VideoTracks],
    *,
    opener: Opener | None = None,
    quality: int = 90,
    progress: Progress | None = None,
) -> list[str]:
    """Write a data set; the folder appears when it is complete.

    Args:
        out: a folder that is not there, or empty.
        layout: one of `FORMATS`.
        split: e.g. `train`.
        videos: what is written.
        opener: opens the videos to write their frames as JPEG; None writes no frames.
        quality: of the JPEGs, 1 to 100.
        progress: called with 0..1.

    Returns:
        What the layout could not keep, in sentences.

    Raises:
        SvacError: the folder is not empty or can't be written, the videos don't fit the layout, or a video can't be
            read or has other frames than its annotations.
    """
    check_layout(layout, split)
    check_target(out)
    check_videos(videos)
    module = _LAYOUTS[layout]
    with _whole(out) as part:
        notes: list[str] = module.write(part, split, videos)
        total = sum(len(video.frames) for video in videos)
        done = 0
        for video in videos if opener else ():
            folder = module.pictures(part, split, video.name)
            share = len(video.frames) / max(total, 1)
            with opener(video) as source:  # type: ignore[misc]
                _check_source(source, video)

                def tell(
                    fraction: float, _: str, done: float = done / max(total, 1), share: float = share
                ) -> None:
                    if progress:
                        progress(done + share * fraction)

                write_frames(source, folder, quality=quality, indices=video.frames, progress=tell)
            (folder / MANIFEST).unlink()
            done += len(video.frames)
    return notes


def read_dataset(root: Path, layout: str, split: str) -> list[VideoTracks]:
    """Read the videos of a split, sorted as the data set has them.

    Raises:
        SvacError: there is no such folder or layout, or something in it is missing or damaged.
    """
    check_layout(layout, split)
    if not root.is_dir():
        raise SvacError(f"There is no folder {root}.", "Give the folder of the data set.")
    videos: list[VideoTracks] = _LAYOUTS[layout].read(root, split)
    check_videos(videos)
    return videos


def _check_source(source: VideoSource, video: VideoTracks) -> None:
    info = source.info
    if (info.width, info.height) != (video.width, video.height):
        raise SvacError(
            f"{video.name} has {info.width}x{info.height} pixels, its annotations {video.width}x{video.height}.",
            "The annotations belong to another video; --no-frames exports them without its frames.",
        )
    if video.frames and video.frames[-1] >= len(source):
        raise SvacError(
            f"{video.name} has {len(source)} frames, its annotations speak of frame {video.frames[-1]}.",
            "The annotations belong to another video; --no-frames exports them without its frames.",
        )


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` at the end, or goes when something fails."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        # Replaces an empty folder, and nothing else.
        part.rename(out)
    except OSError as error:
        raise SvacError(
            f"The export cannot be written to {out}: {error.strerror or error}.",
            "Give a folder that this user may write to, on a disk with space: --out DIR.",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
