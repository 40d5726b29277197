"""A file or folder is there whole, or as it was before."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from svac_backend.atomic import atomic_path, atomic_write


def test_a_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_write(path, "first")
    atomic_write(path, b"second")
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def fail(path: Path, folder: str = "") -> None:
    """Write half of something, then raise a TypeError."""
    with atomic_path(path) as part:
        if folder:
            part = part / folder
            part.mkdir(parents=True)
            part = part / "file"
        part.write_text("half")
        part.write_text(None)  # type: ignore[arg-type]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_write(path, "first")
    with pytest.raises(TypeError):
        fail(path)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        fail(tmp_path / "out", "deep")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_must_find_its_place_empty(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with atomic_path(tmp_path / "out") as part:
        part.mkdir()
        (part / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    with pytest.raises(OSError), atomic_path(tmp_path / "out") as part:  # noqa: PT011
        part.mkdir()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    atomic_write(tmp_path / "token", "secret", mode=0o600, durable=True)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_threads_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a"
    texts = [letter * 200_000 for letter in "abcd"]
    threads = [threading.Thread(target=atomic_write, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]
