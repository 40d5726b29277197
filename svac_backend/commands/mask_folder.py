"""Masks that people drew elsewhere, as pictures in a folder: the corrections of `svac-backend propagate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svac_backend.errors import SvacError
from svac_backend.masks.prompts import FramePrompt
from svac_backend.masks.rle import to_coco
from svac_backend.video.reader import VideoInfo

_LAYOUT = (
    "Name the pictures by their 0-based frame: DIR/<object>/00012.png with one object each, "
    "or DIR/00012.png with the objects' numbers."
)
# DAVIS marks pixels that count neither as object nor as background.
_VOID = 255


def read_masks(folder: Path, info: VideoInfo) -> dict[str, dict[int, FramePrompt]]:
    """Read masks by object id and 0-based frame.

    Two layouts: `<object>/<frame>.png`, where what is not black is the object; or `<frame>.png` as DAVIS has it,
    whose pixels are the objects' numbers (palette or grey; a grey picture of 0 and 255 shows one object). Number 3
    is the object `obj3`. A picture says all about its frame: a number that it does not show, but another picture
    does, is an object that is not there; so is an empty picture in an object's folder.

    Args:
        folder: with pictures of the video's size.
        info: of the video.

    Raises:
        SvacError: there is no mask, both layouts are mixed, or a picture does not fit.
    """
    if not folder.is_dir():
        raise SvacError(f"There is no folder {folder}.", _LAYOUT)
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir()]
    pictures = [path for path in entries if path.is_file()]
    if folders and pictures:
        raise SvacError(f"{folder} holds both pictures and folders.", _LAYOUT)
    if pictures:
        return _numbered(pictures, info)
    found: dict[str, dict[int, FramePrompt]] = {}
    for one in folders:
        files = sorted(path for path in one.iterdir() if not path.name.startswith("."))
        if files:
            found[object_id(one.name)] = {
                _frame(path, info): FramePrompt(mask=to_coco(_single(path, info))) for path in files
            }
    if not found:
        raise SvacError(f"There is no mask in {folder}.", _LAYOUT)
    return found


def object_id(name: str) -> str:
    """Return a name that can be an object's id. Raises `SvacError` where it can't."""
    if not name or "-f" in name or any(character.isspace() or character == ":" for character in name):
        raise SvacError(
            f"An object can't be called {name!r}.",
            "Use a name without spaces, colons and '-f', such as obj1.",
        )
    return name


def _numbered(files: list[Path], info: VideoInfo) -> dict[str, dict[int, FramePrompt]]:
    numbers_of = {_frame(path, info): _numbers(path, info) for path in files}
    present = sorted({int(n) for numbers in numbers_of.values() for n in np.unique(numbers)} - {0})
    if not present:
        raise SvacError(f"The pictures in {files[0].parent} show no object.", _LAYOUT)
    return {
        f"obj{n}": {frame: FramePrompt(mask=to_coco(numbers == n)) for frame, numbers in numbers_of.items()}
        for n in present
    }


def _frame(path: Path, info: VideoInfo) -> int:
    if path.suffix.lower() != ".png" or not (path.stem.isascii() and path.stem.isdigit()):
        raise SvacError(f"{path} is no mask of a frame.", _LAYOUT)
    frame = int(path.stem)
    if frame >= info.frame_count:
        raise SvacError(
            f"{path} is for a frame that the video does not have.",
            f"Its frames are 0 to {info.frame_count - 1}.",
        )
    return frame


def _numbers(path: Path, info: VideoInfo) -> NDArray[np.int64]:
    mode, values = _read(path, info)
    if values.ndim != 2:
        raise SvacError(
            f"The pixels of {path} are colours (its mode is {mode}), not numbers of objects.",
            "Save a palette or grey picture, or one picture per object in a folder of its name.",
        )
    numbers = values.astype(np.int64)
    if mode != "P" and set(np.unique(numbers)) <= {0, _VOID}:
        return np.minimum(numbers, 1)
    return np.where(numbers == _VOID, 0, numbers)


def _single(path: Path, info: VideoInfo) -> NDArray[np.bool_]:
    mode, values = _read(path, info)
    if mode in ("LA", "RGBA"):  # what is transparent was not painted
        values = values[..., :-1] * (values[..., -1:] >= 128)
    if values.ndim == 3:
        values = values.max(-1)
    # Grey between black and white is the soft edge of a brush; small numbers alone are labels.
    soft = mode != "P" and values.max() > 127
    return values > (127 if soft else 0)


def _read(path: Path, info: VideoInfo) -> tuple[str, NDArray[np.uint8]]:
    try:
        with Image.open(path) as picture:
            mode, values = picture.mode, np.array(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise SvacError(f"{path} can't be read as a picture.", "Save it as PNG again.") from error
    if values.shape[:2] != (info.height, info.width):
        raise SvacError(
            f"{path} has {values.shape[1]}x{values.shape[0]} pixels.",
            f"Masks need the video's size, {info.width}x{info.height}.",
        )
    return mode, values.astype(np.uint8) if values.dtype == np.bool_ else values
