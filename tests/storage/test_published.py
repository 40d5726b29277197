"""Content in a bucket appears whole or not at all, comes back as it was, and says what is wrong when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from svac_backend.errors import SvacError
from svac_backend.storage import cache, published
from svac_backend.storage.bucket import Bucket
from svac_backend.storage.cache import RECORD, files_of, held
from svac_backend.storage.folder import Kind, NotStored, Storage, Stored
from svac_backend.storage.published import BucketStorage, open_storage
from tests.storage.conftest import URL, machine, settings_of
from tests.storage.server import KEY, NAME, SECRET, FaultyProxy, forget

TASK = "project-1/task-7"
FRAMES = {"00000.jpg": b"a" * 3000, "00001.jpg": b"b" * 3000, "in a folder/é.json": b"{}"}


def write(storage: Storage, files: dict[str, bytes], kind: Kind = Kind.FRAMES, name: str = TASK) -> Path:
    folder = storage.folder(kind, name)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def publish(storage: Storage, files: dict[str, bytes], kind: Kind = Kind.FRAMES, name: str = TASK) -> Path:
    folder = write(storage, files, kind, name)
    storage.publish(kind, name)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in files_of(folder)}


def of_data(seen: list[tuple[str, str]], command: str) -> list[str]:
    return [path for verb, path in seen if verb == command and "/served/" in path and "manifests" not in path]


def test_another_machine_has_what_was_published_and_nothing_moves_twice(
    s3: FaultyProxy, here: BucketStorage, there: BucketStorage
) -> None:
    folder = write(here, {**FRAMES, ".hidden": b"x", "00002.jpg.part": b"x"})
    with pytest.raises(NotStored, match="served/project-1/task-7 is not in s3://masks"):
        there.fetch(Kind.FRAMES, TASK)
    assert not there.has(Kind.FRAMES, TASK)
    here.publish(Kind.FRAMES, TASK, without=["in a folder"])
    assert there.has(Kind.FRAMES, TASK)
    assert [one.name for one in there.entries(Kind.FRAMES)] == [TASK]
    two = {path: content for path, content in FRAMES.items() if "folder" not in path}
    assert read(there.fetch(Kind.FRAMES, TASK)) == two
    assert there.measure()[Kind.FRAMES] == (2, 6000)
    here.publish(Kind.FRAMES, TASK)
    assert read(there.fetch(Kind.FRAMES, TASK)) == FRAMES
    s3.seen.clear()
    here.publish(Kind.FRAMES, TASK)
    assert there.fetch(Kind.FRAMES, TASK) == there.folder(Kind.FRAMES, TASK)
    assert here.fetch(Kind.FRAMES, TASK) == folder
    assert of_data(s3.seen, "GET") == of_data(s3.seen, "PUT") == []
    here.delete(Kind.FRAMES, TASK)
    assert not folder.exists()
    assert here.measure()[Kind.FRAMES] == (0, 0)
    with pytest.raises(NotStored):
        there.fetch(Kind.FRAMES, TASK)


def test_a_half_written_entry_is_never_seen_and_is_swept_away(
    s3: FaultyProxy, here: BucketStorage, there: BucketStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(here, FRAMES)
    new = {**FRAMES, "00000.jpg": b"new", "00001.jpg": b"newer"}
    s3.fault = lambda verb, path: "403" if verb == "PUT" and path.endswith("00001.jpg") else None
    with pytest.raises(SvacError, match="may not be used with these credentials"):
        publish(here, new)
    s3.fault = lambda verb, path: None
    assert read(there.fetch(Kind.FRAMES, TASK)) == FRAMES
    assert here.measure()[Kind.FRAMES][0] == len(FRAMES) + 1
    assert here.sweep() == 0  # what is on its way now may be needed in a moment
    monkeypatch.setattr(published, "days_ago", lambda days: time.time() + 60)
    assert here.sweep() == 1
    here.publish(Kind.FRAMES, TASK)
    assert read(there.fetch(Kind.FRAMES, TASK)) == new
    assert here.sweep() == 2
    assert read(machine(there.root.parent / "third").fetch(Kind.FRAMES, TASK)) == new


def test_slow_lost_and_busy_stores_are_waited_for(
    s3: FaultyProxy, here: BucketStorage, there: BucketStorage
) -> None:
    wrong = iter(["503", "lost", "slow"])
    s3.fault = lambda verb, path: next(wrong, None) if "/served/" in path else None
    publish(here, FRAMES)
    wrong = iter(["cut", "lost", "503", "slow", "flip"])
    assert read(there.fetch(Kind.FRAMES, TASK)) == FRAMES
    assert next(wrong, None) is None


def test_what_keeps_coming_damaged_is_not_taken(
    s3: FaultyProxy, here: BucketStorage, there: BucketStorage
) -> None:
    publish(here, FRAMES)
    s3.fault = lambda verb, path: "flip" if path.endswith("00001.jpg") else None
    with pytest.raises(SvacError, match=r"00001.jpg arrives damaged from s3://masks") as error:
        there.fetch(Kind.FRAMES, TASK)
    assert error.value.temporary
    assert "00001.jpg" not in read(there.folder(Kind.FRAMES, TASK))
    assert not list(there.root.rglob("*.part"))


def test_errors_name_what_to_mend_never_a_secret_and_time_mends_them(
    s3: FaultyProxy, here: BucketStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(here, FRAMES)
    said = []
    for fault, expected in (
        ("403", "not be used with these credentials ("),
        ("503", "does not answer as it"),
    ):
        s3.fault = lambda verb, path, fault=fault: fault  # type: ignore[misc]
        with pytest.raises(SvacError) as error:
            here.publish(Kind.FRAMES, TASK)
        assert expected in error.value.message
        assert error.value.temporary
        said.append(str(error.value))
        said.append(str(here.problem()))
    s3.fault = lambda verb, path: None
    missing = BucketStorage(Bucket("s3://no-such-bucket"), here.cache)
    with pytest.raises(SvacError, match="There is no bucket for s3://no-such-bucket") as error:
        missing.publish(Kind.FRAMES, TASK)
    assert error.value.temporary
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget()
    said.append(str(machine(here.root).problem()))
    assert "may not be used with these credentials (NoCredentialsError)" in said[-1]
    assert not any(secret in text for text in (*said, caplog.text) for secret in (KEY, SECRET))


def test_a_damaged_copy_is_fetched_again_and_only_it(
    s3: FaultyProxy, here: BucketStorage, there: BucketStorage
) -> None:
    publish(here, FRAMES)
    folder = there.fetch(Kind.FRAMES, TASK)
    frame = folder / "00000.jpg"
    then = frame.stat()
    frame.write_bytes(b"x" * 3000)
    s3.seen.clear()
    assert read(there.fetch(Kind.FRAMES, TASK)) == FRAMES
    assert len(of_data(s3.seen, "GET")) == 1
    frame.write_bytes(b"x" * 3000)
    os.utime(frame, ns=(then.st_atime_ns, there.cache.record(Kind.FRAMES, TASK)["00000.jpg"].changed))
    assert read(there.fetch(Kind.FRAMES, TASK)) != FRAMES  # nothing tells; only its bytes do
    assert read(there.fetch(Kind.FRAMES, TASK, verify=True)) == FRAMES
    (folder / RECORD).write_text("damaged")
    assert read(there.fetch(Kind.FRAMES, TASK)) == FRAMES


def test_a_store_that_is_away_leaves_what_is_here(
    s3: FaultyProxy, here: BucketStorage, there: BucketStorage
) -> None:
    publish(here, FRAMES)
    there.fetch(Kind.FRAMES, TASK)
    s3.fault = lambda verb, path: "403"
    assert read(there.fetch(Kind.FRAMES, TASK)) == FRAMES
    (there.folder(Kind.FRAMES, TASK) / "00000.jpg").unlink()
    with pytest.raises(SvacError, match="credentials"):
        there.fetch(Kind.FRAMES, TASK)


def test_one_file_comes_alone(s3: FaultyProxy, here: BucketStorage, there: BucketStorage) -> None:
    publish(here, FRAMES)
    path = there.fetch_file(Kind.FRAMES, TASK, "00001.jpg")
    assert path.read_bytes() == FRAMES["00001.jpg"]
    assert list(read(path.parent)) == ["00001.jpg"]
    s3.seen.clear()
    assert there.fetch_file(Kind.FRAMES, TASK, "00001.jpg") == path
    assert s3.seen == []
    with pytest.raises(NotStored):
        there.fetch_file(Kind.FRAMES, TASK, "00009.jpg")
    assert read(there.fetch(Kind.FRAMES, TASK)) == FRAMES


def test_copies_used_last_stay_within_the_limit_and_those_in_use_whatever_it_is(
    s3: FaultyProxy, here: BucketStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "GRACE_S", 0.0)
    for number in range(4):
        publish(here, {"video.mp4": bytes([number]) * 1000}, Kind.MEDIA, f"v{number}")
    there = machine(tmp_path / "there", limit=2500)

    def copies() -> list[str]:
        return sorted(path.parent.name for path in there.root.glob(f"media/*/{RECORD}"))

    with held():
        there.fetch(Kind.MEDIA, "v0")
        time.sleep(0.02)
        there.fetch(Kind.MEDIA, "v1")
        time.sleep(0.02)
        there.fetch(Kind.MEDIA, "v2")
        assert copies() == ["v0", "v1", "v2"]  # a job holds them
    own = write(there, {"video.mp4": b"mine"}, Kind.MEDIA, "not published")
    there.fetch(Kind.MEDIA, "v0")  # used again: v1 goes first
    time.sleep(0.02)
    there.fetch(Kind.MEDIA, "v3")
    assert copies() == ["v0", "v3"]
    assert own.is_dir()
    with there.cache.locked(Kind.MEDIA, "v0"):
        there.cache.shrink(2000)  # what is being fetched is let be, and not waited for
    assert copies() == ["v0"]
    there.fetch(Kind.MEDIA, "v3")
    (there.folder(Kind.MEDIA, "v0") / "new.json").write_text("not published")
    there.fetch(Kind.MEDIA, "v2")
    assert copies() == ["v0", "v2"]


def test_two_processes_that_publish_and_read_the_same_agree(
    s3: FaultyProxy, here: BucketStorage, tmp_path: Path
) -> None:
    """Three processes, two of them on one machine, publish one task again and again, and read it."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from svac_backend.storage.folder import Kind\n"
        "from tests.storage.conftest import machine\n"
        "from tests.storage.test_published import FRAMES, TASK, publish, read\n"
        "one = machine(Path(sys.argv[1]))\n"
        "for turn in range(2):\n"
        "    publish(one, FRAMES)\n"
        "    assert read(one.fetch(Kind.FRAMES, TASK, verify=True)) == FRAMES\n"
    )
    folders = [tmp_path / "a", tmp_path / "a", tmp_path / "b"]
    command = [sys.executable, "-c", script]
    started = [subprocess.Popen([*command, str(folder)], stderr=subprocess.PIPE) for folder in folders]
    for process in started:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()
    assert read(here.fetch(Kind.FRAMES, TASK)) == FRAMES
    assert here.measure()[Kind.FRAMES] == (3, 6002)


