"""Masks from folders: both layouts, every kind of picture, and what people get wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svac_backend.cli.propagate import object_id, read_masks
from svac_backend.errors import SvacError
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import from_coco
from svac_backend.video.source import VideoInfo

INFO = VideoInfo(6, 4, 20, 10.0, 2.0, 0, False, "h264")
LEFT = np.zeros((4, 6), np.bool_)
LEFT[:, :2] = True
RIGHT = LEFT[:, ::-1]
NUMBERS = (LEFT * 1 + RIGHT * 3).astype(np.uint8)


def mask(prompt: FrameHint) -> np.ndarray:
    assert prompt.mask is not None
    return from_coco(prompt.mask)


def save(path: Path, pixels: np.ndarray, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (_palette(pixels) if mode == "P" else Image.fromarray(pixels)).save(path)


def _palette(pixels: np.ndarray) -> Image.Image:
    picture = Image.new("P", (pixels.shape[1], pixels.shape[0]))
    picture.putpalette([(37 * i) % 256 for i in range(768)])
    picture.putdata(pixels.flatten().tolist())
    return picture


@pytest.mark.parametrize("mode", ["P", "L"])
def test_numbers_of_objects(tmp_path: Path, mode: str) -> None:
    save(tmp_path / "00000.png", NUMBERS, mode)
    save(tmp_path / "00012.png", np.where(LEFT, 1, 0).astype(np.uint8), mode)
    (tmp_path / ".hidden").write_text("")
    found = read_masks(tmp_path, INFO)
    assert {name: sorted(given) for name, given in found.items()} == {"obj1": [0, 12], "obj3": [0, 12]}
    assert np.array_equal(mask(found["obj1"][0]), LEFT)
    assert np.array_equal(mask(found["obj3"][0]), RIGHT)
    assert not mask(found["obj3"][12]).any()  # the picture says that it is not there


def test_void_is_no_object_but_white_is(tmp_path: Path) -> None:
    save(tmp_path / "p" / "0.png", np.where(LEFT, 1, np.where(RIGHT, 255, 0)).astype(np.uint8), "P")
    save(tmp_path / "l" / "0.png", (RIGHT * 255).astype(np.uint8))
    assert list(read_masks(tmp_path / "p", INFO)) == ["obj1"]
    assert np.array_equal(mask(read_masks(tmp_path / "l", INFO)["obj1"][0]), RIGHT)


def test_what_grey_255_is_the_whole_folder_tells(tmp_path: Path) -> None:
    save(tmp_path / "void" / "0.png", (RIGHT * 255).astype(np.uint8))
    save(tmp_path / "void" / "1.png", np.where(LEFT, 2, np.where(RIGHT, 255, 0)).astype(np.uint8))
    assert list(read_masks(tmp_path / "void", INFO)) == ["obj2"]
    deep = np.array([[1, 254, 255, 256, 300, 0]] * 4, np.uint16)
    save(tmp_path / "deep" / "0.png", deep)
    assert list(read_masks(tmp_path / "deep", INFO)) == ["obj1", "obj254", "obj255", "obj256", "obj300"]


@pytest.mark.parametrize(
    "pixels",
    [
        LEFT.astype(np.uint8),
        (LEFT * 255).astype(np.uint8),
        np.where(LEFT, 200, 90).astype(np.uint8),
        (LEFT * 65535).astype(np.uint16),
        np.stack([LEFT * 0, LEFT * 220, LEFT * 0], -1).astype(np.uint8),
        np.stack([LEFT * 0 + 255] * 3 + [LEFT * 255], -1).astype(np.uint8),
    ],
    ids=["labels", "white", "soft", "deep", "colour", "transparent"],
)
def test_one_folder_per_object(tmp_path: Path, pixels: np.ndarray) -> None:
    save(tmp_path / "dog" / "00003.png", pixels)
    save(tmp_path / "cat" / "00003.png", np.zeros((4, 6), np.uint8))
    found = read_masks(tmp_path, INFO)
    assert np.array_equal(mask(found["dog"][3]), LEFT)
    assert not mask(found["cat"][3]).any()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises(SvacError, match=message) as caught:
            read_masks(tmp_path / name, INFO)
        assert caught.value.hint

    refused("nothing", "no folder")
    (tmp_path / "empty" / "dog").mkdir(parents=True)
    refused("empty", "no mask in")
    save(tmp_path / "black" / "0.png", np.zeros((4, 6), np.uint8))
    refused("black", "show no object")
    save(tmp_path / "both" / "0.png", NUMBERS)
    save(tmp_path / "both" / "dog" / "0.png", NUMBERS)
    refused("both", "both pictures and folders")
    save(tmp_path / "size" / "0.png", np.zeros((5, 6), np.uint8))
    refused("size", "6x5 pixels")
    save(tmp_path / "late" / "dog" / "20.png", NUMBERS)
    refused("late", "frame that the video does not have")
    save(tmp_path / "colours" / "0.png", np.zeros((4, 6, 3), np.uint8))
    refused("colours", "are colours")
    save(tmp_path / "name" / "frame1.png", NUMBERS)
    refused("name", "not a mask of a frame")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "0.png").write_bytes(b"no picture")
    refused("damaged", "can't be read")
    save(tmp_path / "called" / "my dog" / "0.png", NUMBERS)
    refused("called", "can't be called 'my dog'")


@pytest.mark.parametrize("name", ["", "a b", "a-f1", "a:b"])
def test_names_that_are_no_ids(name: str) -> None:
    with pytest.raises(SvacError, match="can't be called"):
        object_id(name)
