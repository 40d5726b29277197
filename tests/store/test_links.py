"""Signed links: what was signed is served, for as long as it should be, and nothing else."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.store.links import DAY_S, KEY_FILE, LinkRefused, MediaLinks
from svac_backend.store.predictions import video_identity

NOW = 1_800_000_000.0


def make(data_dir: Path, **changes: object) -> MediaLinks:
    settings = Settings(_env_file=None, data_dir=data_dir, media_url="https://masks.example/svac/")
    return replace(MediaLinks.from_settings(settings), clock=lambda: NOW, **changes)


@pytest.fixture
def links(tmp_path: Path) -> MediaLinks:
    return make(tmp_path)


def split(url: str) -> tuple[str, str]:
    """The name and the token of a link, as the server sees them."""
    parts = urlsplit(url)
    return unquote(parts.path).partition("/media/")[2], parse_qs(parts.query)["signature"][0]


def test_a_link_names_its_file_and_lives_for_its_time(links: MediaLinks) -> None:
    path = links.root / "project-38" / "task-7" / "00003.jpg"
    url = links.url(path)
    assert url.startswith("https://masks.example/svac/media/project-38/task-7/00003.jpg?signature=")
    name, token = split(url)
    assert links.check(name, token) == 30 * DAY_S
    later = replace(links, clock=lambda: NOW + 29 * DAY_S)
    assert later.check(name, token) == DAY_S
    expired = replace(links, clock=lambda: NOW + 30 * DAY_S + 1)
    with pytest.raises(LinkRefused, match="has expired") as caught:
        expired.check(name, token)
    assert "media renew" in caught.value.hint
    assert replace(expired, lifetime_s=31 * DAY_S).check(name, token) == DAY_S - 1, "the setting counts"
    assert replace(links, clock=lambda: NOW - 5).check(name, token) == 30 * DAY_S, "a clock may be behind"
    assert expired.path_of(url) == path


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
            lambda part: part not in (".", "..")
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_name_comes_back(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    links = MediaLinks(Path("/data/served"), "http://host:9090", 60.0, b"0" * 64, clock=lambda: NOW)
    path = links.root.joinpath(*parts)
    url = links.url(path)
    assert url.isascii()
    assert links.path_of(url) == path
    name, token = split(url)
    assert links.check(name, token) == 60.0


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("project-38/task-7/00004.jpg", "{token}"),
        ("project-38/task-7/../task-7/00003.jpg", "{token}"),
        ("/project-38/task-7/00003.jpg", "{token}"),
        ("project-38/task-7/00003.jpg", ""),
        ("project-38/task-7/00003.jpg", "{token}x"),
        ("project-38/task-7/00003.jpg", "{token}."),
        ("project-38/task-7/00003.jpg", ".{token}"),
        ("project-38/task-7/00003.jpg", "AAAA.{signature}"),
        ("project-38/task-7/00003.jpg", "\ud800"),
        ("project-38/task-7/00003.jpg", "ü"),
        ("", "{token}"),
    ],
)
def test_what_was_not_signed_is_refused(links: MediaLinks, name: str, token: str) -> None:
    _, good = split(links.url(links.root / "project-38" / "task-7" / "00003.jpg"))
    with pytest.raises(LinkRefused, match="not valid"):
        links.check(name, token.format(token=good, signature=good.partition(".")[2]))


def test_another_key_signs_otherwise(links: MediaLinks, tmp_path: Path) -> None:
    name, token = split(links.url(links.root / "a.jpg"))
    other = make(tmp_path / "other")
    with pytest.raises(LinkRefused):
        other.check(name, token)
    assert links.identity != other.identity
    assert links.identity != replace(links, base_url="https://elsewhere.example").identity


@pytest.mark.parametrize(
    "url",
    [
        "https://masks.example/svac/media/a.jpg",
        "https://masks.example/svac/media/a.jpg?signature=x.y",
        "https://masks.example/svac/medial/a.jpg",
        "/data/upload/1/a.jpg",
        "s3://bucket/a.jpg",
        "",
    ],
)
def test_other_addresses_name_no_file(links: MediaLinks, url: str) -> None:
    assert links.path_of(url) is None
    assert replace(links, base_url="").path_of(url) is None


def test_only_files_of_the_folder_are_linked(links: MediaLinks) -> None:
    with pytest.raises(SvacError, match="is not below"):
        links.url(links.root.parent / "svac.db")


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    found: list[bytes] = []
    start = threading.Barrier(8)

    def read() -> None:
        start.wait()
        found.append(make(tmp_path / "data").key)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    file = tmp_path / "data" / KEY_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == [KEY_FILE]
    assert "".join(map(chr, found[0])) not in repr(make(tmp_path / "data"))


def test_a_damaged_key_is_said(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("")
    with pytest.raises(SvacError, match="is not a key") as caught:
        make(tmp_path)
    assert "Delete it" in caught.value.hint
    (tmp_path / KEY_FILE).unlink()
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(SvacError, match="cannot be used"):
        make(tmp_path)


def test_a_renewed_link_is_the_same_video(links: MediaLinks) -> None:
    path = links.root / "clip.mp4"
    old, new = links.url(path), replace(links, clock=lambda: NOW + DAY_S).url(path)
    assert old != new
    assert video_identity("", old) == video_identity("", new)
