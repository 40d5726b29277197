"""YOLO segmentation: `images/<split>/<video>/<frame>.jpg`, `labels/<split>/<video>/<frame>.txt` and `data.yaml`.

Source: the format of Ultralytics. A line of a label file is an object on that frame: its class, from 0, and one
polygon, x and y as fractions of the picture's size. Even a mask in parts, or with holes, is one polygon: its rings are
joined by bridges of zero width, as in Ultralytics' own converter. The layout cannot say which line belongs to which
object of the video; `svac_objects.json` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from svac_backend.datasets.coco import Categories
from svac_backend.datasets.davis import numbers_of
from svac_backend.datasets.video_tracks import (
    OBJECTS_FILE,
    ObjectsFile,
    VideoTracks,
    check_name,
    damaged,
    frames_of_names,
    new_track,
    rate,
    read_objects,
)
from svac_backend.errors import SvacError
from svac_backend.masks.limits import check_size
from svac_backend.masks.polygons import mask_to_polygons, one_ring, polygons_to_mask
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track

# Digits of a fraction of the picture's side: a hundredth of a pixel at 10,000 pixels.
_DIGITS = 6
# As for the editor's polygons.
TOLERANCE_PX, IOU_FLOOR = 1.0, 0.98


def pictures(root: Path, split: str, video: str) -> Path:
    """Return the folder of a video's frames."""
    return root / "images" / split / video


class Writer:
    """Writes a split; a label is a class. Frames without any object have empty files.

    Args:
        root: folder of the data set.
        split: its name.
        labels: those that get the first numbers, in this order.
    """

    def __init__(self, root: Path, split: str, labels: Sequence[str]) -> None:
        self._root, self._split = root, split
        self._classes = Categories(labels)
        self._objects = ObjectsFile(root / "labels" / split)

    def add(self, video: VideoTracks) -> None:
        """Write a video. Raises OSError."""
        folder = self._root / "labels" / self._split / video.name
        folder.mkdir(parents=True)
        numbers = numbers_of(video)
        lines: dict[str, list[str]] = {}
        for name, frame in zip(video.picture_names, video.frames, strict=True):
            texts, here = [], []
            for track in video.tracks:
                rings = (
                    mask_to_polygons(
                        from_coco(track.masks[frame]), tolerance_px=TOLERANCE_PX, iou_floor=IOU_FLOOR
                    )
                    if frame in track.masks
                    else []
                )
                if rings:
                    points = one_ring(rings) / (video.width, video.height)
                    kind = self._classes.number(track.label) - 1
                    texts.append(" ".join([str(kind), *(f"{part:.{_DIGITS}g}" for part in points.ravel())]))
                    here.append(numbers[track.object_id])
            (folder / f"{name}.txt").write_text("".join(f"{text}\n" for text in texts), encoding="ascii")
            lines[name] = here
        self._objects.add(video, numbers, lines=lines)

    def close(self) -> list[str]:
        """Write `data.yaml`; return [], since the layout keeps everything. Raises OSError."""
        names = "".join(
            f"  {number}: {json.dumps(label, ensure_ascii=False)}\n"
            for number, label in enumerate(self._classes.names())
        )
        # Ultralytics requires both; users with another split change the line.
        text = f"train: images/{self._split}\nval: images/{self._split}\nnames:\n{names}"
        (self._root / "data.yaml").write_text(text, encoding="utf-8")
        self._objects.close()
        return []


def read(root: Path, split: str) -> Iterator[VideoTracks]:
    """Yield the videos of a split that we exported; other label files do not say which line belongs to which object.

    Raises:
        SvacError: the split is missing or damaged, or `svac-backend` did not export it.
    """
    folder = root / "labels" / split
    known = read_objects(folder)
    if not known:
        raise SvacError(
            f"There is no {folder / OBJECTS_FILE}, so nothing tells which lines of the labels belong to one object.",
            "Give the folder of an export of svac-backend, and its --split; YOLO itself has no tracks.",
        )
    for name, about in known.items():
        yield _read_video(folder / check_name(name, folder), root, split, about)


def _read_video(folder: Path, root: Path, split: str, about: Mapping[str, Any]) -> VideoTracks:
    lines, objects = about.get("lines") or {}, about["objects"]
    try:
        width, height = int(about["width"]), int(about["height"])
        names = tuple(check_name(name, folder) for name in lines)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder.parent / OBJECTS_FILE, f"{folder.name} is malformed ({error!r})") from error
    check_size(height, width)
    tracks: dict[str, Track] = {
        number: new_track(count, entry) for count, (number, entry) in enumerate(objects.items(), start=1)
    }
    for frame, name in zip(frames_of_names(names), names, strict=True):
        path = folder / f"{name}.txt"
        try:
            texts = path.read_text(encoding="ascii").splitlines()
            for number, text in zip(lines[name], texts, strict=True):
                points = np.array([float(part) for part in text.split()[1:]]).reshape(-1, 2)
                mask = polygons_to_mask([points * (width, height)], height, width)
                tracks[number].masks[frame] = to_coco(mask)
                tracks[number].scores[frame] = 1.0
        except OSError as error:
            raise SvacError(f"{path} cannot be read: {error.strerror}.", "Export it again.") from error
        except (ValueError, KeyError, TypeError, SvacError) as error:
            raise damaged(path, f"it does not fit {OBJECTS_FILE} ({error})") from error
    return VideoTracks(
        folder.name,
        width,
        height,
        frames_of_names(names),
        tuple(tracks.values()),
        names,
        rate(about),
        pictures(root, split, folder.name),
    )
