"""DAVIS 2017: `JPEGImages/480p/<video>/<frame>.jpg`, `Annotations/480p/<video>/<frame>.png`, `ImageSets/2017`.

Source: the release of DAVIS 2017 (Pont-Tuset et al.) and davis2017-evaluation, its official code. A pixel of an
annotation holds the number of its object, 0 for none, and the palette gives it a colour. Readers look into the folder
`480p`, but frames and masks keep the video's size. `ImageSets/2017/<split>.txt` lists the split's videos.

With links beside it, the same folder is also Ref-DAVIS17 as `svac-backend evaluate --dataset ref-davis17` reads it:
`meta_expressions/<split>/meta_expressions.json`, `<split>/JPEGImages`, `<split>/Annotations`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svac_backend.datasets.json_stream import JsonStream
from svac_backend.datasets.video_tracks import (
    ObjectsFile,
    VideoTracks,
    check_name,
    damaged,
    frames_of_names,
    new_track,
    rate,
    read_objects,
    sentence,
)
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.truth import objects_shown, read_numbers
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.video.images import frame_order

RESOLUTION = "480p"
# 255 marks pixels that scores ignore.
MAX_OBJECTS = 254


def pictures(root: Path, split: str, video: str) -> Path:
    """Return the folder of a video's frames."""
    return root / "JPEGImages" / RESOLUTION / video


class Writer:
    """Writes the annotations, the list of videos, and the expressions.

    A pixel has one number: where objects overlap, the later one stays.

    Args:
        root: folder of the data set.
        split: its name.
        labels: not used; DAVIS has none.
    """

    def __init__(self, root: Path, split: str, labels: Sequence[str]) -> None:
        self._root, self._split = root, split
        self._names: list[str] = []
        self._notes: list[str] = []
        self._meta = ExpressionsFile(root / "meta_expressions" / split)
        self._objects = ObjectsFile(root)

    def add(self, video: VideoTracks) -> None:
        """Write a video.

        Raises:
            SvacError: it has more objects than a pixel can number.
            OSError: the folder can't be written.
        """
        folder = self._root / "Annotations" / RESOLUTION / video.name
        self._notes += write_numbers(folder, video, "DAVIS")
        self._names.append(video.name)
        self._meta.add(video)
        self._objects.add(video, numbers_of(video))

    def close(self) -> list[str]:
        """Write the lists; return what the layout could not keep, a sentence for each video. Raises OSError."""
        listed = self._root / "ImageSets" / "2017" / f"{self._split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{name}\n" for name in self._names), encoding="utf-8")
        self._meta.close()
        self._objects.close()
        (self._root / self._split).mkdir()
        for name in ("Annotations", "JPEGImages"):
            (self._root / self._split / name).symlink_to(Path("..") / name / RESOLUTION)
        return self._notes


class ExpressionsFile:
    """Writes `meta_expressions.json` of Ref-DAVIS17 and Ref-YouTube-VOS: one expression for each object.

    Args:
        folder: the split's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._stream = JsonStream(folder / "meta_expressions.json", mappings=["videos"])

    def add(self, video: VideoTracks) -> None:
        """Add a video. Raises OSError."""
        expressions = {
            str(n - 1): {"exp": sentence(track), "obj_id": str(n)}
            for n, track in enumerate(video.tracks, start=1)
        }
        self._stream.put(
            "videos", video.name, {"frames": list(video.picture_names), "expressions": expressions}
        )

    def close(self) -> None:
        """Write the file. Raises OSError."""
        self._stream.close()


def numbers_of(video: VideoTracks) -> dict[str, str]:
    """Return object id -> the number in its pixels, as text."""
    return {track.object_id: str(n) for n, track in enumerate(video.tracks, start=1)}


def write_numbers(folder: Path, video: VideoTracks, layout: str) -> list[str]:
    """Write a palette picture for each frame, `<frame>.png`; return notes if masks lie under others.

    Raises:
        SvacError: there are more objects than a pixel can number.
        OSError: the folder can't be written.
    """
    if len(video.tracks) > MAX_OBJECTS:
        raise SvacError(
            f"{video.name} has {len(video.tracks)} objects, but {layout} numbers only up to {MAX_OBJECTS}.",
            "Choose another --format.",
        )
    folder.mkdir(parents=True)
    hidden = drawn = 0
    for name, frame in zip(video.picture_names, video.frames, strict=True):
        picture, here = numbered_picture(video, frame, range(1, len(video.tracks) + 1), np.uint8)
        drawn += here
        hidden += here - int(np.count_nonzero(picture))
        shown = Image.fromarray(picture)
        shown.putpalette(_PALETTE)
        shown.save(folder / f"{name}.png")
    return [hidden_note(video.name, hidden, drawn, layout)] if hidden else []


def hidden_note(name: str, hidden: int, drawn: int, layout: str) -> str:
    """Return the sentence on what a layout of numbered pixels could not keep of a video."""
    return (
        f"{name}: {hidden} of {drawn} pixels lie under another object, which {layout} cannot keep "
        "(COCO, YouTube-VIS, MeViS and YOLO can)."
    )


def numbered_picture(
    video: VideoTracks, frame: int, numbers: Iterable[int], dtype: type[np.unsignedinteger[Any]]
) -> tuple[NDArray[Any], int]:
    """Return a frame's picture of object numbers [H, W], and the sum of all masks' areas in pixels.

    A pixel has one number: where objects overlap, the later one stays.

    Args:
        video: the video with its tracks.
        frame: a frame of the video.
        numbers: the tracks' numbers, in their order.
        dtype: dtype of the picture.
    """
    picture = np.zeros((video.height, video.width), dtype)
    drawn = 0
    for number, track in zip(numbers, video.tracks, strict=True):
        if frame in track.masks:
            mask = from_coco(track.masks[frame])
            picture[mask] = number
            drawn += int(mask.sum())
    return picture, drawn


def _palette() -> bytes:
    """Return the palette of DAVIS and PASCAL VOC: the bits of an object's number, spread over red, green and blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()


