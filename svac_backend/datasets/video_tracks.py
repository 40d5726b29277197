"""A video with its tracks, which every layout writes and reads, and what the layouts share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from svac_backend.datasets.json_stream import JsonStream
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import names_a_folder
from svac_backend.masks.rle import area
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.video.frames import frame_name
from svac_backend.video.images import ImageFolderVideo

# Lies beside the files of a layout that has no place for the objects' ids, labels and expressions.
OBJECTS_FILE = "svac_objects.json"


@dataclass(frozen=True)
class VideoTracks:
    """A video and the objects on it.

    Attributes:
        name: names its folder; unique within a data set.
        width, height: display size in pixels.
        frames: ascending 0-based frames of the video that the data set has; masks lie only on these.
        tracks: objects with unique ids. Data sets from elsewhere have no labels, so labels are empty there.
        names: names of the frames' pictures, without suffix, one for each of `frames`.
        fps: frames per second; None if the data set does not say.
        pictures: folder of the pictures of a data set that was read; they may be missing.
    """

    name: str
    width: int
    height: int
    frames: tuple[int, ...]
    tracks: tuple[Track, ...]
    names: tuple[str, ...] = ()
    fps: float | None = None
    pictures: Path | None = None

    @property
    def picture_names(self) -> tuple[str, ...]:
        """Names of the frames' pictures without suffix: `00012` for frame 12, unless the data set has other names."""
        return self.names or tuple(Path(frame_name(frame)).stem for frame in self.frames)

    def masks(self, track: Track) -> list[CocoRle | None]:
        """Return a track's mask for each of `frames`, None for an absent or empty one."""
        found = (track.masks.get(frame) for frame in self.frames)
        return [rle if rle is not None and area(rle) else None for rle in found]

    def moved_to(self, frames: tuple[int, ...]) -> VideoTracks:
        """Return the video with renumbered frames: masks on `self.frames[i]` move to `frames[i]`."""
        place = dict(zip(self.frames, frames, strict=True))
        tracks = tuple(
            replace(
                track,
                masks={place[frame]: rle for frame, rle in track.masks.items()},
                scores={place[frame]: score for frame, score in track.scores.items() if frame in place},
            )
            for track in self.tracks
        )
        return replace(self, frames=frames, tracks=tracks)


def frames_of_names(names: Sequence[str]) -> tuple[int, ...]:
    """Return the video's frames that pictures with some names show: their numbers, or else their places from 0 on."""
    if all(name.isascii() and name.isdigit() for name in names):
        numbers = [int(name) for name in names]
        if all(a < b for a, b in pairwise(numbers)):
            return tuple(numbers)
    return tuple(range(len(names)))


def picture_size(pictures: Path, names: Sequence[str], known: Mapping[str, Any]) -> tuple[int, int]:
    """Return (width, height) of a video without any mask, from `svac_objects.json` or its first picture.

    Raises:
        SvacError: neither exists.
    """
    width, height = known.get("width"), known.get("height")
    if isinstance(width, int) and isinstance(height, int):
        return width, height
    info = ImageFolderVideo(pictures, names[:1]).info
    return info.width, info.height


def rate(known: Mapping[str, Any]) -> float | None:
    """Return the frames per second that a data set states under `fps`, or None."""
    fps = known.get("fps")
    return (
        float(fps) if isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < 1e6 else None
    )


def same_name() -> SvacError:
    """Return the error for two videos with the same name."""
    return SvacError("Two videos have the same name.", "Give each its own.")


def check_masks(video: VideoTracks) -> None:
    """Raise `SvacError` if a mask has another size than its video."""
    for track in video.tracks:
        for frame, rle in track.masks.items():
            if list(rle["size"]) != [video.height, video.width]:
                raise SvacError(
                    f"The mask of {track.object_id} on frame {frame} of {video.name} is "
                    f"{rle['size'][1]}x{rle['size'][0]} pixels, but the video {video.width}x{video.height}.",
                    "The task's annotations belong to another video: remove them or import the video again.",
                )


def sentence(track: Track) -> str:
    """Return an object's sentence where a layout requires one: its expression, or else its label."""
    return track.expression or track.label or track.object_id


class ObjectsFile:
    """Writes `svac_objects.json`: each video's frame rate, size and objects by number.

    Args:
        folder: folder of the data set's split.
    """

    def __init__(self, folder: Path) -> None:
        self._stream = JsonStream(folder / OBJECTS_FILE, mappings=["videos"])

    def add(self, video: VideoTracks, numbers: Mapping[str, str], **more: Any) -> None:
        """Add a video; `numbers` maps object ids to their numbers as text, `more` holds further fields."""
        objects = {
            numbers[track.object_id]: {
                "object_id": track.object_id,
                "label": track.label,
                "expression": track.expression,
            }
            for track in video.tracks
        }
        about = {"fps": video.fps, "width": video.width, "height": video.height, "objects": objects}
        self._stream.put("videos", video.name, about | more)

    def close(self) -> None:
        """Write the file. Raises OSError."""
        self._stream.close()


def read_objects(folder: Path) -> dict[str, Any]:
    """Return what `ObjectsFile` wrote, by video; empty for a data set from elsewhere.

    Raises:
        SvacError: it is damaged.
    """
    path = folder / OBJECTS_FILE
    if not path.is_file():
        return {}
    content = read_mapping(path)
    videos = content.get("videos")
    if not isinstance(videos, dict) or not all(
        isinstance(video, dict) and isinstance(video.get("objects"), dict) for video in videos.values()
    ):
        raise damaged(path, "it has no videos with objects")
    return videos


def new_track(number: int, known: Any, expression: str = "") -> Track:
    """Return an empty track for object `number`, with its known id, label and expression."""
    known = known if isinstance(known, dict) else {}
    object_id = known.get("object_id")
    return Track(
        object_id if isinstance(object_id, str) and object_id else f"obj{number}",
        str(known.get("label") or ""),
        str(known.get("expression") if known.get("expression") is not None else expression),
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        SvacError: it is missing, damaged, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SvacError(
            f"{path} cannot be read: {error.strerror}.", "Give the folder of the data set, and its --split."
        ) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise damaged(path, "it is not a JSON object")
    return content


def check_name(value: Any, path: Path) -> str:
    """Return a name for a file or folder. Raises `SvacError` if it cannot be one."""
    if not names_a_folder(value):
        raise damaged(path, f"{value!r} cannot name a folder")
    return str(value)


def damaged(path: Path, what: str) -> SvacError:
    """Return the error for an unusable file of a data set."""
    return SvacError(f"{path} cannot be used: {what}.", "Take the file of the data set's release or export.")
