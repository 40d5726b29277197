"""DAVIS 2017: `JPEGImages/480p/<video>/<frame>.jpg`, `Annotations/480p/<video>/<frame>.png`, `ImageSets/2017`.

Source: the release of DAVIS 2017 (Pont-Tuset et al.) and davis2017-evaluation, its official code. A pixel of an
annotation is the number of its object, 0 for none, and the palette gives it a colour. `480p` is the folder that readers
look into; frames and masks keep the video's size. `ImageSets/2017/<split>.txt` lists the split's videos.

With links beside it, the same folder is also Ref-DAVIS17 as `svac-backend evaluate --dataset ref-davis17` reads it:
`meta_expressions/<split>/meta_expressions.json`, `<split>/JPEGImages`, `<split>/Annotations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from svac_backend.datasets.video_tracks import (
    VideoTracks,
    check_name,
    damaged,
    frames_of_names,
    new_track,
    rate,
    read_objects,
    sentence,
    write_json,
    write_objects,
)
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.truth import objects_shown, read_numbers
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.video.images import frame_order

RESOLUTION = "480p"
# 255 marks pixels that no score counts.
MAX_OBJECTS = 254


def pictures(root: Path, split: str, video: str) -> Path:
    """Return the folder of a video's frames."""
    return root / "JPEGImages" / RESOLUTION / video


def write(root: Path, split: str, videos: Sequence[VideoTracks]) -> list[str]:
    """Write the annotations, the list of videos, and the expressions.

    A pixel has one number: where objects lie over each other the later one stays.

    Returns:
        What the layout could not keep, a sentence for each video.

    Raises:
        SvacError: a video has more objects than a pixel can number.
        OSError: the folder can't be written.
    """
    notes, numbers = [], {}
    meta: dict[str, Any] = {}
    for video in videos:
        if len(video.tracks) > MAX_OBJECTS:
            raise SvacError(
                f"{video.name} has {len(video.tracks)} objects, DAVIS numbers up to {MAX_OBJECTS}.",
                "Choose another --format.",
            )
        numbers[video.name] = {track.object_id: str(n) for n, track in enumerate(video.tracks, start=1)}
        hidden, drawn = _write_annotations(root / "Annotations" / RESOLUTION / video.name, video)
        if hidden:
            notes.append(
                f"{video.name}: {hidden} of {drawn} pixels lie under another object, which DAVIS cannot keep "
                "(the other formats can)."
            )
        meta[video.name] = {
            "frames": list(video.picture_names),
            "expressions": {
                str(n - 1): {"exp": sentence(track), "obj_id": str(n)}
                for n, track in enumerate(video.tracks, start=1)
            },
        }
    listed = root / "ImageSets" / "2017" / f"{split}.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{video.name}\n" for video in videos), encoding="utf-8")
    write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": meta})
    write_objects(root, videos, numbers)
    (root / split).mkdir()
    for name in ("Annotations", "JPEGImages"):
        (root / split / name).symlink_to(Path("..") / name / RESOLUTION)
    return notes


def _write_annotations(folder: Path, video: VideoTracks) -> tuple[int, int]:
    """Write a video's palette pictures; return how many pixels of masks were hidden, and how many there were."""
    folder.mkdir(parents=True)
    hidden = drawn = 0
    for name, frame in zip(video.picture_names, video.frames, strict=True):
        picture = np.zeros((video.height, video.width), np.uint8)
        here = 0
        for number, track in enumerate(video.tracks, start=1):
            if frame in track.masks:
                mask = from_coco(track.masks[frame])
                picture[mask] = number
                here += int(mask.sum())
        drawn += here
        hidden += here - int(np.count_nonzero(picture))
        shown = Image.fromarray(picture)
        shown.putpalette(_PALETTE)
        shown.save(folder / f"{name}.png")
    return hidden, drawn


def _palette() -> bytes:
    """The colours of DAVIS and PASCAL VOC: the bits of an object's number, spread over red, green and blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()


_PALETTE = _palette()


def read(root: Path, split: str) -> list[VideoTracks]:
    """Read a split, ours or the release's (DAVIS 2016 and 2017); without `ImageSets` every annotated video is taken.

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
    found = []
    for name in _listed(root, split, annotations):
        files = sorted((annotations / name).glob("*.png"), key=lambda file: frame_order(file.stem))
        if not files:
            raise SvacError(f"There is no annotation in {annotations / name}.", "Unpack the data set again.")
        objects = known.get(name, {})
        by_number = objects.get("objects", {})
        names = tuple(file.stem for file in files)
        masks: dict[int, dict[int, CocoRle]] = {}
        shapes: set[tuple[int, ...]] = set()
        for frame, file in zip(frames_of_names(names), files, strict=True):
            picture = read_numbers(file)
            shapes.add(picture.shape)
            for number in set(map(int, np.unique(picture))) - {0}:
                masks.setdefault(number, {})[frame] = to_coco(picture == number)
        if len(shapes) > 1:
            raise damaged(annotations / name, "its pictures have different sizes")
        shown = objects_shown(masks)
        if masks and not shown:
            raise damaged(annotations / name, "it marks pixels that no score counts (255), and no object")
        named = {int(number) for number in by_number if str(number).isdigit()}
        tracks: dict[int, Track] = {}
        for number in sorted({*named, *shown.values()}):
            tracks[number] = new_track(
                number, by_number.get(str(number)), expressions.get((name, number), "")
            )
        for in_pixels, number in shown.items():
            tracks[number].masks.update(masks[in_pixels])
            tracks[number].scores.update(dict.fromkeys(masks[in_pixels], 1.0))
        folder = pictures(root, split, name)
        height, width = shapes.pop()
        ordered = tuple(tracks.values())
        found.append(
            VideoTracks(name, width, height, frames_of_names(names), ordered, names, rate(objects), folder)
        )
    return found


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


def _expressions(root: Path, split: str) -> dict[tuple[str, int], str]:
    """Return the first sentence of each object, of a folder that is Ref-DAVIS17, too."""
    if not (root / "meta_expressions" / split / "meta_expressions.json").is_file():
        return {}
    found: dict[tuple[str, int], str] = {}
    for video in open_benchmark("ref-davis17", root, split).videos:
        for expression in video.expressions:
            if len(expression.obj_ids) == 1:
                found.setdefault((video.name, expression.obj_ids[0]), expression.text)
    return found
