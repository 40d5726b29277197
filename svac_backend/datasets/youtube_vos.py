"""YouTube-VOS: `JPEGImages/<video>/<frame>.jpg`, `Annotations/<video>/<frame>.png` and `meta.json` in `<split>`.

Source: the release of YouTube-VOS (Xu et al., 2018). The pictures are those of DAVIS; `meta.json` has each object's
category, and the frames that it is on. With `meta_expressions/<split>/meta_expressions.json` beside it, the folder is
also Ref-YouTube-VOS as `svac-backend evaluate --dataset ref-youtube-vos` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from svac_backend.datasets.davis import ExpressionsFile, numbers_of, read_numbered, write_numbers
from svac_backend.datasets.json_stream import JsonStream
from svac_backend.datasets.video_tracks import (
    ObjectsFile,
    VideoTracks,
    check_name,
    damaged,
    read_mapping,
    read_objects,
)
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark


def pictures(root: Path, split: str, video: str) -> Path:
    """Return the folder of a video's frames."""
    return root / split / "JPEGImages" / video


class Writer:
    """Writes a split; a pixel has one number: where objects overlap, the later one stays.

    Args:
        root: folder of the data set.
        split: its name.
        labels: not used; a label is an object's category.
    """

    def __init__(self, root: Path, split: str, labels: Sequence[str]) -> None:
        self._folder = root / split
        self._notes: list[str] = []
        self._meta = JsonStream(self._folder / "meta.json", mappings=["videos"])
        self._expressions = ExpressionsFile(root / "meta_expressions" / split)
        self._objects = ObjectsFile(self._folder)

    def add(self, video: VideoTracks) -> None:
        """Write a video.

        Raises:
            SvacError: it has more objects than a pixel can number.
            OSError: the folder can't be written.
        """
        self._notes += write_numbers(self._folder / "Annotations" / video.name, video, "YouTube-VOS")
        objects = {
            str(n): {
                "category": track.label,
                "frames": [
                    name
                    for name, rle in zip(video.picture_names, video.masks(track), strict=True)
                    if rle is not None
                ],
            }
            for n, track in enumerate(video.tracks, start=1)
        }
        self._meta.put("videos", video.name, {"objects": objects})
        self._expressions.add(video)
        self._objects.add(video, numbers_of(video))

    def close(self) -> list[str]:
        """Write the lists; return what the layout could not keep, a sentence for each video. Raises OSError."""
        for file in (self._meta, self._expressions, self._objects):
            file.close()
        return self._notes


def read(root: Path, split: str) -> Iterator[VideoTracks]:
    """Yield a split's videos, ours or the release's: those in `meta.json`, or without it all annotated ones.

    Raises:
        SvacError: something is missing or damaged.
    """
    folder = root / split
    annotations = folder / "Annotations"
    if not annotations.is_dir():
        raise SvacError(
            f"There is no folder {annotations}.", "Give the folder of YouTube-VOS, and its --split."
        )
    known, categories, texts = read_objects(folder), _categories(folder), _texts(root, split)
    names = list(categories) or sorted(path.name for path in annotations.iterdir() if path.is_dir())
    if not names:
        raise SvacError(f"The split {split!r} of {root} has no video.", "Name another one with --split.")
    for name in names:
        about = known.get(name) or {"objects": categories.get(name, {})}
        yield read_numbered(annotations / name, about, texts.get(name, {}), pictures(root, split, name))


def _categories(folder: Path) -> dict[str, dict[str, Any]]:
    """Return video -> object number -> what is known about it."""
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    videos = read_mapping(path).get("videos")
    if not isinstance(videos, Mapping):
        raise damaged(path, "it has no videos")
    found: dict[str, dict[str, Any]] = {}
    for name, video in videos.items():
        objects = video.get("objects") if isinstance(video, Mapping) else None
        if not isinstance(objects, Mapping) or not all(isinstance(one, Mapping) for one in objects.values()):
            raise damaged(path, f"the objects of {name} are malformed")
        found[check_name(name, path)] = {
            str(number): {"label": one.get("category")} for number, one in objects.items()
        }
    return found


def _texts(root: Path, split: str) -> dict[str, dict[int, str]]:
    """Return video -> object number -> its first sentence, if the folder is Ref-YouTube-VOS, too."""
    if not (root / "meta_expressions" / split / "meta_expressions.json").is_file():
        return {}
    found: dict[str, dict[int, str]] = {}
    for video in open_benchmark("ref-youtube-vos", root, split).videos:
        for expression in video.expressions:
            if len(expression.obj_ids) == 1:
                found.setdefault(video.name, {}).setdefault(expression.obj_ids[0], expression.text)
    return found
