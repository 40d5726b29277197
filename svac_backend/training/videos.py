"""Where the frames of an example come from, and a part of a video as a video of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from svac_backend.video.array import ArrayVideo
from svac_backend.video.images import ImageFolderVideo
from svac_backend.video.index import FrameIndex
from svac_backend.video.reader import VideoReader
from svac_backend.video.source import VideoInfo, VideoSource, check_indices, check_windows


class VideoRef(Protocol):
    """A video that is opened when its frames are needed."""

    @property
    def key(self) -> str:
        """What tells it from other videos, in this run and in later ones."""

    def open(self) -> AbstractContextManager[VideoSource]:
        """Open it. Raises `SvacError` where it is missing or damaged."""


@dataclass(frozen=True)
class FileVideo:
    """A video file.

    Attributes:
        path: where it lies.
        key: default: the path as text; an address where the file is only a copy of it.
    """

    path: Path
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", str(self.path))

    @contextmanager
    def open(self) -> Iterator[VideoSource]:
        """See `VideoRef.open`."""
        with VideoReader(self.path) as video:
            yield video


@dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures, one per frame.

    Attributes:
        folder: where they lie.
        names: their names without suffix, in order.
    """

    folder: Path
    names: tuple[str, ...]

    @property
    def key(self) -> str:
        """The folder."""
        return str(self.folder)

    @contextmanager
    def open(self) -> Iterator[VideoSource]:
        """See `VideoRef.open`."""
        yield ImageFolderVideo(self.folder, self.names)


class MadeScene(Protocol):
    """What every generator makes.

    Attributes:
        frames: u8 [T, H, W, 3] RGB.
        masks: bool [N, T, H, W], the visible part of every object.
        fps: frames per second.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    fps: float


@dataclass(frozen=True)
class MadeVideo:
    """A generated scene, made again whenever it is opened.

    Attributes:
        key: names the generator's version and the seed.
        make: makes the scene.
    """

    key: str
    make: Callable[[], MadeScene] = field(compare=False, repr=False)

    @contextmanager
    def open(self) -> Iterator[VideoSource]:
        """See `VideoRef.open`."""
        scene = self.make()
        yield ArrayVideo(scene.frames, scene.fps)


class VideoPart:
    """Some frames of a video as a `VideoSource`.

    Args:
        video: the whole.
        chosen: 0-based frames of the whole, ascending.
    """

    def __init__(self, video: VideoSource, chosen: Sequence[int]) -> None:
        self._video = video
        self._chosen = check_indices(video.index, chosen)
        times = [video.index.pts[i] for i in self._chosen]
        self._index = FrameIndex(tuple(times), video.index.time_base)
        count = len(self._chosen)
        self._info = replace(video.info, frame_count=count, duration=count / video.info.fps)

    @property
    def info(self) -> VideoInfo:
        """Size, frame count, frame rate and so on."""
        return self._info

    @property
    def index(self) -> FrameIndex:
        """The timestamp of every frame."""
        return self._index

    @property
    def fingerprint(self) -> str:
        """A hash of the whole's and of the choice."""
        chosen = hashlib.blake2b(repr(self._chosen).encode(), digest_size=8).hexdigest()
        return f"{self._video.fingerprint}-{chosen}"

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._chosen)

    def frame(self, i: int) -> NDArray[np.uint8]:
        """Return frame `i`; see `VideoSource.frame`."""
        return self._video.frame(self._chosen[self._index.check(i)])

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index, frame); see `VideoSource.frames`."""
        chosen = check_indices(self._index, indices)
        found = self._video.frames([self._chosen[i] for i in chosen], size)
        return ((i, frame) for i, (_, frame) in zip(chosen, found, strict=True))

    def windows(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index of its first frame, frames); see `VideoSource.windows`."""
        windows = check_windows(len(self), size, start, stop)
        return ((w.start, np.stack([frame for _, frame in self.frames(list(w))])) for w in windows)
