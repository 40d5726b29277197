"""COCO instance segmentation of frames: `annotations/instances_<split>.json` and `images/<split>/<video>/<frame>.jpg`.

Source: COCO's format of object detection (cocodataset.org) and, for `videos`, `tracks` and `track_id`, TAO's extension
of it. An annotation is an object on one frame; `track_id` says which object. `object_id`, `expression` of a track and
`fps` of a video are ours; pycocotools ignores them.

YouTube-VIS has the same categories (labels, numbered) and masks (compressed or plain run lengths, or polygons).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco

from svac_backend.datasets.json_stream import Grouped, JsonStream, entries
from svac_backend.datasets.video_tracks import (
    VideoTracks,
    check_name,
    damaged,
    frames_of_names,
    new_track,
    rate,
)
from svac_backend.errors import SvacError
from svac_backend.masks.rle import area, from_coco, to_coco, union
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.video.images import frame_order


def pictures(root: Path, split: str, video: str) -> Path:
    """Return the folder of a video's frames."""
    return root / "images" / split / video


class Writer:
    """Writes a split; a label is a category. Frames without any object are images without annotations.

    Args:
        root: folder of the data set.
        split: its name.
        labels: the labels that get the first numbers, in this order.
    """

    def __init__(self, root: Path, split: str, labels: Sequence[str]) -> None:
        path = root / "annotations" / f"instances_{split}.json"
        self._file = JsonStream(path, lists=("videos", "images", "tracks", "annotations"))
        self._categories = Categories(labels)

    def add(self, video: VideoTracks) -> None:
        """Write a video. Raises OSError."""
        file = self._file
        number = file.count("videos") + 1
        about = {"id": number, "name": video.name, "fps": video.fps}
        file.append("videos", about | {"width": video.width, "height": video.height})
        first = file.count("images") + 1
        for index, (frame, name) in enumerate(zip(video.frames, video.picture_names, strict=True)):
            image = {
                "id": first + index,
                "width": video.width,
                "height": video.height,
                "file_name": f"{video.name}/{name}.jpg",
                "video_id": number,
                "frame_index": frame,
            }
            file.append("images", image)
        for track in video.tracks:
            self._add_track(video, track, number, first)

    def _add_track(self, video: VideoTracks, track: Track, number: int, first: int) -> None:
        file, category = self._file, self._categories.number(track.label)
        track_id = file.count("tracks") + 1
        about = {"object_id": track.object_id, "expression": track.expression}
        file.append("tracks", {"id": track_id, "video_id": number, "category_id": category, **about})
        for index, rle in enumerate(video.masks(track)):
            if rle is not None:
                annotation = {
                    "id": file.count("annotations") + 1,
                    "image_id": first + index,
                    "video_id": number,
                    "category_id": category,
                    "segmentation": rle,
                    "area": area(rle),
                    "bbox": box(rle),
                    "iscrowd": 0,
                    "track_id": track_id,
                }
                file.append("annotations", annotation)

    def close(self) -> list[str]:
        """Write the file; return [], since the layout keeps everything. Raises OSError."""
        info = {"description": "svac-backend export", "version": "1.0"}
        self._file.close({"info": info, "licenses": [], "categories": self._categories.listed()})
        return []


