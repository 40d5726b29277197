"""Frames by the backend's own /media, and videos in a cloud, with a real Label Studio; only the model is a stand-in."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from lab.label_studio import create_tasks, retrieve_predictions, upload_file
from pydantic import SecretStr
from werkzeug.serving import make_server

from svac_backend.cli.doctor.finding import Status
from svac_backend.cli.doctor.label_studio import check_media
from svac_backend.jobs.engine import JobState
from svac_backend.jobs.renew import due_tasks, gone_tasks, linked_tasks, renew
from svac_backend.jobs.services import Services
from svac_backend.jobs.worker import create_worker
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.quickstart.processes import choose_port
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.links import DAY_S, KEY_FILE, MediaLinks
from tests.integration.label_studio import label_studio, personal_access_token
from tests.jobs.conftest import FRAMES, SquareModel, write_clip
from tests.server.buckets import BUCKET, bucket

__all__ = ["label_studio"]

pytestmark = pytest.mark.integration

BRUSH = (Path(__file__).parents[2] / "labelstudio_config" / "brush_frames.xml").read_text()


@dataclass
class Connected:
    """A project whose backend is ours, which has no folder in common with Label Studio."""

    client: LabelStudioClient
    backend: Services
    project: int
    clip: Path

    def predict(self) -> None:
        """Have Label Studio ask for predictions, and wait until all is done."""
        retrieve_predictions(self.client, self.project)
        self.idle()
        failed = [(job.kind, job.error) for job in self.backend.engine.find(states=(JobState.FAILED,))]
        assert failed == []

    def idle(self) -> None:
        """Wait until no job waits or runs."""
        deadline = time.monotonic() + 60
        while self.backend.engine.find(states=(JobState.QUEUED, JobState.RUNNING)):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def load(self, url: str, **headers: str) -> httpx.Response:
        """Load a frame as a page of Label Studio does."""
        return httpx.get(url, headers={"Origin": self.client.url, **headers}, timeout=20)


@pytest.fixture
def connected(label_studio: LabelStudioServer, settings: Settings, tmp_path: Path) -> Iterator[Connected]:
    client = label_studio.client()
    write_clip(tmp_path / "clip.mp4")
    port = choose_port(33_000 + os.getpid() % 10_000)
    ours = settings.model_copy(
        update={
            "label_studio_url": label_studio.url,
            "label_studio_api_key": SecretStr(personal_access_token(label_studio)),
            "media_url": f"http://127.0.0.1:{port}",
            "max_body_mb": 50,
            "media_hosts": "127.0.0.1,s3://bucket",  # where the bucket is
        }
    )
    app = create_app(ours)
    backend: Services = app.extensions["svac"]
    web = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    worker, _ = create_worker(ours, Database.from_settings(ours), load=lambda _: SquareModel())  # type: ignore[arg-type,return-value]
    worker.start()
    project = client.create_project("test of the media", BRUSH)
    client.connect_ml_backend(project, f"http://127.0.0.1:{port}")
    yield Connected(client, backend, project, tmp_path / "clip.mp4")
    worker.stop()
    client.delete_project(project)
    web.shutdown()
    web.server_close()
    backend.database.close()


def test_an_uploaded_video_gets_frames_that_load(connected: Connected) -> None:
    client = connected.client
    video = upload_file(client, connected.project, connected.clip)
    task = client.create_task(connected.project, {"video": video, "prompt": "the square"})
    connected.predict()
    data = client.get_task(task)["data"]
    assert (data["video"], data["prompt"], data["fps"]) == (video, "the square", 10.0)
    assert len(data["frames"]) == FRAMES
    frames = [connected.load(url) for url in data["frames"]]
    assert {(frame.status_code, frame.headers["content-type"]) for frame in frames} == {(200, "image/jpeg")}
    assert {frame.headers["access-control-allow-origin"] for frame in frames} == {client.url}
    assert len({frame.content for frame in frames}) == FRAMES, "each is another one"
    part = connected.load(data["frames"][0], Range="bytes=0-1")
    assert (part.status_code, part.content) == (206, b"\xff\xd8")
    assert connected.load(data["frames"][0].replace("00000", "00001")).status_code == 403
    assert (
        "access-control-allow-origin"
        not in httpx.get(data["frames"][0], headers={"Origin": "http://x"}).headers
    )
    (found,) = check_media(connected.backend.settings, connected.backend.database)
    assert (found.status, client.url in found.detail) == (Status.OK, True), found
    (prediction,) = client.list_predictions(task)
    assert {region["item_index"] for region in prediction["result"]} == {1, 3, 5, 7, 9, 11}


@pytest.mark.parametrize("presign", [True, False])
def test_a_video_in_a_cloud_is_fetched_through_label_studio(connected: Connected, presign: bool) -> None:
    client, headers = connected.client, connected.client.authorization()
    with bucket() as cloud:
        cloud.objects["clips/clip.mp4"] = connected.clip.read_bytes()
        storage = {
            "project": connected.project,
            "title": "cloud",
            "bucket": BUCKET,
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "region_name": "us-east-1",
            "s3_endpoint": cloud.url,
            "presign": presign,
            "use_blob_urls": True,
        }
        made = httpx.post(f"{client.url}/api/storages/s3", json=storage, headers=headers, timeout=60)
        assert made.status_code == 201, made.text
        video = f"s3://{BUCKET}/clips/clip.mp4"
        task = client.create_task(connected.project, {"video": video, "prompt": "the square"})
        connected.predict()
        data = client.get_task(task)["data"]
        assert data["video"] == video, "it stays an address of the cloud"
        assert (len(data["frames"]), data["fps"]) == (FRAMES, 10.0)
        assert connected.load(data["frames"][3]).content[:2] == b"\xff\xd8"
        assert len(client.list_predictions(task)) == 1
        assert cloud.requests
        for path, sent in cloud.requests:
            signed = "Signature=" in path
            assert signed == presign, "Label Studio signs a link, or reads the file itself"
            with_key = sent.get("authorization", "").startswith("AWS4")
            assert with_key != signed, "and Label Studio's own token never leaves it"


def test_links_are_renewed_in_the_tasks_that_have_them(connected: Connected) -> None:
    client, settings = connected.client, connected.backend.settings
    video = upload_file(client, connected.project, connected.clip)
    tasks = create_tasks(
        client, connected.project, [{"video": video, "prompt": "the square", "n": n} for n in range(3)]
    )
    connected.predict()
    links = MediaLinks.from_settings(settings)
    assert [linked.task for linked in linked_tasks(links.root)] == tasks
    assert due_tasks(links) == []
    before = {task: client.get_task(task)["data"] for task in tasks}

    # Sixteen days later one task is deleted, and one has other frames.
    later = replace(links, clock=lambda: links.clock() + 16 * DAY_S)
    httpx.delete(f"{client.url}/api/tasks/{tasks[0]}/", headers=client.authorization(), timeout=20)
    client.update_task_data(tasks[1], {"frames": ["/elsewhere.jpg"]})
    access = LabelStudioAccess(settings, connected.backend.connections)
    assert [one.task for one in gone_tasks(links.root, access.client)] == [tasks[0]]
    done = renew(due_tasks(later), later, access.client)
    assert (done.renewed, [one.task for one in done.gone], done.others, done.refused) == (
        1,
        [tasks[0]],
        1,
        [],
    )
    assert due_tasks(later) == []
    data = client.get_task(tasks[2])["data"]
    assert {**data, "frames": None} == {**before[tasks[2]], "frames": None}
    old, new = before[tasks[2]]["frames"], data["frames"]
    assert [url.partition("?")[0] for url in new] == [url.partition("?")[0] for url in old]
    assert set(new).isdisjoint(old)
    assert connected.load(new[0]).status_code == 200
    assert client.get_task(tasks[1])["data"]["frames"] == ["/elsewhere.jpg"]
    assert len(client.list_predictions(tasks[2])) == 1

    # The worker does it by itself when it starts, here because the key was lost.
    (settings.data_dir / KEY_FILE).unlink()
    worker, _ = create_worker(settings, Database.from_settings(settings), load=lambda _: SquareModel())  # type: ignore[arg-type,return-value]
    worker.start()
    connected.idle()
    worker.stop()
    (job,) = connected.backend.engine.find(kind="renew")
    assert job.message.startswith("Links of 1 task renewed")
    assert MediaLinks.from_settings(settings).path_of(new[0]) is None, "the old key's links are dead"
    newest = client.get_task(tasks[2])["data"]["frames"]
    expected = links.root / f"project-{connected.project}" / f"task-{tasks[2]}" / "00000.jpg"
    assert MediaLinks.from_settings(settings).path_of(newest[0]) == expected
