"""The true masks of a benchmark: COCO RLE by annotation (JSON, or a pickle), or palette pictures by object.

Data sets come from strangers, so a pickle may hold plain containers and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, BenchmarkExpression, BenchmarkVideo, read_json
from svac_backend.masks.rle import from_coco
from svac_backend.masks.tracks import CocoRle

_PLAIN = (dict, list, str, bytes, int, type(None))
_HINT = (
    "Open it with other programs only if you trust its author; convert it to mask_dict.json, with the masks as COCO "
    "RLE."
)


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every name that a pickle asks for: without names a pickle can neither import nor call anything."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object outside of it")


def load_plain(path: Path) -> Any:
    """Read a pickle of dict, list, str, bytes, int and None.

    Raises:
        SvacError: it can't be read, is damaged, or holds anything else; nothing in it is run.
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise SvacError(f"{path} is not a pickle of plain containers: {error}.", _HINT) from error
    except OSError as error:
        raise SvacError(f"{path} cannot be read: {error.strerror}.", "Check the file.") from error
    _check(content, path)
    return content


def _check(content: Any, path: Path) -> None:
    """Refuse other types. Each object is looked at once, however often it is referred to, and without recursion."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if type(value) not in (*_PLAIN, bool):
            raise SvacError(f"{path} holds a {type(value).__name__}, which is not a plain container.", _HINT)
        if isinstance(value, dict | list):
            if id(value) in seen:
                continue
            seen.add(id(value))
            waiting.extend(value)
            if isinstance(value, dict):
                waiting.extend(value.values())


Mask = NDArray[np.bool_]


class Target(Protocol):
    """The masks of an expression; small and picklable, so that another process can score it."""

    def mask(self, frame: int) -> Mask | None:
        """Return the mask of a frame, bool [H, W]; None if it is empty and of unknown size.

        Raises:
            SvacError: the mask is missing or damaged.
        """


@dataclass(frozen=True)
class RleTarget:
    """Masks as COCO RLE.

    Attributes:
        frames: for every frame, the masks whose union is the truth.
        size: (height, width); None where no frame has a mask.
    """

    frames: tuple[tuple[CocoRle, ...], ...]
    size: tuple[int, int] | None

    def mask(self, frame: int) -> Mask | None:
        """Return the union of the frame's masks; see `Target.mask`."""
        if self.size is None:
            return None
        union = np.zeros(self.size, np.bool_)
        for rle in self.frames[frame]:
            union |= from_coco(rle)
        return union


@dataclass(frozen=True)
class PaletteTarget:
    """Masks as palette pictures: each pixel holds its object's number.

    Attributes:
        files: a picture per frame.
        objects: the numbers of the objects in question.
        white: they are white on black, which is object 1.
    """

    files: tuple[Path, ...]
    objects: tuple[int, ...]
    white: bool = False

    def mask(self, frame: int) -> Mask:
        """Return the pixels of the objects; see `Target.mask`."""
        numbers = read_numbers(self.files[frame])
        if self.white:
            return (numbers != 0) & (1 in self.objects)
        return np.logical_or.reduce([numbers == number for number in self.objects])


class Truth(Protocol):
    """The truth of a benchmark."""

    def target(self, video: BenchmarkVideo, expression: BenchmarkExpression) -> Target:
        """Return the masks that an expression refers to. Raises `SvacError` if they do not fit the video."""

    def foreground(self, video: BenchmarkVideo) -> Target | None:
        """Return the union of a video's annotated objects; None if the benchmark does not have it."""


def open_truth(benchmark: Benchmark) -> Truth | None:
    """Return the benchmark's masks; None for a split that only a challenge's server can score.

    Raises:
        SvacError: they can't be read.
    """
    for name in ("mask_dict.json", "mask_dict.pkl"):
        if (path := benchmark.data / name).is_file():
            foreground = benchmark.data / "mask_dict_foreground.json"
            return _RleTruth(path, _read_masks(path), read_json(foreground) if foreground.is_file() else None)
    # YouTube-VOS publishes the first masks of its challenge's videos and keeps the others.
    kept = benchmark.dataset == "ref-youtube-vos" and benchmark.split != "train"
    if not kept and (folder := benchmark.data / "Annotations").is_dir():
        return _PaletteTruth(folder)
    return None


