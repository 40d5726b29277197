"""The client, the media and the tasks against a real Label Studio."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from lab.label_studio import create_tasks, retrieve_predictions, upload_file

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.media import MediaFetcher
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import to_prediction, tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import build_task_data, local_files_url, task_prompts
from svac_backend.masks.rle import decode_brush, to_coco
from svac_backend.masks.tracks import Track
from tests.integration.label_studio import personal_access_token

CONFIGS = Path(__file__).parents[2] / "labelstudio_config"
BRUSH = (CONFIGS / "brush_frames.xml").read_text()


@pytest.fixture(scope="module")
def client(label_studio: LabelStudioServer) -> LabelStudioClient:
    return label_studio.client()


@pytest.fixture
def project(client: LabelStudioClient) -> Iterator[int]:
    number = client.create_project("test of the client", BRUSH)
    yield number
    client.delete_project(number)


def a_track() -> Track:
    mask = np.zeros((48, 64), dtype=bool)
    mask[4:20, 6:30] = True
    return Track("obj1", "object", "the box", {0: to_coco(mask), 3: to_coco(mask)}, {0: 0.9, 3: 0.7})


def test_both_kinds_of_token(label_studio: LabelStudioServer, client: LabelStudioClient) -> None:
    personal = LabelStudioClient(label_studio.url, personal_access_token(label_studio))
    assert (client.kind, personal.kind) == ("legacy", "personal")
    for one in (client, personal):
        assert one.whoami()["email"] == label_studio.username
        assert one.version().split(".")[0] == "1"
    assert personal.authorization()["Authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("token", "message", "hint"),
    [
        ("f" * 40, "does not accept the legacy token", "personal access token"),
        ("personal", "does not accept the personal access token", "revoked"),
    ],
)
def test_wrong_tokens(label_studio: LabelStudioServer, token: str, message: str, hint: str) -> None:
    if token == "personal":
        head, _, tail = personal_access_token(label_studio).rpartition(".")
        token = f"{head}.{tail[::-1]}"
    with pytest.raises(SvacError) as caught:
        LabelStudioClient(label_studio.url, token).whoami()
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert token not in str(caught.value)


@pytest.mark.parametrize("kind", ["brush", "polygon"])
def test_prediction_goes_there_and_comes_back(client: LabelStudioClient, kind: str) -> None:
    xml = (CONFIGS / f"{kind}_frames.xml").read_text()
    project = client.create_project(f"{kind} there and back", xml)
    config = parse_config(client.get_project(project)["label_config"])
    task = client.create_task(project, build_task_data("/data/v.mp4", [], 29.97, "the box", config=config))
    stored = client.get_task(task)["data"]
    assert [prompt.expression for prompt in task_prompts(stored, config, max_chars=50)] == ["the box"]
    client.update_task_data(task, {"frames": ["/data/0.jpg", "/data/1.jpg"]})
    assert client.get_task(task)["data"] == {
        "video": "/data/v.mp4",
        "fps": 29.97,
        "prompt": "the box",
        "frames": ["/data/0.jpg", "/data/1.jpg"],
    }
    results = tracks_to_results([a_track()], config.mask_control(), Canvas(64, 48))
    validate_results(results, config)
    sent_by = {"svac_job": "3fa9"}  # see LabelStudioAccess.push
    client.create_prediction(task, {**to_prediction(results, "svac-1"), "neighbors": sent_by})
    client.set_model_version(project, "svac-1")
    (prediction,) = client.list_predictions(task)
    assert prediction["result"] == results
    assert (prediction["score"], prediction["model_version"]) == (0.8, "svac-1")
    assert prediction["neighbors"] == sent_by
    assert client.get_project(project)["model_version"] == "svac-1"
    if kind == "brush":
        mask = decode_brush(prediction["result"][1]["value"]["rle"], 48, 64)
        assert mask.sum() == 16 * 24
    assert client.list_annotations(task) == []
    client.delete_prediction(prediction["id"])
    assert client.list_predictions(task) == []
    client.delete_project(project)


def test_many_tasks_at_once(client: LabelStudioClient, project: int) -> None:
    data = [build_task_data(f"/data/{n}.mp4", [], 24.0) for n in range(3)]
    created = create_tasks(client, project, data)
    listed = {task["id"]: task["data"] for task in client.list_tasks(project)}
    assert listed == dict(zip(created, data, strict=True))
    assert project in [one["id"] for one in client.list_projects()]


def test_storage_addresses_are_not_overwritten_by_an_update(client: LabelStudioClient, project: int) -> None:
    task = client.create_task(project, build_task_data("s3://bucket/v.mp4", [], 24.0))
    client.update_task_data(task, {"frames": ["/data/0.jpg"]})
    assert client.get_task(task)["data"]["video"] == "s3://bucket/v.mp4"


def test_refusals_say_what_to_do(client: LabelStudioClient, project: int) -> None:
    for call, words in (
        (lambda: client.get_task(999_999), "could not read task 999999: it does not exist"),
        (lambda: client.get_project(999_999), "could not read project 999999"),
        (lambda: client.create_project("no config", "<View>"), "label_config"),
        (lambda: client.create_task(project, {"x": 1}), '"video" key is expected'),
        (lambda: client.allow_local_files(project, "/etc"), "must be a subdirectory"),
        (lambda: client.connect_ml_backend(project, "http://127.0.0.1:9"), "gets no answer from the backend"),
    ):
        with pytest.raises(SvacError) as caught:
            call()
        assert words in caught.value.message
        assert "<a " not in str(caught.value)


def test_upload_comes_back_whole_and_once(client: LabelStudioClient, project: int, tmp_path: Path) -> None:
    video = tmp_path / "my video.mp4"
    video.write_bytes(bytes(range(256)) * 5000)
    address = upload_file(client, project, video)
    assert address.startswith(f"/data/upload/{project}/")
    fetcher = MediaFetcher(tmp_path / "cache", client)
    for value in (address, client.url + address):
        path = fetcher.fetch(value)
        assert path.suffix == ".mp4"
        assert path.read_bytes() == video.read_bytes()
    assert len(list((tmp_path / "cache").glob("*.mp4"))) == 1
    number = path.stat().st_ino  # a file that came anew has another
    assert fetcher.fetch(address).stat().st_ino == number
    assert list(client.list_tasks(project)) == []


def test_local_files_need_a_storage_or_are_read_in_place(
    label_studio: LabelStudioServer, client: LabelStudioClient, project: int, tmp_path: Path
) -> None:
    folder = label_studio.files_root / "some frames" / "ü"
    folder.mkdir(parents=True)
    picture = folder / "0 0.jpg"
    picture.write_bytes(b"picture" * 1000)
    address = local_files_url(picture, label_studio.files_root)
    remote = MediaFetcher(tmp_path / "cache", client)
    with pytest.raises(SvacError, match="does not exist"):
        remote.fetch(address)
    storage = client.allow_local_files(project, str(folder.parent))
    assert client.allow_local_files(project, str(folder)) == storage
    path = remote.fetch(address)
    assert path != picture
    assert path.read_bytes() == picture.read_bytes()
    picture.write_bytes(b"another" * 1000)
    assert remote.fetch(address).read_bytes() == picture.read_bytes()
    near = MediaFetcher(tmp_path / "cache", None, files_root=label_studio.files_root)
    assert near.fetch(address) == near.fetch(str(picture)) == picture


def test_cloud_address_without_a_storage_is_an_error(
    client: LabelStudioClient, project: int, tmp_path: Path
) -> None:
    task = client.create_task(project, build_task_data("s3://bucket/v.mp4", [], 24.0))
    with pytest.raises(SvacError, match=r"s3://bucket/v\.mp4 does not exist"):
        MediaFetcher(tmp_path, client).fetch("s3://bucket/v.mp4", task=task)


class Backend(BaseHTTPRequestHandler):
    """The least that Label Studio takes for an ML backend; keeps what it was asked."""

    calls: list[tuple[str, Any]]

    def _reply(self, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._reply({"status": "UP", "model_class": "x", "model_version": "v1"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).calls.append((self.path, body))
        self._reply({"model_version": "v1", "results": [{"result": []} for _ in body.get("tasks", [])]})

    def log_message(self, *args: object) -> None:
        return None


def test_backend_is_connected_once_and_asked(
    label_studio: LabelStudioServer, client: LabelStudioClient, project: int
) -> None:
    Backend.calls = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        address = f"http://127.0.0.1:{server.server_port}"
        backend = client.connect_ml_backend(project, address)
        assert client.connect_ml_backend(project, f"{address}/", title="again") == backend
        (listed,) = client.list_ml_backends(project)
        assert (listed["id"], listed["is_interactive"], listed["state"]) == (backend, True, "CO")
        tasks = create_tasks(client, project, [build_task_data("/data/v.mp4", [], 24.0) for _ in range(3)])
        retrieve_predictions(client, project, tasks[:2])
        client.delete_ml_backend(backend)
        server.shutdown()
    setup = next(body for path, body in Backend.calls if path == "/setup")
    assert setup["hostname"] == label_studio.url
    asked = [[task["id"] for task in body["tasks"]] for path, body in Backend.calls if path == "/predict"]
    assert asked == [tasks[:2]]


def test_server_stops_only_itself_and_is_taken_over(label_studio: LabelStudioServer) -> None:
    again = LabelStudioServer(label_studio.data_dir).start(timeout=10)
    assert (again.url, again.token) == (label_studio.url, label_studio.token)
    state = json.loads((label_studio.data_dir / "server.json").read_text())
    assert psutil.Process(state["pid"]).username() == psutil.Process().username()
    assert (label_studio.data_dir / "login.json").stat().st_mode & 0o077 == 0
