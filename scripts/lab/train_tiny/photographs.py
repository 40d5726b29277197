"""Photographs with masks that may train what ships: read from a folder as `photos/{coco,clothing,cats}` hold them.

Their sources and licences are in the card of a model trained on them. Training and validation are parted by photograph.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Part = Literal["train", "validation"]

# Of what is smaller, no mask is trained: a share of the photograph.
_SMALLEST = 1 / 400
# What people wear and carry is marked in `clothing` only; there, and on photographs of cats, nothing else is.
_WORN = (
    "accessories belt blazer blouse bodysuit boots bracelet cape cardigan clogs coat dress earrings flats glasses "
    "gloves hair hat heels hoodie intimate jacket jeans jumper leggings loafers necklace pants pumps purse ring romper "
    "sandals scarf shirt shoes shorts skin skirt sneakers socks stockings suit sunglasses sweater sweatshirt swimwear "
    "t-shirt tie tights top vest wallet watch wedges bag"
)
CLOTHES = frozenset(_WORN.split())
# COCO's photographs under these terms only.
_LICENSES = ("CC BY 2.0", "CC BY-SA 2.0", "no known copyright restrictions")


@dataclass(frozen=True)
class Photograph:
    """A photograph in memory as its file's bytes, and what is marked on it.

    Attributes:
        name: `<set>/<file>`.
        content: JPEG.
        labels: what each region shows.
        polygons: of each region; None where `tags` has them.
        tags: PNG of a tag for each pixel, the regions' are in `labels` as `<tag>`; every tag together is a person.
        unmarked: what it may show beside the regions.
    """

    name: str
    content: bytes
    labels: tuple[str, ...]
    polygons: tuple[tuple[NDArray[np.int32], ...], ...] | None = None
    tags: bytes | None = None
    numbers: tuple[int, ...] = ()
    unmarked: frozenset[str] = frozenset()

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the picture u8 [H, W, 3] RGB and its regions' masks bool [N, H, W]."""
        bgr = cv2.imdecode(np.frombuffer(self.content, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None
        image = np.ascontiguousarray(bgr[..., ::-1])
        height, width = image.shape[:2]
        if self.polygons is not None:
            masks = np.zeros((len(self.polygons), height, width), np.uint8)
            for mask, rings in zip(masks, self.polygons, strict=True):
                for ring in rings:  # one at a time: rings that overlap would cut holes into each other
                    cv2.fillPoly(mask, [ring], 1)
            return np.asarray(image, np.uint8), masks.astype(bool)
        assert self.tags is not None
        tags = cv2.imdecode(np.frombuffer(self.tags, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert tags is not None
        return np.asarray(image, np.uint8), np.stack([tags == n if n else tags > 0 for n in self.numbers])


def part_of(name: str) -> Part:
    """Return which part a photograph belongs to; one in ten is for validation."""
    return "validation" if zlib.crc32(name.encode()) % 10 == 0 else "train"


def load_photographs(folder: Path, part: Part) -> list[Photograph]:
    """Read the photographs of a part that have regions large enough.

    Args:
        folder: with `coco`, `clothing` and `cats`.
    """
    found = [
        *_coco(folder / "coco", part),
        *_clothing(folder / "clothing", part),
        *_cats(folder / "cats", part),
    ]
    return [photo for photo in found if photo.labels]


def _coco(folder: Path, part: Part) -> list[Photograph]:
    told = json.loads((folder / "instances.json").read_text())
    names = {entry["id"]: entry["name"] for entry in told["categories"]}
    regions: dict[int, list[tuple[str, tuple[NDArray[np.int32], ...]]]] = {}
    small: dict[int, set[str]] = {}
    sizes = {entry["id"]: entry["width"] * entry["height"] for entry in told["images"]}
    for entry in told["annotations"]:
        if entry["iscrowd"] or entry["area"] < _SMALLEST * sizes[entry["image_id"]]:
            small.setdefault(entry["image_id"], set()).add(names[entry["category_id"]])
            continue
        rings = tuple(np.round(np.reshape(ring, (-1, 2))).astype(np.int32) for ring in entry["segmentation"])
        regions.setdefault(entry["image_id"], []).append((names[entry["category_id"]], rings))
    photos = []
    for entry in told["images"]:
        name, there = f"coco/{entry['file_name']}", regions.get(entry["id"], [])
        if there and entry["license"] in _LICENSES and part_of(name) == part:
            labels, polygons = zip(*there, strict=True)
            unmarked = CLOTHES - {"tie"} | small.get(entry["id"], set())
            content = (folder / entry["file_name"]).read_bytes()
            photos.append(Photograph(name, content, labels, polygons, unmarked=unmarked))
    return photos


def _clothing(folder: Path, part: Part) -> list[Photograph]:
    names = {int(number): name for number, name in json.loads((folder / "labels.json").read_text()).items()}
    photos = []
    for path in sorted((folder / "photos").glob("*.jpg")):
        name, tags = f"clothing/{path.name}", folder / "labels" / f"{path.stem}.png"
        if part_of(name) != part or not tags.is_file():
            continue
        content = tags.read_bytes()
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert decoded is not None
        counts = np.bincount(decoded.ravel(), minlength=len(names))
        large = [n for n in names if n and counts[n] > _SMALLEST * decoded.size]
        if large:
            labels = ("person", *(names[n] for n in large))
            small = {names[n] for n in names if n and counts[n] and n not in large}
            # What else is in the street nobody marked.
            unmarked = frozenset(small | {"the rest"})
            photos.append(
                Photograph(
                    name, path.read_bytes(), labels, tags=content, numbers=(0, *large), unmarked=unmarked
                )
            )
    return photos


def _cats(folder: Path, part: Part) -> list[Photograph]:
    photos = []
    for path in sorted((folder / "photos").glob("*.jpg")):
        name, told = f"cats/{path.name}", folder / "labels" / f"{path.stem}.json"
        if part_of(name) != part or not told.is_file():
            continue
        rings = json.loads(told.read_text())["polygons"]
        # Each ring may be a cat of its own or a part of one that something hides: all of them together are the cats.
        polygon = tuple(
            np.round(np.reshape(ring, (-1, 2))).astype(np.int32) for ring in rings if len(ring) >= 6
        )
        if polygon:
            unmarked = CLOTHES | {"the rest"}
            photos.append(Photograph(name, path.read_bytes(), ("cat",), (polygon,), unmarked=unmarked))
    return photos
