"""Two machines with data folders of their own, one database and one bucket: what one has made the other uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from werkzeug.test import TestResponse

from svac_backend.cli.doctor.machine import check_storage
from svac_backend.cli.storage import run_backup, run_publish, run_restore, run_storage
from svac_backend.errors import SvacError
from svac_backend.jobs.frames import frame_place, frames_way
from svac_backend.jobs.renew import due_tasks, renew
from svac_backend.jobs.retention import measure
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.media import MediaFetcher
from svac_backend.learning.freeze import CACHE, open_run
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind
from svac_backend.storage.published import open_storage
from svac_backend.store.database import Database
from svac_backend.store.links import MediaLinks
from svac_backend.store.versions import Version, VersionState
from svac_backend.svac.files.adapters import WEIGHTS
from svac_backend.versions import Registry
from tests.jobs.conftest import label_studio
from tests.learning.adapter_folders import adapter_folder
from tests.storage.conftest import URL
from tests.storage.server import SECRET, FaultyProxy, VideoHost

__all__ = ["label_studio"]


def settings(folder: Path, **changes: Any) -> Settings:
    given = {"storage_url": URL, "media_hosts": "*,127.0.0.1", **changes}
    return Settings(_env_file=None, data_dir=folder, **given)


@pytest.fixture
def one(s3: FaultyProxy, tmp_path: Path) -> Settings:
    return settings(tmp_path / "one")


@pytest.fixture
def two(s3: FaultyProxy, tmp_path: Path) -> Settings:
    return settings(tmp_path / "two")


@pytest.fixture
def database(one: Settings) -> Iterator[Database]:
    with closing(Database.from_settings(one)) as found:
        yield found


def promote(one: Settings, database: Database, folder: Path) -> Version:
    registry = Registry(one, database)
    adapter_folder(folder, b"weights")
    return registry.publish(folder, base=registry.base, promote=True, reason="better")


def test_a_version_that_one_promoted_the_other_serves(
    s3: FaultyProxy, one: Settings, two: Settings, database: Database, tmp_path: Path
) -> None:
    version = promote(one, database, tmp_path / "run")
    registry = Registry(two, database)
    assert registry.name() == version.name
    assert not registry.folder(version).exists()  # who only asks for the name need not have it
    s3.fault = lambda verb, path: "403"
    with pytest.raises(SvacError, match="credentials") as error:
        Registry(two, database).serving(verify=True)
    assert error.value.temporary
    assert (
        registry.store.find(version.id).state is VersionState.PROMOTED
    )  # a store that is away damages nothing
    s3.fault = lambda verb, path: None
    assert registry.serving(verify=True) == registry.store.find(version.id)
    weights = registry.folder(version) / WEIGHTS
    assert weights.read_bytes() == b"weights"
    weights.write_bytes(b"damaged")
    assert registry.serving(verify=True) is not None
    assert weights.read_bytes() == b"weights"
    registry.roll_back()
    registry.delete(version.id)
    assert not open_storage(one).has(Kind.VERSIONS, version.id)


def ask(settings: Settings, url: str) -> TestResponse:
    parts = urlsplit(url)
    return create_app(settings).test_client().get(f"{parts.path}?{parts.query}")


@pytest.mark.parametrize("way", ["store", "backend"])
def test_frames_that_one_cut_browsers_get_from_the_store_or_from_the_other(
    s3: FaultyProxy, one: Settings, two: Settings, label_studio: Any, way: str
) -> None:
    changes: dict[str, Any] = {"frames_via": way, "media_url": "https://masks.example"}
    one, two = one.model_copy(update=changes), two.model_copy(update=changes)
    assert frames_way(one) == way
    label_studio.tasks[7] = {"video": "/v.mp4"}
    client = LabelStudioClient(label_studio.url, "ab" * 20)
    place = frame_place(one)
    file = place.folder("38", 7) / "00000.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a frame")
    place.add(client, "38", 7, "frames", [file], {})
    (url,) = label_studio.tasks[7]["frames"]
    assert SECRET not in url
    answer = httpx.get(url) if way == "store" else ask(two, url)
    content = answer.content if isinstance(answer, httpx.Response) else answer.data
    assert (answer.status_code, content) == (200, b"a frame")
    links, storage = MediaLinks.of_frames(two), open_storage(two)
    assert due_tasks(links, storage) == []
    (task,) = due_tasks(links, storage, every=True)
    assert renew([task], links, lambda _: client, storage=storage).renewed == 1
    (fresh,) = label_studio.tasks[7]["frames"]
    assert fresh.split("?")[0] == url.split("?")[0]
    if way == "backend":
        assert ask(two, url.replace("00000", "00001")).status_code == 403
        gone = links.url(links.root / "project-38" / "task-7" / "00009.jpg")
        assert ask(two, gone).status_code == 404


def test_what_one_downloaded_the_other_has_from_the_store(
    s3: FaultyProxy, one: Settings, two: Settings
) -> None:
    videos = VideoHost(b"v" * 100_000)
    try:
        first = MediaFetcher.from_settings(one, None).fetch(videos.url)
        s3.seen.clear()
        second = MediaFetcher.from_settings(two, None).fetch(videos.url)
        assert second.read_bytes() == first.read_bytes() == b"v" * 100_000
        assert second.is_relative_to(two.data_dir)
        carried = [verb for verb, path in s3.seen if "/pre%20fix/media/" in path]
        assert "GET" in carried
        assert "PUT" not in carried, "what it has, it need not store"
        s3.fault = lambda verb, path: "403"  # without the store everyone downloads by themselves
        other = two.model_copy(update={"data_dir": two.data_dir.parent / "three"})
        assert MediaFetcher.from_settings(other, None).fetch(videos.url).read_bytes() == b"v" * 100_000
    finally:
        videos.stop()


def test_a_run_goes_on_where_its_last_checkpoint_was_stored(
    s3: FaultyProxy, one: Settings, two: Settings, database: Database
) -> None:
    run = open_run(one, database, "job")
    for name in ("checkpoints/step-000050/w", "cache/clip"):
        (run.out / name).parent.mkdir(parents=True)
        (run.out / name).write_bytes(b"50")
    open_storage(one).publish(Kind.RUNS, "job", without=[CACHE])
    again = open_run(two, database, "job")
    assert (again.out / "checkpoints/step-000050/w").read_bytes() == b"50"
    assert not (again.out / "cache").exists()
    assert (again.folder, again.base) == (two.data_dir.absolute() / "training" / "job", run.base)


def test_it_is_said_what_the_storage_holds_and_whether_it_can_be_used(
    s3: FaultyProxy,
    one: Settings,
    database: Database,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = one.model_copy(update={"storage_url": None})
    version = promote(alone, database, tmp_path / "run")
    run_publish(one)
    assert Registry(one, database).serving(verify=True) is not None
    found = measure(one, database)
    assert found["versions"][0] == 2
    assert found["copies of the storage here"][0] >= 2
    run_storage(one)
    assert check_storage(one).detail == f"{URL} can be written and read; frames by links of its own"
    database.close()
    run_backup(one, tmp_path / "backup.tar")
    said = "".join(capsys.readouterr()).replace("\n", " ")
    assert "Not in it: what lies in s3://" in said
    open_storage(one).delete(Kind.VERSIONS, version.id)
    run_restore(one, tmp_path / "backup.tar")
    assert f"lacks the versions {version.name}" in "".join(capsys.readouterr()).replace("\n", " ")
    s3.fault = lambda verb, path: "403"
    open_storage(one)._probed = (-1e9, None)  # type: ignore[attr-defined]
    assert "may not be used with these credentials" in check_storage(one).detail
    with pytest.raises(SvacError, match="names no bucket"):
        run_publish(alone)
