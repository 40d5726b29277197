"""MOTS: `<split>/<video>/gt/gt.txt`, `seqinfo.ini` and `img1/000001.jpg`, and `instances/<video>/000001.png`.

Source: MOTSChallenge (Voigtlaender et al., 2019) and TrackEval, its scoring code. A line of `gt.txt` is a mask: frame
(from 1), object, class, height, width and COCO's compressed run lengths; an object is `1000 * class + number`. The
pictures of 16 bits have the same objects in their pixels. Class 1 is `car`, 2 `pedestrian`, 10 marks what does not
count; other labels get the numbers from 3 on. KITTI MOTS has the same lines in `instances_txt/<video>.txt`, with frames
from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from svac_backend.datasets.coco import read_segmentation
from svac_backend.datasets.davis import hidden_note, numbered_picture
from svac_backend.datasets.video_tracks import (
    ObjectsFile,
    VideoTracks,
    check_name,
    damaged,
    new_track,
    rate,
    read_objects,
)
from svac_backend.errors import SvacError
from svac_backend.masks.limits import MAX_FRAMES, check_size
from svac_backend.masks.rle import to_coco, union
from svac_backend.masks.tracks import Track

CLASSES = {"car": 1, "pedestrian": 2}
_KITTI = {number: label for label, number in CLASSES.items()}
IGNORED, PER_CLASS = 10, 1000
# The frame rate of a sequence that does not say its own.
_FPS = 24.0


def pictures(root: Path, split: str, video: str) -> Path:
    """Return the folder of a video's frames."""
    return root / split / video / "img1"


def picture_name(place: int) -> str:
    """Return the name of a frame's picture without suffix, by its 0-based place in the data set."""
    return f"{place + 1:06d}"


class Writer:
    """Writes a split; where objects overlap, the later one stays, since MOTS allows no overlaps.

    Args:
        root: folder of the data set.
        split: its name.
        labels: the labels that get the first free class numbers, in this order.
    """

    def __init__(self, root: Path, split: str, labels: Sequence[str]) -> None:
        self._root, self._split = root, split
        self._classes = dict(CLASSES)
        self._names: list[str] = []
        self._notes: list[str] = []
        self._objects = ObjectsFile(root / split)
        for label in labels:
            self._class(label)

    def add(self, video: VideoTracks) -> None:
        """Write a video.

        Raises:
            SvacError: it has more objects of one label than MOTS can number.
            OSError: the folder can't be written.
        """
        numbers = self._numbers(video)
        folder, shown = self._root / self._split / video.name, self._root / "instances" / video.name
        (folder / "gt").mkdir(parents=True)
        shown.mkdir(parents=True)
        hidden = drawn = 0
        with (folder / "gt" / "gt.txt").open("w", encoding="ascii") as file:
            for place, frame in enumerate(video.frames):
                picture, here = numbered_picture(video, frame, numbers, np.uint16)
                drawn += here
                hidden += here - int(np.count_nonzero(picture))
                Image.fromarray(picture).save(shown / f"{picture_name(place)}.png")
                for number in map(int, np.unique(picture)):
                    if number:
                        counts = to_coco(picture == number)["counts"]
                        size = f"{video.height} {video.width}"
                        file.write(f"{place + 1} {number} {number // PER_CLASS} {size} {counts}\n")
        if hidden:
            self._notes.append(hidden_note(video.name, hidden, drawn, "MOTS"))
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={video.name}\nimDir=img1\nframeRate={video.fps or _FPS:g}\n"
            f"seqLength={len(video.frames)}\nimWidth={video.width}\nimHeight={video.height}\nimExt=.jpg\n",
            encoding="utf-8",
        )
        self._names.append(video.name)
        ids = {track.object_id: str(n) for track, n in zip(video.tracks, numbers, strict=True)}
        self._objects.add(video, ids, frames=list(video.frames))

    def close(self) -> list[str]:
        """Write the lists; return what the layout could not keep, a sentence for each video. Raises OSError."""
        listed = self._root / "seqmaps" / f"{self._split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(["name", *self._names, ""]), encoding="utf-8")
        classes = "".join(f"{number} {label}\n" for label, number in self._classes.items())
        (self._root / self._split / "classes.txt").write_text(classes, encoding="utf-8")
        self._objects.close()
        return self._notes

    def _class(self, label: str) -> int:
        if label not in self._classes:
            taken = {*self._classes.values(), IGNORED}
            self._classes[label] = next(n for n in range(3, len(taken) + 4) if n not in taken)
        return self._classes[label]

    def _numbers(self, video: VideoTracks) -> list[int]:
        counts: dict[int, int] = {}
        numbers = []
        for track in video.tracks:
            kind = self._class(track.label)
            counts[kind] = counts.get(kind, 0) + 1
            if counts[kind] >= PER_CLASS or kind * PER_CLASS + PER_CLASS > 1 << 16:
                raise SvacError(
                    f"{video.name} has more objects, or the project more labels, than MOTS can number.",
                    "Choose another --format.",
                )
            numbers.append(kind * PER_CLASS + counts[kind])
        return numbers