class _RleTruth:
    def __init__(self, path: Path, masks: dict[str, Any], foreground: Any) -> None:
        self._path, self._masks, self._foreground = path, masks, foreground

    def target(self, video: BenchmarkVideo, expression: BenchmarkExpression) -> RleTarget:
        return self._union(video, [self._of(anno_id, video) for anno_id in expression.anno_ids])

    def foreground(self, video: BenchmarkVideo) -> RleTarget | None:
        if self._foreground is None:
            return None
        entry = self._foreground.get(video.name) if isinstance(self._foreground, dict) else None
        masks = entry.get("masks_rle") if isinstance(entry, dict) else None
        if not isinstance(masks, list):
            raise SvacError(
                f"mask_dict_foreground.json has no masks of the video {video.name}.",
                "Download it again, or remove it: J and F do not need it.",
            )
        return self._union(video, [masks])

    def _of(self, anno_id: str, video: BenchmarkVideo) -> list[Any]:
        masks = self._masks.get(anno_id)
        if not isinstance(masks, list):
            raise SvacError(
                f"{self._path} has no masks {anno_id}, which the video {video.name} refers to.",
                "Masks and meta file must come from one release: download both again.",
            )
        return masks

    def _union(self, video: BenchmarkVideo, tracks: list[list[Any]]) -> RleTarget:
        for masks in tracks:
            if len(masks) != len(video.frames):
                raise SvacError(
                    f"{video.name} has {len(video.frames)} frames, its masks in {self._path} {len(masks)}.",
                    "Masks and meta file must come from one release: download both again.",
                )
        frames = tuple(tuple(rle for rle in row if rle) for row in zip(*tracks, strict=True))
        frames = frames or ((),) * len(video.frames)
        sizes = {tuple(rle["size"]) for row in frames for rle in row if _has_size(rle)}
        if len(sizes) > 1 or not all(_has_size(rle) for row in frames for rle in row):
            raise SvacError(
                f"A mask of the video {video.name} in {self._path} is not COCO RLE, or its size differs.",
                "Download the masks again.",
            )
        return RleTarget(frames, next(iter(sizes), None))


class _PaletteTruth:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._white: dict[str, bool] = {}

    def target(self, video: BenchmarkVideo, expression: BenchmarkExpression) -> PaletteTarget:
        if not expression.obj_ids:
            raise SvacError(
                f"Expression {expression.id} of the video {video.name} has no obj_id, which palette pictures need.",
                "Use a meta file with obj_id, or masks as mask_dict.json.",
            )
        files = tuple(self._folder / video.name / f"{frame}.png" for frame in video.frames)
        if video.name not in self._white:
            self._white[video.name] = _white_on_black([file for file in files if file.is_file()])
        return PaletteTarget(files, expression.obj_ids, self._white[video.name])

    def foreground(self, video: BenchmarkVideo) -> None:
        return None


# In pixels that were read: void, which counts for no object, and the 255 of a grey picture, which is void or white.
VOID, GREY_255 = -1, -2
_WHITE = {GREY_255, 255, 65535}


def objects_shown(present: Collection[int]) -> dict[int, int]:
    """Return which numbers in a video's pixels are objects: the number in the pixels -> the object's.

    In grey pictures 255 is void beside other numbers; alone it is white, and what is white on black is object 1 (DAVIS
    2016, and most tools that make masks of one object).

    Args:
        present: the numbers in all of the video's pictures, as `read_numbers` returns them.
    """
    shown = sorted(set(present) - {0, VOID})
    if len(shown) == 1 and shown[0] in _WHITE:
        return {shown[0]: 1}
    return {number: number for number in shown if number != GREY_255}


@lru_cache(maxsize=4)
def read_numbers(path: Path) -> NDArray[np.int32]:
    """Return the numbers of objects in a picture, not its colours, i32 [H, W]. The array is shared: do not change it.

    255 is `VOID` in a palette picture and `GREY_255` in a grey one of 8 bits; in one of 16 bits it is a number.

    Raises:
        SvacError: it is missing, damaged, or has colours instead of numbers.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "L", "1") and not picture.mode.startswith("I"):
                raise SvacError(
                    f"{path} has no palette (its mode is {picture.mode}).",
                    "Give annotations whose pixels are object numbers.",
                )
            numbers = np.array(picture, dtype=np.int32)
            if picture.mode == "L" or _is_grey(picture):
                numbers[numbers == 255] = GREY_255
            elif picture.mode == "P":
                numbers[numbers == 255] = VOID
            return numbers
    except FileNotFoundError as error:
        raise SvacError(f"The annotation {path} is missing.", "Unpack the data set again.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise SvacError(f"The annotation {path} is damaged.", "Unpack the data set again.") from error


def _is_grey(picture: Image.Image) -> bool:
    """Whether a palette picture is a grey one that was saved with a palette: its 255 is white."""
    return picture.mode == "P" and (picture.getpalette() or [])[765:768] == [255, 255, 255]


def _white_on_black(files: Sequence[Path]) -> bool:
    """Whether a video's pictures show one object, white on black. The first number or palette ends the search."""
    present: set[int] = set()
    for file in files:
        present |= set(map(int, np.unique(read_numbers.__wrapped__(file)))) - {0}
        if not present <= _WHITE:
            return False
    return list(objects_shown(present).values()) == [1]


def _read_masks(path: Path) -> dict[str, Any]:
    content = load_plain(path) if path.suffix == ".pkl" else read_json(path)
    if not isinstance(content, dict):
        raise SvacError(f"{path} is not a dictionary of masks.", "Download it again.")
    return {str(key): value for key, value in content.items()}


def _has_size(rle: Any) -> bool:
    size: Sequence[Any] | None = rle.get("size") if isinstance(rle, dict) else None
    return isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size)
