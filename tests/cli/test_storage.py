"""Backups that are whole and come back; links renewed by hand, and frames of deleted tasks deleted, nothing else."""

from __future__ import annotations

import stat
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from lab.postgresql import PostgresServer
from pydantic import SecretStr

from svac_backend.cli.storage import run_backup, run_clean, run_renew, run_restore
from svac_backend.errors import SvacError
from svac_backend.jobs.renew import LinkedTask, remember
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.jobs import JobStore
from svac_backend.store.links import MediaLinks
from svac_backend.store.workers import WorkerStore
from tests.databases import PARAMETERS
from tests.jobs.conftest import label_studio

__all__ = ["label_studio"]


@pytest.fixture
def ours(settings: Settings, label_studio: Any) -> Settings:
    """Settings with two tasks in Label Studio and one that was deleted there, all with links to frames."""
    changes = {
        "label_studio_url": label_studio.url,
        "label_studio_api_key": SecretStr("ab" * 20),
        "media_url": "https://masks.example",
    }
    one = settings.model_copy(update=changes)
    links = MediaLinks.from_settings(one)
    for task in (7, 8, 9):
        folder = links.root / "project-38" / f"task-{task}"
        folder.mkdir(parents=True)
        (folder / "00000.jpg").write_bytes(b"x" * 1_000_000)
        if task != 9:
            label_studio.tasks[task] = {"frames": [links.url(folder / "00000.jpg")]}
        remember(LinkedTask(folder, "38", task, "frames"), links.clock(), links.identity)
    return one


def test_renew(ours: Settings, label_studio: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_renew(ours)
    assert "the links of 3 tasks are new enough" in "".join(capsys.readouterr())
    moved = ours.model_copy(update={"media_url": "https://moved.example"})
    run_renew(moved)
    assert "Links of 2 tasks renewed, 1 deleted in Label Studio" in "".join(capsys.readouterr())
    assert label_studio.tasks[7]["frames"][0].startswith("https://moved.example/media/project-38/task-7/")
    run_renew(moved, every=True)
    assert "Links of 2 tasks renewed" in "".join(capsys.readouterr())
    with pytest.raises(SvacError, match="SVAC_MEDIA_URL is not set"):
        run_renew(ours.model_copy(update={"media_url": None}))


def test_clean(
    ours: Settings,
    label_studio: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = MediaLinks.from_settings(ours).root / "project-38"
    monkeypatch.setattr(typer, "confirm", lambda text: False)
    run_clean(ours)
    assert "Nothing was deleted." in "".join(capsys.readouterr())
    assert (folders / "task-9").is_dir()
    monkeypatch.setattr(typer, "confirm", lambda text: "(1.0 MB)" in text)
    run_clean(ours)
    printed = "".join(capsys.readouterr())
    assert "as project/task: 38/9" in printed
    assert "The frames of 1 task are deleted" in printed
    assert sorted(path.name for path in folders.iterdir()) == ["task-7", "task-8"]
    run_clean(ours, yes=True)
    assert "Nothing to delete" in "".join(capsys.readouterr())
    away = ours.model_copy(update={"label_studio_url": "http://127.0.0.1:9"})
    with pytest.raises(SvacError, match="cannot be reached"):
        run_clean(away, yes=True)
    assert (folders / "task-7").is_dir()


def on_server(settings: Settings, server: PostgresServer) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(server.new_database())})