def read(root: Path, split: str) -> Iterator[VideoTracks]:
    """Yield a split's videos of MOTSChallenge, ours or the release's, or of KITTI MOTS (`instances_txt`, `instances`).

    Raises:
        SvacError: it is missing or damaged.
    """
    files = {path.parent.parent.name: path for path in sorted((root / split).glob("*/gt/gt.txt"))}
    if files:
        known, labels = read_objects(root / split), _labels(root / split / "classes.txt")
        for name, path in files.items():
            yield _read_lines(path, 1, known.get(name, {}), labels, pictures(root, split, name))
        return
    if any(root.glob("*/*/gt/gt.txt")):
        raise SvacError(f"There is no split {split!r} in {root}.", "Name another one with --split.")
    kitti = sorted((root / "instances_txt").glob("*.txt"))
    if kitti:
        for path in kitti:
            yield _read_lines(path, 0, {}, _KITTI, root / "training" / "image_02" / path.stem)
        return
    folders = sorted(path for path in (root / "instances").glob("*") if path.is_dir())
    if folders:
        for path in folders:
            yield _read_pictures(path, root / "training" / "image_02" / path.name)
        return
    raise SvacError(
        f"There are no annotations of MOTS in {root}: no {split}/<video>/gt/gt.txt, instances_txt or instances.",
        "Give the folder of the data set, and its --split.",
    )


def _read_lines(
    path: Path, first: int, about: Mapping[str, Any], labels: Mapping[int, str], pictures: Path
) -> VideoTracks:
    """Read a file of masks whose frames count from `first`; `labels` maps class numbers to labels."""
    name = check_name(path.parent.parent.name if first else path.stem, path)
    found: dict[int, Track] = {}
    size: tuple[int, int] | None = None
    last = 0
    with path.open(encoding="ascii", errors="replace") as file:
        for line in file:
            try:
                *numbers, counts = line.split()
                frame, value, group, rows, columns = map(int, numbers)
            except ValueError as error:
                raise damaged(path, f"{line.strip()[:60]!r} is not a line of MOTS") from error
            place = frame - first
            if not 0 <= place < MAX_FRAMES:
                raise damaged(path, f"there is no frame {frame}")
            last = max(last, place)
            if group == IGNORED:
                continue
            check_size(rows, columns)
            size = size or (rows, columns)
            rle = read_segmentation({"size": [rows, columns], "counts": counts}, *size, path)
            track = found.setdefault(value, Track("", "", ""))
            if rle is not None:
                track.masks[place] = union([track.masks[place], rle]) if place in track.masks else rle
    info = _seqinfo(path.parent.parent / "seqinfo.ini") if first else {}
    for number in about.get("objects", {}):  # some objects are on no frame
        found.setdefault(int(number), Track("", "", ""))
    if size is None:
        size = (
            int(about.get("height") or info.get("imheight", 0)),
            int(about.get("width") or info.get("imwidth", 0)),
        )
    height, width = size
    if not (height and width):
        raise damaged(path, "it has no masks, and nothing says the size of its pictures")
    names = sorted(file.stem for file in pictures.glob("*.jpg")) or sorted(
        file.stem for file in pictures.glob("*.png")
    )
    length = len(names) or int(info.get("seqlength", 0)) or len(about.get("frames", ())) or last + 1
    if last >= length:
        raise damaged(path, f"it goes up to frame {last + first}, but the video has {length} frames")
    names = names or [f"{place + first:06d}" for place in range(length)]
    fps = rate(about) or rate({"fps": info.get("framerate")})
    return _placed(
        VideoTracks(
            name,
            width,
            height,
            tuple(range(length)),
            _named(found, about, labels),
            tuple(names),
            fps,
            pictures,
        ),
        about,
    )