def read(root: Path, split: str) -> Iterator[VideoTracks]:
    """Yield a split's videos: images, and annotations with a `track_id`; those of one track on one image are united.

    Raises:
        SvacError: the split is missing or damaged, or its images belong to no video.
    """
    path = root / "annotations" / f"instances_{split}.json"
    with reading(path):
        labels = read_categories(path)
        try:
            videos = list(entries(path, "videos"))
        except KeyError:
            videos = []
        if not videos:
            raise damaged(path, "it has no videos; images without videos make no tracks")
        with (
            closing(Grouped(path, "images", "video_id")) as images,
            closing(Grouped(path, "annotations", "image_id")) as on_image,
            closing(Grouped(path, "tracks", "video_id", optional=True)) as tracks,
        ):
            for video in videos:
                number = video["id"]
                yield _read_video(
                    root, split, video, images.of(number), on_image, tracks.of(number), labels, path
                )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise `SvacError` if a file of annotations is missing or malformed."""
    try:
        yield
    except OSError as error:
        raise SvacError(
            f"{path} cannot be read: {error.strerror}.", "Give the folder of the data set, and its --split."
        ) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise damaged(path, f"a video, an image or an annotation is malformed ({error!r})") from error


def _read_video(
    root: Path,
    split: str,
    video: dict[str, Any],
    images: list[dict[str, Any]],
    on_image: Grouped,
    known: Sequence[dict[str, Any]],
    labels: dict[Any, str],
    path: Path,
) -> VideoTracks:
    if not images:
        raise damaged(path, f"the video {video['id']} has no images")
    images = sorted(images, key=lambda image: (image.get("frame_index", 0), frame_order(image["file_name"])))
    files = [PurePosixPath(image["file_name"]) for image in images]
    name = check_name(files[0].parent.name, path)
    names = tuple(check_name(file.stem, path) for file in files)
    frames = frames_of_names(names)
    width, height = int(images[0]["width"]), int(images[0]["height"])
    found: dict[Any, Track] = {}
    for entry in known:
        found[entry["id"]] = new_track(len(found) + 1, {**entry, "label": labels[entry["category_id"]]})
    for frame, image in zip(frames, images, strict=True):
        for annotation in on_image.of(image["id"]):
            number = annotation["track_id"]
            if number not in found:
                found[number] = new_track(len(found) + 1, {"label": labels[annotation["category_id"]]})
            rle = read_segmentation(annotation["segmentation"], height, width, path)
            if rle is not None:
                masks = found[number].masks
                masks[frame] = union([masks[frame], rle]) if frame in masks else rle
                found[number].scores[frame] = 1.0
    folder = pictures(root, split, name)
    return VideoTracks(name, width, height, frames, tuple(found.values()), names, rate(video), folder)


class Categories:
    """Numbers labels from 1 on: known ones in their order, then others as they come.

    Args:
        labels: the labels known beforehand.
    """

    def __init__(self, labels: Iterable[str] = ()) -> None:
        self._numbers = {label: number for number, label in enumerate(dict.fromkeys(labels), start=1)}

    def number(self, label: str) -> int:
        """Return the number of a label."""
        return self._numbers.setdefault(label, len(self._numbers) + 1)

    def listed(self) -> list[dict[str, Any]]:
        """Return the list for `categories`."""
        return [
            {"id": number, "name": label, "supercategory": "object"}
            for label, number in self._numbers.items()
        ]

    def names(self) -> list[str]:
        """Return the labels in the order of their numbers."""
        return list(self._numbers)


def read_categories(path: Path) -> dict[Any, str]:
    """Return category number -> label.

    Raises:
        SvacError: they are malformed.
        OSError, ValueError: as `entries`.
    """
    try:
        return {category["id"]: str(category["name"]) for category in entries(path, "categories")}
    except (KeyError, TypeError) as error:
        raise damaged(path, f"its categories are malformed ({error!r})") from error


def read_segmentation(value: Any, height: int, width: int, path: Path) -> CocoRle | None:
    """Return a mask as compressed RLE, as pycocotools writes it; None for null or an empty mask.

    Args:
        value: null, `{"size", "counts"}` with text or a list of run lengths, or a list of polygons [x, y, x, y, ...].
        height, width: size of the picture in pixels.
        path: the file that it stands in, for the message.

    Raises:
        SvacError: it is malformed, or of another size.
    """
    if value is None:
        return None
    try:
        rle = _compressed(value, height, width)
        if list(rle["size"]) != [height, width]:
            raise damaged(path, f"a mask has {rle['size']} rows and columns, its picture {[height, width]}")
        mask = from_coco(rle)
    except SvacError:
        raise
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise damaged(path, f"a segmentation is malformed ({error})") from error
    return to_coco(mask) if mask.any() else None


def _compressed(value: Any, height: int, width: int) -> CocoRle:
    if isinstance(value, list):
        merged = coco.merge(coco.frPyObjects(_polygons(value, height, width), height, width))
        return CocoRle(size=[int(side) for side in merged["size"]], counts=merged["counts"].decode("ascii"))
    counts = value["counts"]
    if not isinstance(counts, list):
        return CocoRle(size=value["size"], counts=counts)
    rows, columns = (int(side) for side in value["size"])
    runs = np.asarray(counts, dtype=np.int64)
    # pycocotools does not check its input.
    if (
        runs.ndim != 1
        or (rows, columns) != (height, width)
        or (runs < 0).any()
        or runs.sum() != rows * columns
    ):
        raise ValueError("its runs do not fill its size")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return to_coco(np.ascontiguousarray(flat.reshape(columns, rows).T))


def _polygons(value: Sequence[Any], height: int, width: int) -> list[list[float]]:
    """Return polygons that pycocotools' C code can take: finite points near the frame, at least three."""
    polygons = []
    for polygon in value:
        points = np.asarray(polygon, dtype=np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError("a polygon is not a list of x, y, x, y, ...")
        reach = np.tile([width, height], len(points) // 2)
        polygons.append(np.clip(points, 0, reach).tolist())
    if not polygons:
        raise ValueError("it has no polygon")
    return polygons


def box(rle: CocoRle) -> list[float]:
    """Return the box [x, y, width, height] of a mask in pixels."""
    return [float(side) for side in coco.toBbox(rle)]