@pytest.fixture(params=PARAMETERS)
def filled(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """A data folder with something of each kind; the database on a server, too."""
    folder = settings.data_dir
    if request.param == "postgresql":
        settings = on_server(settings, request.getfixturevalue("postgresql"))
    database = Database.from_settings(settings)
    EventStore(database).add("FIRST", "38", b"{}")
    database.close()
    MediaLinks.from_settings(settings)
    for name in (
        "versions/3fa9c1d2/adapter.safetensors",
        "versions/.7b.part/adapter.safetensors",
        "training/job1/data.bin",
        "served/project-38/task-7/00000.jpg",
        "media/0123.mp4",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    return settings


def content(folder: Path) -> dict[str, bytes]:
    """All files but the database's and what is no part of a backup."""
    return {
        name: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not (name := path.relative_to(folder).as_posix()).startswith(("svac.db", "before-", "media/"))
        and ".part/" not in name
    }


def test_a_backup_of_a_running_service_is_whole_and_comes_back(
    filled: Settings, tmp_path: Path, postgresql: PostgresServer
) -> None:
    """A writer adds a webhook and its job in one transaction each; the copy has all of some moment."""
    database = Database.from_settings(filled)
    stop = threading.Event()

    def write() -> None:
        events, jobs = EventStore(database), JobStore(database)
        while not stop.is_set():
            number = events.add("WRITE", "38", b"{}" * 5000)
            jobs.submit("prelabel", {"event": number}, f"k{number}")

    writer = threading.Thread(target=write)
    writer.start()
    file = tmp_path / "backup.tar"
    try:
        time.sleep(0.3)
        run_backup(filled, file)
    finally:
        stop.set()
        writer.join()
    written = EventStore(database).counts()["WRITE"]
    database.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert "media/0123.mp4" not in names
    assert not [name for name in names if ".part" in name]

    before = content(filled.data_dir)
    elsewhere = filled.model_copy(update={"data_dir": tmp_path / "elsewhere", "database_url": None})
    # A backup of either comes back on either: so one moves from one to the other.
    for into in (elsewhere, on_server(elsewhere, postgresql), filled):
        run_restore(into, file)
        assert content(into.data_dir) == before
        assert stat.S_IMODE(into.data_dir.stat().st_mode) == 0o700
        if into.database_url is None:
            assert stat.S_IMODE((into.data_dir / "svac.db").stat().st_mode) == 0o600
        else:
            assert not (into.data_dir / "svac.db").exists()
        again = Database.from_settings(into)
        events, jobs = EventStore(again).counts(), JobStore(again).find(limit=100_000)
        assert events["FIRST"] == 1
        assert 0 < events["WRITE"] <= written
        assert events["WRITE"] - len(jobs) in (0, 1)
        again.close()
    (kept,) = filled.data_dir.glob("before-restore-*")
    assert EventStore(Database(kept)).counts()["WRITE"] == written  # what was there is not lost
    assert (kept / "media.key").is_file()


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_a_damaged_database_is_replaced_by_its_backup(filled: Settings, tmp_path: Path) -> None:
    run_backup(filled, tmp_path / "backup.tar")
    (filled.data_dir / "svac.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(SvacError, match="cannot be used") as caught:
        Database.from_settings(filled)
    assert "restore FILE" in caught.value.hint
    run_restore(filled, tmp_path / "backup.tar")
    assert EventStore(Database.from_settings(filled)).counts() == {"FIRST": 1}


def test_a_backup_that_is_not_whole_changes_nothing(filled: Settings, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    run_backup(filled, file)
    whole, before = file.read_bytes(), content(filled.data_dir)
    at = whole.index(b"training/job1/data.bintraining")
    for damaged in (
        b"",
        whole[:2000],
        whole[: len(whole) // 2],
        whole[:at] + b"X" + whole[at + 1 :],
        b"no tar" * 900,
    ):
        file.write_bytes(damaged)
        with pytest.raises(SvacError, match="not a complete backup"):
            run_restore(filled, file)
    assert content(filled.data_dir) == before
    assert not list(filled.data_dir.glob("before-*"))
    assert EventStore(Database.from_settings(filled)).counts() == {"FIRST": 1}


def test_a_folder_that_is_in_use_is_not_restored(filled: Settings, tmp_path: Path) -> None:
    run_backup(filled, tmp_path / "backup.tar")
    database = Database.from_settings(filled)
    assert EventStore(database).counts()  # an idle connection stays open, as a web process has one
    with pytest.raises(SvacError, match="still uses"):
        run_restore(filled, tmp_path / "backup.tar")
    database.close()
    workers = WorkerStore(database)
    workers.hold("w")
    with pytest.raises(SvacError, match="still uses"):
        run_restore(filled, tmp_path / "backup.tar")
    assert not list(filled.data_dir.glob("before-*"))


def test_a_backup_needs_data_and_room(settings: Settings, filled: Settings, tmp_path: Path) -> None:
    nothing = settings.model_copy(update={"data_dir": tmp_path / "nothing"})
    with pytest.raises(SvacError, match="There is no data"):
        run_backup(nothing, tmp_path / "backup.tar")
    with pytest.raises(SvacError, match="cannot be written"):
        run_backup(filled, tmp_path / "no folder" / "backup.tar")