def _read_pictures(folder: Path, pictures: Path) -> VideoTracks:
    """Read the 16-bit pictures of a video of KITTI MOTS."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise SvacError(f"There is no annotation in {folder}.", "Unpack the data set again.")
    found: dict[int, Track] = {}
    shapes: set[tuple[int, ...]] = set()
    for place, file in enumerate(files):
        try:
            with Image.open(file) as opened:
                picture = np.array(opened, dtype=np.int32)
        except (OSError, SyntaxError, ValueError) as error:
            raise damaged(file, "it can't be read as a picture") from error
        shapes.add(picture.shape)
        if picture.ndim != 2 or len(shapes) > 1:
            raise damaged(file, "its pixels are colours, or it has another size than the others")
        for number in map(int, np.unique(picture)):
            if number and number // PER_CLASS != IGNORED:
                found.setdefault(number, Track("", "", "")).masks[place] = to_coco(picture == number)
    height, width = shapes.pop()
    names = tuple(file.stem for file in files)
    return _placed(
        VideoTracks(
            folder.name,
            width,
            height,
            tuple(range(len(files))),
            _named(found, {}, _KITTI),
            names,
            None,
            pictures,
        ),
        {},
    )


def _named(
    found: Mapping[int, Track], about: Mapping[str, Any], labels: Mapping[int, str]
) -> tuple[Track, ...]:
    """Return tracks in the order of their numbers, with scores and with known ids and labels."""
    tracks = []
    for count, number in enumerate(sorted(found), start=1):
        known = about.get("objects", {}).get(str(number)) or {"label": labels.get(number // PER_CLASS, "")}
        masks = found[number].masks
        tracks.append(replace(new_track(count, known), masks=masks, scores=dict.fromkeys(masks, 1.0)))
    return tuple(tracks)


def _labels(path: Path) -> dict[int, str]:
    """Return class number -> label of our own export, or of KITTI if there are none."""
    if not path.is_file():
        return _KITTI
    lines = [line.partition(" ") for line in path.read_text(encoding="utf-8").splitlines()]
    return {int(number): label for number, _, label in lines if number.isascii() and number.isdigit()}


def _placed(video: VideoTracks, about: Mapping[str, Any]) -> VideoTracks:
    """Return the video with its masks moved from places in the sequence to the frames that our own export lists."""
    frames, order = about.get("frames"), list(about.get("objects", {}))
    if isinstance(frames, list) and len(frames) == len(video.frames):
        video = video.moved_to(tuple(int(frame) for frame in frames))
    tracks = {track.object_id: track for track in video.tracks}
    ids = [about["objects"][number].get("object_id") for number in order]
    if set(ids) == set(tracks):
        video = replace(video, tracks=tuple(tracks[one] for one in ids))
    return video


def _seqinfo(path: Path) -> dict[str, Any]:
    """Return the numbers in `seqinfo.ini`, by name in lower case; empty without the file."""
    if not path.is_file():
        return {}
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
        section = parser["Sequence"]
        whole = {key: int(section[key]) for key in ("seqlength", "imwidth", "imheight") if key in section}
        return whole | ({"framerate": float(section["framerate"])} if "framerate" in section else {})
    except (IniError, KeyError, ValueError) as error:
        raise damaged(path, f"it is malformed ({error})") from error
