from __future__ import annotations

import json
import os
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from svac_backend.errors import JobCancelled, SvacError
from svac_backend.video import frames as frames_module
from svac_backend.video.frames import MANIFEST, frame_name, write_frames
from svac_backend.video.reader import ArrayVideo, VideoReader

MakeVideo = Callable[..., Path]
NumberOf = Callable[[NDArray[np.uint8]], int]


def load(path: Path) -> NDArray[np.uint8]:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def flat_video(count: int, value: int = 100, size: int = 32) -> ArrayVideo:
    return ArrayVideo(np.full((count, size, size, 3), value, np.uint8))


def times(paths: list[Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths]


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path: Path) -> object:
    yield
    if not any("stale" in str(path) for path in tmp_path.rglob("*.part")):
        assert list(tmp_path.rglob("*.part")) == []


def test_every_frame_has_its_own_file(make_video: MakeVideo, tmp_path: Path, number_of: NumberOf) -> None:
    with VideoReader(make_video(count=30)) as video:
        paths = write_frames(video, tmp_path / "new" / "frames")
        assert [path.name for path in paths] == [f"{i:05d}.jpg" for i in range(30)]
        images = [load(path) for path in paths]
        assert [number_of(image) for image in images] == list(range(30))
        assert np.abs(images[7].astype(int) - video.frame(7)).mean() < 6


def test_colours_stay_what_they_are(tmp_path: Path) -> None:
    orange = ArrayVideo(np.full((1, 32, 32, 3), (230, 120, 20), np.uint8))
    (path,) = write_frames(orange, tmp_path)
    assert np.abs(load(path).astype(int) - (230, 120, 20)).max() <= 3


def test_chosen_frames_keep_their_index(make_video: MakeVideo, tmp_path: Path, number_of: NumberOf) -> None:
    with VideoReader(make_video(count=30)) as video:
        paths = write_frames(video, tmp_path / "frames", indices=[3, 17])
        assert [path.name for path in paths] == ["00003.jpg", "00017.jpg"]
        assert [number_of(load(path)) for path in paths] == [3, 17]
        assert len(list((tmp_path / "frames").glob("*.jpg"))) == 2
        assert write_frames(video, tmp_path / "frames", indices=[]) == []


def test_frames_of_the_same_video_are_kept(tmp_path: Path) -> None:
    video = flat_video(8)
    first = write_frames(video, tmp_path / "f", indices=range(5))
    before = times(first)
    messages: list[tuple[float, str]] = []
    second = write_frames(video, tmp_path / "f", progress=lambda *args: messages.append(args))
    assert times(second[:5]) == before
    assert messages == [(i / 8, f"Wrote {i} of 8 frames") for i in (6, 7, 8)]
    again: list[float] = []
    assert write_frames(video, tmp_path / "f", progress=lambda done, _: again.append(done)) == second
    assert again == [1.0]


@pytest.mark.parametrize(
    ("other", "quality"), [(flat_video(8, 200), 90), (flat_video(8), 50), (flat_video(8, size=40), 90)]
)
def test_frames_of_another_video_or_quality_are_replaced(
    tmp_path: Path, other: ArrayVideo, quality: int
) -> None:
    write_frames(flat_video(10), tmp_path / "f")
    paths = write_frames(other, tmp_path / "f", quality=quality)
    assert sorted((tmp_path / "f").glob("*.jpg")) == paths
    fresh = write_frames(other, tmp_path / "g", quality=quality)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in fresh]