def test_a_folder_that_changes_while_it_is_stored_is_stored_as_it_was_at_some_moment(
    s3: FaultyProxy, here: BucketStorage, there: BucketStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training writes on: what was published can be read, and its hashes are true."""
    run = write(here, {"log.txt": b"line\n", "step-1/w": b"1" * 500}, Kind.RUNS, "job")
    ended = threading.Event()

    def train() -> None:
        while not ended.is_set():
            with (run / "log.txt").open("ab") as log:
                log.write(b"line\n")
            time.sleep(0.005)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        here.publish(Kind.RUNS, "job")
        monkeypatch.setattr(
            published, "SMALL", 1
        )  # what is too large to be held in memory waits for its moment
        with pytest.raises(SvacError, match="changes while it is stored") as error:
            here.publish(Kind.RUNS, "job")
        assert error.value.temporary
    finally:
        ended.set()
        thread.join()
    found = read(there.fetch(Kind.RUNS, "job"))
    assert found["step-1/w"] == b"1" * 500
    assert (run / "log.txt").read_bytes().startswith(found["log.txt"])


def test_notes_and_links(s3: FaultyProxy, here: BucketStorage, there: BucketStorage) -> None:
    import httpx

    publish(here, FRAMES)
    here.write_note(Kind.FRAMES, TASK, "links.json", b"1")
    here.write_note(Kind.FRAMES, TASK, "links.json", b"2")
    assert list(there.notes(Kind.FRAMES, "links.json")) == [(TASK, b"2")]
    assert list(there.notes(Kind.FRAMES, "other.json")) == []
    link = there.link(Kind.FRAMES, TASK, "00001.jpg", 30 * 86_400)
    assert link is not None
    assert "Expires=604800" in link
    assert SECRET not in link
    answer = httpx.get(link)
    assert (answer.content, answer.headers["content-type"]) == (FRAMES["00001.jpg"], "image/jpeg")
    here.delete(Kind.FRAMES, TASK)
    assert list(there.notes(Kind.FRAMES, "links.json")) == []


def test_the_first_secret_is_everybodys(s3: FaultyProxy, here: BucketStorage) -> None:
    assert here.bucket.create("keys/one", b"first") == b"first"
    assert Bucket(URL).create("keys/one", b"second") == b"first"


def test_a_folder_is_its_own_storage(tmp_path: Path) -> None:
    data = open_storage(settings_of(tmp_path / "data", None))
    shared = open_storage(settings_of(tmp_path / "data", str(tmp_path / "shared")))
    assert (data.root, shared.root) == (tmp_path / "data", tmp_path / "shared")
    for storage in (data, shared):
        assert not storage.remote
        folder = publish(storage, FRAMES)
        assert storage.fetch(Kind.FRAMES, TASK) == folder == storage.root / "served" / TASK
        assert read(folder) == FRAMES
        assert storage.fetch_file(Kind.FRAMES, TASK, "00000.jpg") == folder / "00000.jpg"
        assert storage.entries(Kind.FRAMES) == [Stored(TASK, folder.stat().st_mtime)]
        assert storage.measure()[Kind.FRAMES] == (3, 6002)
        storage.write_note(Kind.FRAMES, TASK, "links.json", b"1")
        assert list(storage.notes(Kind.FRAMES, "links.json")) == [(TASK, b"1")]
        assert storage.link(Kind.FRAMES, TASK, "00000.jpg", 1.0) is None
        storage.delete(Kind.FRAMES, TASK)
        assert not storage.has(Kind.FRAMES, TASK)
        with pytest.raises(NotStored, match="SVAC_STORAGE_URL"):
            storage.fetch(Kind.FRAMES, TASK)


@pytest.mark.parametrize("name", ["", "a", "../a", "a/..", "a/.b", "a/b/c", "/a"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(SvacError, match="not the name of an entry"):
        Storage(tmp_path).folder(Kind.FRAMES, name)


@pytest.mark.parametrize(
    "url",
    ["s3://", "ftp://a/b", "s3://key:secret@bucket", "s3://bucket/a?x=1", "https://bucket/a", "s3:///a"],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        settings_of(Path("data"), url)
    assert settings_of(Path("data"), f"s3://{NAME}/a/").storage_url == f"s3://{NAME}/a"
