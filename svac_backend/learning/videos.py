"""The videos of examples: where their frames come from, and what the model sees of each.

What the model sees, the clips' images and some frames, is made once and kept at the model's size in the files of one
folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svac_backend.atomic import atomic_path
from svac_backend.errors import SvacError
from svac_backend.svac.astc import ClipPlan, plan
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.streaming import FrameFeed
from svac_backend.video.reader import VideoReader
from svac_backend.video.source import FrameIndex, VideoSource, check_indices


@dataclass(frozen=True)
class VideoRef:
    """A video that is opened when its frames are needed.

    Attributes:
        key: identifies it, in this run and in later ones.
        source: opens it; raises `SvacError` if it is missing or damaged.
    """

    key: str
    source: Callable[[], VideoSource] = field(compare=False, repr=False)

    @contextmanager
    def open(self) -> Iterator[VideoSource]:
        """Open the video, and close it again. Raises `SvacError` if it is missing or damaged."""
        source = self.source()
        with source if isinstance(source, VideoReader) else nullcontext():
            yield source


class VideoPart(VideoSource):
    """Some frames of a video, as a video.

    Args:
        video: the whole video.
        chosen: 0-based frames of the whole video, ascending.
    """

    def __init__(self, video: VideoSource, chosen: Sequence[int]) -> None:
        self._video = video
        self._chosen = check_indices(video.index, chosen)
        index = FrameIndex(tuple(video.index.pts[i] for i in self._chosen), video.index.time_base)
        count = len(index)
        super().__init__(replace(video.info, frame_count=count, duration=count / video.info.fps), index)

    @property
    def fingerprint(self) -> str:
        """A hash of the whole video's fingerprint and of the choice."""
        chosen = hashlib.blake2b(repr(self._chosen).encode(), digest_size=8).hexdigest()
        return f"{self._video.fingerprint}-{chosen}"

    def _read(self, i: int) -> NDArray[np.uint8]:
        return self._video.frame(self._chosen[i])

    def _decode(
        self, indices: Sequence[int], size: tuple[int, int] | None
    ) -> Generator[tuple[int, NDArray[np.uint8]]]:
        found = self._video.frames([self._chosen[i] for i in indices], size)
        return ((i, frame) for i, (_, frame) in zip(indices, found, strict=True))


# Pictures kept per video, divided among its clips: 90 MB at 1024 pixels.
FRAMES_PER_VIDEO = 32


@dataclass(frozen=True)
class SeenVideo:
    """A video, or a part of one, as the model sees it.

    Attributes:
        key: identifies it.
        images: what the MLLM sees: the clips' images, u8 [h, w, 3] each.
        frames: the F frames of the whole video whose pictures are kept, ascending.
        pixels: u8 [F, S', S', 3] at SAM-2's size.
        clip_of: the clip of each of the F frames.
        num_clips: N, the number of clips.
    """

    key: str
    images: Sequence[NDArray[np.uint8]]
    frames: tuple[int, ...]
    pixels: NDArray[np.uint8]
    clip_of: tuple[int, ...]
    num_clips: int