_PALETTE = _palette()


def read(root: Path, split: str) -> Iterator[VideoTracks]:
    """Yield a split's videos, ours or the release's (DAVIS 2016 and 2017); without `ImageSets`, all annotated ones.

    Raises:
        SvacError: something is missing or damaged.
    """
    annotations = root / "Annotations" / RESOLUTION
    if not annotations.is_dir():
        raise SvacError(
            f"There is no folder {annotations}.", "Give the folder of DAVIS or of such an export."
        )
    known = read_objects(root)
    expressions = _expressions(root, split)
    for name in _listed(root, split, annotations):
        about = known.get(name, {})
        texts = expressions.get(name, {})
        yield read_numbered(annotations / name, about, texts, pictures(root, split, name))


def read_numbered(
    folder: Path, about: Mapping[str, Any], texts: Mapping[int, str], pictures: Path
) -> VideoTracks:
    """Read a video's pictures of object numbers, `<frame>.png`; the folder's name is the video's.

    Args:
        folder: folder of the pictures.
        about: what `svac_objects.json`, or another file, says about the video.
        texts: sentences by object number.
        pictures: folder of the frames.

    Raises:
        SvacError: there are no pictures, they are damaged, or they mark only pixels that do not count.
    """
    files = sorted(folder.glob("*.png"), key=lambda file: frame_order(file.stem))
    if not files:
        raise SvacError(f"There is no annotation in {folder}.", "Unpack the data set again.")
    by_number = about.get("objects", {})
    names = tuple(file.stem for file in files)
    masks: dict[int, dict[int, CocoRle]] = {}
    shapes: set[tuple[int, ...]] = set()
    for frame, file in zip(frames_of_names(names), files, strict=True):
        picture = read_numbers(file)
        shapes.add(picture.shape)
        for number in set(map(int, np.unique(picture))) - {0}:
            masks.setdefault(number, {})[frame] = to_coco(picture == number)
    if len(shapes) > 1:
        raise damaged(folder, "its pictures have different sizes")
    shown = objects_shown(masks)
    if masks and not shown:
        raise damaged(folder, "it marks pixels that no score counts (255), and no object")
    named = {int(number) for number in by_number if str(number).isdigit()}
    tracks: dict[int, Track] = {}
    for number in sorted({*named, *shown.values()}):
        tracks[number] = new_track(number, by_number.get(str(number)), texts.get(number, ""))
    for in_pixels, number in shown.items():
        tracks[number].masks.update(masks[in_pixels])
        tracks[number].scores.update(dict.fromkeys(masks[in_pixels], 1.0))
    height, width = shapes.pop()
    ordered = tuple(tracks.values())
    return VideoTracks(
        folder.name, width, height, frames_of_names(names), ordered, names, rate(about), pictures
    )


def _listed(root: Path, split: str, annotations: Path) -> list[str]:
    listed = root / "ImageSets" / "2017" / f"{split}.txt"
    if listed.is_file():
        lines = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines()]
        names = [check_name(line, listed) for line in lines if line]
    elif (root / "ImageSets").is_dir():
        raise SvacError(
            f"There is no split {split!r}: {listed} is missing.", "Name another one with --split."
        )
    else:
        names = sorted(path.name for path in annotations.iterdir() if path.is_dir())
    if not names:
        raise SvacError(f"The split {split!r} of {root} has no video.", "Name another one with --split.")
    return names


def _expressions(root: Path, split: str) -> dict[str, dict[int, str]]:
    """Return video -> object number -> its first sentence, if the folder is Ref-DAVIS17, too."""
    if not (root / "meta_expressions" / split / "meta_expressions.json").is_file():
        return {}
    found: dict[str, dict[int, str]] = {}
    for video in open_benchmark("ref-davis17", root, split).videos:
        for expression in video.expressions:
            if len(expression.obj_ids) == 1:
                found.setdefault(video.name, {}).setdefault(expression.obj_ids[0], expression.text)
    return found
