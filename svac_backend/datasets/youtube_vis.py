"""YouTube-VIS 2021: `<split>/instances.json` and `<split>/JPEGImages/<video>/<frame>.jpg`.

Source: the release of YouTube-VIS (Yang et al., 2019; version of 2021) and its API, a fork of pycocotools: one
annotation is an object over a whole video, with a segmentation (RLE), a box [x, y, width, height] and an area for each
frame, null where the object is absent. Version 2019 has the same JSON. `object_id` and `expression` of an annotation
and `fps` of a video are ours; readers ignore them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from svac_backend.datasets.coco import Categories, box, read_categories, read_segmentation, reading
from svac_backend.datasets.json_stream import Grouped, JsonStream, entries
from svac_backend.datasets.video_tracks import (
    VideoTracks,
    check_name,
    damaged,
    frames_of_names,
    new_track,
    rate,
)
from svac_backend.masks.rle import area, union
from svac_backend.masks.tracks import Track
from svac_backend.video.images import frame_order


def pictures(root: Path, split: str, video: str) -> Path:
    """Return the folder of a video's frames."""
    return root / split / "JPEGImages" / video


class Writer:
    """Writes a split; a label is a category. See `coco.Writer`."""

    def __init__(self, root: Path, split: str, labels: Sequence[str]) -> None:
        self._file = JsonStream(root / split / "instances.json", lists=("videos", "annotations"))
        self._categories = Categories(labels)

    def add(self, video: VideoTracks) -> None:
        """Write a video. Raises OSError."""
        file, number = self._file, self._file.count("videos") + 1
        file.append(
            "videos",
            {
                "id": number,
                "width": video.width,
                "height": video.height,
                "length": len(video.frames),
                "file_names": [f"{video.name}/{name}.jpg" for name in video.picture_names],
                "date_captured": "",
                "license": 1,
                "flickr_url": "",
                "coco_url": "",
                "fps": video.fps,
            },
        )
        for track in video.tracks:
            masks = video.masks(track)
            annotation = {
                "id": file.count("annotations") + 1,
                "video_id": number,
                "category_id": self._categories.number(track.label),
                "segmentations": masks,
                "bboxes": [None if rle is None else box(rle) for rle in masks],
                "areas": [None if rle is None else area(rle) for rle in masks],
                "iscrowd": 0,
                "width": video.width,
                "height": video.height,
                "length": len(video.frames),
                "object_id": track.object_id,
                "expression": track.expression,
            }
            file.append("annotations", annotation)

    def close(self) -> list[str]:
        """Write the file; return [], since the layout keeps everything. Raises OSError."""
        head = {
            "info": {"description": "svac-backend export", "version": "2021"},
            "licenses": [{"id": 1, "name": "", "url": ""}],
            "categories": self._categories.listed(),
        }
        self._file.close(head)
        return []


def read(root: Path, split: str) -> Iterator[VideoTracks]:
    """Yield a split's videos, ours or the release's.

    Raises:
        SvacError: it is missing or damaged.
    """
    path = root / split / "instances.json"
    with reading(path):
        labels = read_categories(path)
        with closing(Grouped(path, "annotations", "video_id", optional=True)) as annotations:
            for video in entries(path, "videos"):
                yield _read_video(root, split, video, annotations.of(video["id"]), labels, path)


def _read_video(
    root: Path,
    split: str,
    video: dict[str, Any],
    annotations: Sequence[dict[str, Any]],
    labels: dict[Any, str],
    path: Path,
) -> VideoTracks:
    files = [PurePosixPath(file) for file in video["file_names"]]
    name = check_name(files[0].parent.name, path)
    names = tuple(check_name(file.stem, path) for file in files)
    width, height = int(video["width"]), int(video["height"])
    # The masks are in the order of the file names, which may differ from that of the frames.
    order = sorted(range(len(names)), key=lambda i: frame_order(names[i]))
    names = tuple(names[i] for i in order)
    frames = frames_of_names(names)
    tracks: dict[Any, Track] = {}
    for count, annotation in enumerate(annotations, start=1):
        known = {**annotation, "label": labels[annotation["category_id"]]}
        # Several annotations of one object are parts of it.
        track = tracks.setdefault(
            annotation.get("object_id") or ("", annotation["id"]), new_track(count, known)
        )
        values = annotation["segmentations"]
        if len(values) != len(names):
            raise damaged(path, f"{name} has {len(names)} frames, but an annotation of it has {len(values)}")
        for frame, place in zip(frames, order, strict=True):
            rle = read_segmentation(values[place], height, width, path)
            if rle is not None:
                track.masks[frame] = union([track.masks[frame], rle]) if frame in track.masks else rle
                track.scores[frame] = 1.0
    folder = pictures(root, split, name)
    return VideoTracks(name, width, height, frames, tuple(tracks.values()), names, rate(video), folder)