class ClipCache:
    """Makes and keeps what the model sees; each video is decoded once.

    Args:
        config: the model's configuration: clips, ASTC, sizes.
        folder: holds the files; those of an earlier run are used again.
    """

    def __init__(self, config: SvacConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, SeenVideo] = {}

    def get(
        self,
        video: VideoRef,
        drawn: Iterable[int],
        accepted: Iterable[int],
        part: Sequence[int] | None = None,
    ) -> SeenVideo:
        """Return a video as the model sees it.

        Args:
            video: the video.
            drawn, accepted: frames with known ground truth; pictures of some of them are kept.
            part: frames of the video that the model is shown, ascending; None: all.

        Raises:
            SvacError: the video can't be read, or lacks one of those frames.
        """
        wanted = (tuple(sorted(set(drawn))), tuple(sorted(set(accepted))))
        shown = None if part is None else tuple(part)
        sizes = (self.config.family, self.config.method, self.config.vision, self.config.sam.image_size)
        text = repr((video.key, wanted, shown, sizes))
        key = hashlib.sha256(text.encode()).hexdigest()[:20]
        if key not in self._known:
            if not (self.folder / key / "about.json").is_file():
                self._make(video, wanted, shown, self.folder / key)
            self._known[key] = _read(self.folder / key)
        return self._known[key]

    def _make(
        self,
        video: VideoRef,
        wanted: tuple[tuple[int, ...], tuple[int, ...]],
        part: tuple[int, ...] | None,
        folder: Path,
    ) -> None:
        with video.open() as whole:
            shown = part or tuple(range(len(whole)))
            beyond = [i for i in (*wanted[0], *wanted[1], *shown) if not 0 <= i < len(whole)]
            if beyond:
                raise SvacError(
                    f"A correction is for frame {beyond[0]}, but {video.key} has {len(whole)} frames.",
                    "Check whether the video was replaced after it was corrected; if so, delete the correction.",
                )
            source = whole if part is None else VideoPart(whole, shown)
            clips = plan(len(shown), self.config.method)
            clip_of = decoded_by(clips)
            place = {frame: p for p, frame in enumerate(shown) if p in clip_of}
            known = {place[i] for i in wanted[0] if i in place}, {place[i] for i in wanted[1] if i in place}
            places = choose_frames(clip_of, *known)
            feed = FrameFeed(source, clips, self.config, frozenset(places))
            images = feed.clip_pixels()
            size = self.config.sam.image_size
            pixels = feed.kept(places) if places else np.zeros((0, size, size, 3), np.uint8)
        about = {
            "frames": [shown[p] for p in places],
            "clip_of": [clip_of[p] for p in places],
            "num_clips": clips.num_clips,
            "sizes": [image.shape[:2] for image in images],
        }
        try:
            with atomic_path(folder) as made:
                made.mkdir()
                np.save(made / "images.npy", np.concatenate([image.reshape(-1) for image in images]))
                np.save(made / "pixels.npy", pixels)
                (made / "about.json").write_text(json.dumps(about))
        except OSError:
            if not (folder / "about.json").is_file():  # else another process of this run was faster
                raise


def decoded_by(clips: ClipPlan) -> dict[int, int]:
    """Return the clip of each frame that is decoded with a [SEG]; the first clip if the frame is in several."""
    owners: dict[int, int] = {}
    for frame, clip in clips.decode:
        owners.setdefault(frame, clip)
    return owners


def choose_frames(clip_of: dict[int, int], drawn: set[int], accepted: set[int]) -> list[int]:
    """Choose the frames whose pictures are kept: some of each clip, evenly spread, drawn ones first.

    Args:
        clip_of: clip of each frame.
        drawn, accepted: frames with known ground truth.
    """
    owners = sorted(set(clip_of.values()))
    limit = max(2, FRAMES_PER_VIDEO // max(len(owners), 1))
    chosen: list[int] = []
    for clip in owners:
        first = spread([i for i in sorted(drawn) if clip_of[i] == clip], limit)
        rest = [i for i in sorted(accepted - drawn) if clip_of[i] == clip]
        chosen += first + spread(rest, limit - len(first))
    return sorted(chosen)


def spread(frames: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the frames, evenly spread."""
    if len(frames) <= count:
        return list(frames)
    return [frames[(2 * k + 1) * len(frames) // (2 * count)] for k in range(count)]


def _read(folder: Path) -> SeenVideo:
    """Read what `_make` wrote; pictures stay in the file until they are used."""
    about = json.loads((folder / "about.json").read_text())
    values = np.load(folder / "images.npy", mmap_mode="r")
    ends = np.cumsum([height * width * 3 for height, width in about["sizes"]])
    images = [
        part.reshape(*size, 3) for part, size in zip(np.split(values, ends[:-1]), about["sizes"], strict=True)
    ]
    return SeenVideo(
        folder.name,
        images,
        tuple(about["frames"]),
        np.load(folder / "pixels.npy", mmap_mode="r"),
        tuple(about["clip_of"]),
        about["num_clips"],
    )
