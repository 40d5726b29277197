"""A user's videos: what they are called below the files root, and how they get there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.cli import inputs
from svac_backend.cli.inputs import SourceVideo, check_video, copy_video
from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.video.source import VideoInfo
from tests.cli.videos import FRAMES, HEIGHT, WIDTH, write_video

INFO = VideoInfo(64, 48, 8, 10.0, 0.8, 0, False, "h264")


def source(name: str) -> SourceVideo:
    return SourceVideo(Path(name), "0123456789abcdef", INFO)


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [
        ("dog.mp4", "dog-01234567", "dog.mp4"),
        ("a/My dög, 100%.MP4", "My_dög_100-01234567", "My_dög_100.mp4"),
        ("../---.mp4", "video-01234567", "video.mp4"),
        (".mp4", "mp4-01234567", "mp4"),
        (".hidden.mkv", "hidden-01234567", "hidden.mkv"),
        ("clip.tar.gz", "clip.tar-01234567", "clip.tar.gz"),
        ("x.m p4", "x-01234567", "x"),
    ],
)
def test_names(name: str, folder: str, file: str) -> None:
    assert (source(name).folder_name, source(name).file_name) == (folder, file)


@given(
    st.text(min_size=1).filter(lambda name: "/" not in name and "\0" not in name and name not in (".", ".."))
)
def test_any_name_becomes_one_that_is_harmless_in_a_path_and_an_address(name: str) -> None:
    for made in (source(name).folder_name, source(name).file_name):
        assert re.fullmatch(r"\w[\w.-]*", made)
        assert len(made.encode()) < 230


def test_a_video_is_looked_at_and_copied_once(settings: Settings, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    video = check_video(path, settings)
    assert (video.info.width, video.info.height, video.info.frame_count) == (WIDTH, HEIGHT, FRAMES)
    assert video.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    told: list[float] = []
    path.chmod(0o600)
    copy = copy_video(video, tmp_path / "to" / "there", told.append)
    assert copy.read_bytes() == path.read_bytes()
    assert told[-1] == 1.0
    assert copy.stat().st_mode & 0o777 == 0o644
    inode = copy.stat().st_ino
    assert copy_video(video, tmp_path / "to" / "there") == copy
    assert copy.stat().st_ino == inode
    copy.write_bytes(b"half of i")
    assert copy_video(video, tmp_path / "to" / "there").read_bytes() == path.read_bytes()
    assert [file.name for file in copy.parent.iterdir()] == [copy.name]


def test_a_video_that_changes_meanwhile_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    video = check_video(write_video(tmp_path / "v.mp4"), settings)
    write_video(tmp_path / "v.mp4", shade=50)
    with pytest.raises(SvacError, match="changed while it was imported"):
        copy_video(video, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_folder_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    video = check_video(write_video(tmp_path / "v.mp4"), settings)
    (tmp_path / "file").write_text("")
    with pytest.raises(SvacError, match=r"v\.mp4 cannot be copied"):
        copy_video(video, tmp_path / "file")
    with pytest.raises(SvacError, match="cannot be read"):
        inputs._digest(tmp_path / "missing")
    with pytest.raises(SvacError, match=r"gone\.mp4 cannot be copied"):
        copy_video(replace(video, path=tmp_path / "gone.mp4"), tmp_path / "to")
