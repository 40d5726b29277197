"""Where frames go and how the editor gets them: by Label Studio's local files, or by our own /media."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from svac_backend.errors import SvacError
from svac_backend.jobs.frames import LocalFiles, OwnMedia, frame_place, frames_way
from svac_backend.jobs.renew import linked_tasks
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.settings import Settings
from svac_backend.store.links import MediaLinks

ROOT, URL = Path("/files"), "https://masks.example"


def settings(data_dir: Path, **changes: Any) -> Settings:
    return Settings(_env_file=None, data_dir=data_dir, **changes)


@pytest.mark.parametrize(
    ("via", "root", "url", "way", "missing"),
    [
        ("auto", ROOT, None, "local-files", None),
        ("auto", ROOT, URL, "local-files", None),
        ("auto", None, URL, "backend", None),
        ("auto", None, None, None, "no place to put them"),
        ("local-files", ROOT, URL, "local-files", None),
        ("local-files", None, URL, None, "SVAC_LABEL_STUDIO_FILES_ROOT is not set"),
        ("backend", ROOT, URL, "backend", None),
        ("backend", ROOT, None, None, "SVAC_MEDIA_URL is not set"),
        ("backend", ROOT, " ", None, "SVAC_MEDIA_URL is not set"),
        ("auto", "", "", None, "no place to put them"),
        ("auto", " ", URL, "backend", None),
    ],
)
def test_which_way(
    tmp_path: Path, via: str, root: Path | str | None, url: str | None, way: str | None, missing: str | None
) -> None:
    given = settings(tmp_path, frames_via=via, label_studio_files_root=root, media_url=url)
    if missing is not None:
        with pytest.raises(SvacError, match=missing):
            frames_way(given)
        with pytest.raises(SvacError, match=missing):
            frame_place(given)
        return
    assert frames_way(given) == way
    assert isinstance(frame_place(given), LocalFiles if way == "local-files" else OwnMedia)


def test_neither_way_is_said_with_both(tmp_path: Path) -> None:
    with pytest.raises(SvacError) as caught:
        frames_way(settings(tmp_path))
    assert "SVAC_LABEL_STUDIO_FILES_ROOT" in caught.value.hint
    assert "SVAC_MEDIA_URL" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["masks.example", "ftp://masks.example", "http://", "http://[", "http://a/?b=c"]
)
def test_media_urls_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValidationError):
        settings(tmp_path, media_url=url)


@pytest.fixture
def client(label_studio: Any) -> LabelStudioClient:
    label_studio.tasks[7] = {"video": "/v.mp4", "other": 1}
    return LabelStudioClient(label_studio.url, "ab" * 20)


def test_local_files_are_granted_and_named(
    tmp_path: Path, client: LabelStudioClient, label_studio: Any
) -> None:
    place = LocalFiles(tmp_path)
    folder = place.folder("38", 7)
    assert folder == tmp_path / "svac-frames" / "project-38" / "task-7"
    place.add(client, "38", 7, "stills", [folder / "00000.jpg"], {"fps": 10.0})
    assert label_studio.tasks[7] == {
        "video": "/v.mp4",
        "other": 1,
        "stills": ["/data/local-files/?d=svac-frames/project-38/task-7/00000.jpg"],
        "fps": 10.0,
    }
    assert [storage["path"] for storage in label_studio.storages] == [str(folder.parent)]


def test_own_media_are_linked_and_remembered(
    tmp_path: Path, client: LabelStudioClient, label_studio: Any
) -> None:
    place = frame_place(settings(tmp_path, media_url=URL))
    assert isinstance(place, OwnMedia)
    folder = place.folder("38", 7)
    place.add(client, "38", 7, "stills", [folder / "00000.jpg", folder / "00001.jpg"], {"fps": 10.0})
    data = label_studio.tasks[7]
    assert (data["video"], data["other"], data["fps"]) == ("/v.mp4", 1, 10.0)
    assert [place.links.path_of(url) for url in data["stills"]] == [
        folder / "00000.jpg",
        folder / "00001.jpg",
    ]
    assert data["stills"][0].startswith(f"{URL}/media/project-38/task-7/00000.jpg?signature=")
    (linked,) = linked_tasks(place.links.root)
    assert (linked.folder, linked.project_id, linked.task, linked.key) == (folder, "38", 7, "stills")
    assert (linked.identity, linked.made > 0) == (place.links.identity, True)
    assert label_studio.storages == []
    with pytest.raises(SvacError, match="without its project"):
        place.add(client, "", 7, "stills", [folder / "00000.jpg"], {})


def test_links_that_may_not_have_arrived_are_remembered_as_due(
    tmp_path: Path, client: LabelStudioClient
) -> None:
    place = frame_place(settings(tmp_path, media_url=URL))
    assert isinstance(place, OwnMedia)
    with pytest.raises(SvacError, match="task 8"):
        place.add(client, "38", 8, "stills", [place.folder("38", 8) / "00000.jpg"], {})
    (linked,) = linked_tasks(place.links.root)
    assert (linked.task, linked.made) == (8, 0.0)


def test_the_worker_cuts_frames_for_our_own_media(
    settings_of_worker: Settings, run_frames: Any, label_studio: Any
) -> None:
    label_studio.tasks[7] = {"video": "/data/local-files/?d=clip.mp4", "prompt": "the dog"}
    job = run_frames({"video": "/data/local-files/?d=clip.mp4"})
    assert (job.error, job.message) == (None, "12 frames added to the task")
    data = label_studio.tasks[7]
    assert (len(data["frames"]), data["fps"], data["prompt"]) == (12, 10.0, "the dog")
    links = MediaLinks.from_settings(settings_of_worker)
    last = links.path_of(data["frames"][-1])
    assert last == links.root / "project-38" / "task-7" / "00011.jpg"
    assert last.read_bytes()[:2] == b"\xff\xd8"
    assert label_studio.storages == []
    assert not (settings_of_worker.label_studio_files_root or Path()).joinpath("svac-frames").exists()


def test_a_window_gets_its_own_frames(
    settings_of_worker: Settings, run_frames: Any, label_studio: Any
) -> None:
    window = {"start": 4, "count": 3, "stride": 2}
    data = {"video": "/data/local-files/?d=clip.mp4", "svac_window": window}
    label_studio.tasks[7] = data
    assert run_frames(data).message == "3 frames added to the task"
    names = [url.partition("?")[0].rpartition("/")[2] for url in label_studio.tasks[7]["frames"]]
    assert names == ["00004.jpg", "00006.jpg", "00008.jpg"]
    del label_studio.tasks[7]["frames"]
    label_studio.tasks[7]["svac_window"] = {**window, "count": 5}
    job = run_frames(data)
    assert job.error is not None
    assert "12" in job.error
    assert "frames" not in label_studio.tasks[7]


@pytest.fixture
def settings_of_worker(settings: Settings, label_studio: Any) -> Settings:
    return settings.model_copy(
        update={
            "label_studio_url": label_studio.url,
            "label_studio_api_key": SecretStr("ab" * 20),
            "frames_via": "backend",
            "media_url": URL,
        }
    )


@pytest.fixture
def run_frames(settings_of_worker: Settings, database: Any) -> Any:
    """Does a frames job for task 7 and returns the job at its end."""
    from svac_backend.jobs.engine import JobEngine
    from svac_backend.jobs.payloads import FramesPayload
    from svac_backend.jobs.worker import create_worker
    from tests.jobs.conftest import CONFIG

    engine = JobEngine(database)
    worker, _ = create_worker(settings_of_worker, database, load=lambda _: None)  # type: ignore[arg-type,return-value]
    worker.start()

    def run(data: dict[str, Any]) -> Any:
        payload = FramesPayload("38", "7", json.loads(json.dumps(data)), CONFIG, "", data["video"])
        return engine.wait(engine.submit("frames", payload.to_json(), payload.job_key()).id, timeout=30)

    yield run
    worker.stop()