def test_a_video_that_changed_on_disk_is_another_one(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(count=5)
    before = times(write_frames(VideoReader(path), tmp_path / "f"))
    os.utime(path, ns=(1, 1))
    assert times(write_frames(VideoReader(path), tmp_path / "f")) != before


@pytest.mark.parametrize("broken", [b"", b"\xff", b"\xff\xd8 half of a picture"])
def test_a_broken_frame_is_written_again(tmp_path: Path, broken: bytes) -> None:
    paths = write_frames(flat_video(4), tmp_path / "f")
    whole = paths[2].read_bytes()
    paths[2].write_bytes(broken)
    write_frames(flat_video(4), tmp_path / "f")
    assert paths[2].read_bytes() == whole


def test_cancelled_and_resumed(tmp_path: Path) -> None:
    def cancel(fraction: float, _: str) -> None:
        if fraction >= 0.25:
            raise JobCancelled

    video = flat_video(40)
    with pytest.raises(JobCancelled):
        write_frames(video, tmp_path / "f", progress=cancel)
    written = sorted((tmp_path / "f").glob("*.jpg"))
    assert 10 <= len(written) < 40
    before = times(written)
    paths = write_frames(video, tmp_path / "f")
    assert len(paths) == 40
    assert times(written) == before
    assert all(load(path).shape == (32, 32, 3) for path in paths)


def test_a_half_replaced_folder_is_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(flat_video(6, 10), tmp_path / "f")
    removed = 0
    original = Path.unlink

    def dying(self: Path, missing_ok: bool = False) -> None:
        nonlocal removed
        removed += 1
        if removed > 3:
            raise OSError(5, "Input/output error")
        original(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        with pytest.raises(SvacError, match="Input/output error"):
            write_frames(flat_video(6, 250), tmp_path / "f")
    assert len(list((tmp_path / "f").glob("*.jpg"))) == 3
    paths = write_frames(flat_video(6, 250), tmp_path / "f")
    assert all(load(path).mean() > 240 for path in paths)


@pytest.mark.parametrize("name", ["00001.jpg", MANIFEST])
def test_files_of_somebody_else_are_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(SvacError, match="did not write"):
        write_frames(flat_video(3), tmp_path)
    assert (tmp_path / name).read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_stale_parts_are_removed_and_fresh_ones_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    old, new = folder / ".old.jpg.1.part", folder / ".not-stale.jpg.2.part"
    for part in (old, new):
        part.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    write_frames(flat_video(2), folder)
    assert (old.exists(), new.exists()) == (False, True)


def test_too_little_space_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(frames_module.shutil, "disk_usage", lambda _: usage(1, 1, 70 << 20))
    with pytest.raises(SvacError, match=r"need about 11 MiB.*only 70 MiB free") as caught:
        write_frames(flat_video(10, size=2000), tmp_path / "f")
    assert caught.value.temporary
    assert list((tmp_path / "f").glob("*.jpg")) == []
    assert len(write_frames(flat_video(2, size=2000), tmp_path / "f")) == 2


def test_the_estimate_of_space_is_near_the_truth(real_videos: Path, tmp_path: Path) -> None:
    with VideoReader(real_videos / "01_dog.mp4") as video:
        paths = write_frames(video, tmp_path / "f", indices=range(0, 60, 10))
        per_pixel = np.mean([path.stat().st_size for path in paths]) / (video.info.width * video.info.height)
        assert 0.1 < per_pixel < 0.3


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name.startswith(".00003"):
            original(self, data[:10])
            raise OSError(28, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SvacError, match="No space left") as caught:
        write_frames(flat_video(9), tmp_path / "f")
    assert caught.value.temporary
    assert not (tmp_path / "f" / "00003.jpg").exists()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(SvacError, match="cannot be written"):
        write_frames(flat_video(2), tmp_path / "f")


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_bad_quality(tmp_path: Path, quality: int) -> None:
    with pytest.raises(SvacError, match="JPEG quality"):
        write_frames(flat_video(2), tmp_path / "f", quality=quality)


@pytest.mark.parametrize("indices", [[2], [-1], [1, 0]])
def test_bad_indices_make_no_folder(tmp_path: Path, indices: list[int]) -> None:
    with pytest.raises(SvacError):
        write_frames(flat_video(2), tmp_path / "f", indices=indices)
    assert not (tmp_path / "f").exists()


def test_too_wide_for_jpeg(tmp_path: Path) -> None:
    wide = ArrayVideo(np.zeros((1, 1, 65536, 3), np.uint8))
    with pytest.raises(SvacError, match="too large for JPEG"):
        write_frames(wide, tmp_path / "f")


def test_manifest_names_source_and_quality(tmp_path: Path) -> None:
    video = flat_video(2)
    write_frames(video, tmp_path, quality=77)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest == {"format": "svac-frames-1", "source": video.fingerprint, "quality": 77}


def test_names() -> None:
    assert [frame_name(i) for i in (0, 12, 99999, 100000)] == [
        "00000.jpg",
        "00012.jpg",
        "99999.jpg",
        "100000.jpg",
    ]
