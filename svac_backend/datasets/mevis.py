"""MeViS: `<split>/JPEGImages/<video>/<frame>.jpg`, `meta_expressions.json` and `mask_dict.json`.

Source: the release of MeViS (Ding et al., 2023). An annotation (`anno_id`) is an object's masks over the listed frames,
COCO RLE or null; an expression means the union of its annotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from svac_backend.datasets.json_stream import JsonStream
from svac_backend.datasets.video_tracks import (
    ObjectsFile,
    VideoTracks,
    frames_of_names,
    new_track,
    picture_size,
    rate,
    read_objects,
    sentence,
)
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import BenchmarkExpression, BenchmarkVideo, open_benchmark
from svac_backend.evaluation.truth import open_truth
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track


def pictures(root: Path, split: str, video: str) -> Path:
    """Return the folder of a video's frames."""
    return root / split / "JPEGImages" / video


class Writer:
    """Writes a split. An expression refers to all objects of its video that carry it.

    Args:
        root: folder of the data set.
        split: its name.
        labels: not used; MeViS has none.
    """

    def __init__(self, root: Path, split: str, labels: Sequence[str]) -> None:
        self._meta = JsonStream(root / split / "meta_expressions.json", mappings=["videos"])
        self._masks = JsonStream(root / split / "mask_dict.json", mappings=[""])
        self._objects = ObjectsFile(root / split)

    def add(self, video: VideoTracks) -> None:
        """Write a video. Raises OSError."""
        meant: dict[str, list[int]] = {}
        numbers: dict[str, str] = {}
        first = self._masks.count("")
        for track in video.tracks:
            number = self._masks.count("")
            meant.setdefault(sentence(track), []).append(number)
            numbers[track.object_id] = str(number)
            self._masks.put("", str(number), video.masks(track))
        about = {
            "vid_id": self._meta.count("videos"),
            "height": video.height,
            "width": video.width,
            "frames": list(video.picture_names),
            "expressions": {
                str(k): {"exp": text, "obj_id": [n - first for n in ids], "anno_id": ids}
                for k, (text, ids) in enumerate(meant.items())
            },
        }
        self._meta.put("videos", video.name, about)
        self._objects.add(video, numbers)

    def close(self) -> list[str]:
        """Write the files; return [], since the layout keeps everything. Raises OSError."""
        for file in (self._meta, self._masks, self._objects):
            file.close()
        return []


def read(root: Path, split: str) -> Iterator[VideoTracks]:
    """Yield a split's videos, ours or the release's.

    An object's expression is the first that refers to it alone, or else the first that refers to it and others.

    Raises:
        SvacError: something is missing or damaged.
    """
    benchmark = open_benchmark("mevis", root, split)
    truth = open_truth(benchmark)
    if truth is None:
        raise SvacError(
            f"The split {split!r} has no masks: there is no mask_dict.json in {benchmark.data}.",
            "Take a split with masks, e.g. --split train.",
        )
    known = read_objects(benchmark.data)
    for video in benchmark.videos:
        objects = known.get(video.name, {})
        by_number = objects.get("objects", {})
        frames = frames_of_names(video.frames)
        tracks: list[Track] = []
        shape: tuple[int, ...] | None = None
        for count, (anno_id, text) in enumerate(_texts(video).items(), start=1):
            target = truth.target(video, BenchmarkExpression("", text, (anno_id,)))
            track = new_track(count, by_number.get(anno_id), text)
            for i, frame in enumerate(frames):
                mask = target.mask(i)
                shape = shape if mask is None else mask.shape
                if mask is not None and mask.any():
                    track.masks[frame], track.scores[frame] = to_coco(mask), 1.0
            tracks.append(track)
        width, height = shape[::-1] if shape else picture_size(video.folder, video.frames, objects)
        yield VideoTracks(
            video.name, width, height, frames, tuple(tracks), video.frames, rate(objects), video.folder
        )


def _texts(video: BenchmarkVideo) -> dict[str, str]:
    """Return the annotations of a video, in the order of their numbers, each with its sentence."""
    alone: dict[str, str] = {}
    together: dict[str, str] = {}
    for expression in video.expressions:
        for anno_id in expression.anno_ids:
            (alone if len(expression.anno_ids) == 1 else together).setdefault(anno_id, expression.text)
    texts = {**together, **alone}
    return {key: texts[key] for key in sorted(texts, key=lambda key: (len(key), key))}
