"""A folder of pictures is a video like any other; damaged ones are told by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from svac_backend.errors import SvacError
from svac_backend.video.images import ImageFolderVideo, find_frames
from svac_backend.video.reader import ArrayVideo

COUNT, HEIGHT, WIDTH = 7, 40, 56


@pytest.fixture
def frames() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, frames: np.ndarray) -> Path:
    """PNGs, so that every pixel survives; with a file that is no picture."""
    target = tmp_path / "video"
    target.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(target / f"{i:05d}.png")
    (target / "notes.txt").write_text("not a frame")
    return target


def test_it_gives_what_an_array_gives(folder: Path, frames: np.ndarray) -> None:
    video, array = ImageFolderVideo(folder, fps=12), ArrayVideo(frames, fps=12)
    assert len(video) == COUNT
    assert (video.info.width, video.info.height, video.info.frame_count, video.info.fps) == (56, 40, 7, 12)
    assert video.index == array.index
    assert np.array_equal(video.frame(3), frames[3])
    for got, expected in zip(video.frames([1, 4, 6]), array.frames([1, 4, 6]), strict=True):
        assert got[0] == expected[0]
        assert np.array_equal(got[1], expected[1])
    for got, expected in zip(video.frames([2], (28, 20)), array.frames([2], (28, 20)), strict=True):
        assert np.array_equal(got[1], expected[1])
    for got, expected in zip(video.windows(3, 1, 6), array.windows(3, 1, 6), strict=True):
        assert got[0] == expected[0]
        assert np.array_equal(got[1], expected[1])


def test_names_choose_and_order_the_frames(folder: Path, frames: np.ndarray) -> None:
    video = ImageFolderVideo(folder, ["00004", "00002"])
    assert np.array_equal(np.concatenate([window for _, window in video.windows(8)]), frames[[4, 2]])
    assert [path.name for path in find_frames(folder)] == [f"{i:05d}.png" for i in range(COUNT)]


def test_jpegs_are_decoded_as_pillow_does_without_turning_them(tmp_path: Path, frames: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    Image.fromarray(frames[0]).save(tmp_path / "00000.jpg", exif=exif)
    expected = np.array(Image.open(tmp_path / "00000.jpg").convert("RGB"))
    assert np.array_equal(ImageFolderVideo(tmp_path).frame(0), expected)
    assert expected.shape == (HEIGHT, WIDTH, 3)


def test_grey_pictures_become_rgb(tmp_path: Path, frames: np.ndarray) -> None:
    Image.fromarray(frames[0, ..., 0]).save(tmp_path / "0.png")
    assert np.array_equal(ImageFolderVideo(tmp_path).frame(0), np.repeat(frames[0, ..., :1], 3, axis=2))


def test_the_fingerprint_changes_with_the_files(folder: Path) -> None:
    before = ImageFolderVideo(folder).fingerprint
    assert ImageFolderVideo(folder).fingerprint == before
    os.utime(folder / "00003.png", ns=(1, 1))
    assert ImageFolderVideo(folder).fingerprint != before
    assert ImageFolderVideo(folder, ["00001"]).fingerprint != ImageFolderVideo(folder, ["00002"]).fingerprint


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="cannot be read"):
        ImageFolderVideo(tmp_path / "nosuch")
    with pytest.raises(SvacError, match=r"1 of 2 frames are missing in .*, the first is 00009\.jpg"):
        ImageFolderVideo(folder, ["00001", "00009"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SvacError, match="no picture in"):
        ImageFolderVideo(tmp_path / "empty")
    with pytest.raises(SvacError, match="no frame rate"):
        ImageFolderVideo(folder, fps=0)
    with pytest.raises(SvacError, match="SVAC_MAX_VIDEO_SIDE"):
        ImageFolderVideo(folder, max_side=50)
    with pytest.raises(SvacError, match="no frame 7"):
        ImageFolderVideo(folder).frame(7)


def test_damaged_frames_are_named(folder: Path) -> None:
    video = ImageFolderVideo(folder)
    content = (folder / "00002.png").read_bytes()
    (folder / "00002.png").write_bytes(content[: len(content) // 2])
    (folder / "00003.png").write_text("no picture")
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(folder / "00004.png")
    (folder / "00005.png").unlink()
    for i, wrong in ((2, "damaged"), (3, "damaged"), (4, "57x40 pixels"), (5, "missing")):
        with pytest.raises(SvacError, match=rf"{i:05d}.*{wrong}"):
            video.frame(i)
    with pytest.raises(SvacError, match="00002"):
        list(video.windows(4))


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "00000.jpg")
    for i in range(1, 200):  # 184 MB decoded
        (tmp_path / f"{i:05d}.jpg").hardlink_to(tmp_path / "00000.jpg")
    video, process = ImageFolderVideo(tmp_path), psutil.Process()
    before = process.memory_info().rss
    assert max(process.memory_info().rss - before for _ in video.windows(8)) < 60e6
