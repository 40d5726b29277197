"""The web process and the worker against a real Label Studio; only the model is a stand-in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from lab.label_studio import retrieve_predictions
from pydantic import SecretStr
from werkzeug.serving import make_server

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobState
from svac_backend.jobs.services import Services
from svac_backend.jobs.worker import create_worker
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.labelstudio.regions.written import validate_results
from svac_backend.masks.rle import encode_brush
from svac_backend.server.app import create_app
from svac_backend.server.security import TOKEN_HEADER
from svac_backend.settings import Settings
from svac_backend.store.corrections import CorrectionStore
from svac_backend.store.database import Database
from tests.databases import PARAMETERS
from tests.integration.label_studio import label_studio, personal_access_token
from tests.jobs.conftest import SquareModel, write_clip

__all__ = ["label_studio"]

pytestmark = pytest.mark.integration

BRUSH = (Path(__file__).parents[2] / "labelstudio_config" / "brush_frames.xml").read_text()
BASIC = ("label-studio", "a password")


@dataclass
class Connected:
    """A project whose backend is ours, with one task that has a video and a prompt."""

    client: LabelStudioClient
    backend: Services
    model: SquareModel
    project: int
    task: int
    ml_backend: int
    video: str

    def until(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        """Return the condition's first true value."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            jobs = [(job.kind, job.state.value, job.error) for job in self.backend.engine.find()]
            assert time.monotonic() < deadline, f"jobs: {jobs}"
            time.sleep(0.1)
        return found

    def painted(self, region: dict[str, Any]) -> dict[str, Any]:
        """Return a region as a person would have painted it, on half the frame."""
        mask = np.zeros((48, 64), np.bool_)
        mask[:, 30:] = True
        return {**region, "value": {**region["value"], "rle": encode_brush(mask)}}

    def idle(self) -> bool:
        """Whether no job waits or runs."""
        return not self.backend.engine.find(states=(JobState.QUEUED, JobState.RUNNING))


@pytest.fixture
def connected(
    label_studio: LabelStudioServer, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Connected]:
    url = None
    if getattr(request, "param", "sqlite") == "postgresql":
        url = SecretStr(request.getfixturevalue("postgresql").new_database())
    client = label_studio.client()
    folder = label_studio.files_root / tmp_path.name
    folder.mkdir()
    write_clip(folder / "clip.mp4")
    ours = settings.model_copy(
        update={
            "label_studio_url": label_studio.url,
            "label_studio_api_key": SecretStr(personal_access_token(label_studio)),
            "label_studio_files_root": label_studio.files_root,
            "basic_auth_user": BASIC[0],
            "basic_auth_password": SecretStr(BASIC[1]),
            "max_body_mb": 50,
            "propagate_on_submit": "all",
            "database_url": url,
        }
    )
    app = create_app(ours)
    backend: Services = app.extensions["svac"]
    web = make_server("127.0.0.1", 0, app, threaded=True)
    serving = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    serving.start()
    model = SquareModel()
    worker, _ = create_worker(ours, Database.from_settings(ours), load=lambda _: model)  # type: ignore[arg-type,return-value]
    worker.start()

    project = client.create_project("test of the backend", BRUSH)
    client.allow_local_files(project, str(folder))
    video = f"/data/local-files/?d={folder.name}/clip.mp4"
    task = client.create_task(project, {"video": video, "fps": 10, "prompt": "the square"})
    number = client.connect_ml_backend(project, f"http://127.0.0.1:{web.server_port}", basic_auth=BASIC)
    found = Connected(client, backend, model, project, task, number, video)
    # Some seconds after /setup the backend has entered the secret of the project's webhook.
    found.until(
        lambda: [hook for hook in client.list_webhooks(project) if TOKEN_HEADER in (hook["headers"] or {})]
    )
    yield found
    worker.stop()
    client.delete_project(project)
    web.shutdown()
    web.server_close()
    backend.database.close()


def post(connected: Connected, path: str, body: dict[str, Any]) -> httpx.Response:
    """Post as the browser would."""
    return httpx.post(
        f"{connected.client.url}{path}", json=body, headers=connected.client.authorization(), timeout=60
    )


def kinds(backend: Services) -> list[str]:
    """The kinds of all jobs but the daily one."""
    return sorted(job.kind for job in backend.engine.find() if job.kind != "retain")


@pytest.mark.parametrize("connected", PARAMETERS, indirect=True)
def test_from_the_first_click_to_masks_on_frames(connected: Connected) -> None:
    client, backend = connected.client, connected.backend
    (state,) = client.list_ml_backends(connected.project)
    assert (state["state"], state["model_version"]) == ("CO", backend.model_version)
    known = backend.connections.get(str(connected.project))
    assert known is not None
    assert known.access_token
    assert parse_config(known.label_config).mask_control().name == "mask"

    retrieve_predictions(client, connected.project)
    assert kinds(backend) == ["frames", "prelabel"]
    connected.until(connected.idle)
    assert {job.state for job in backend.engine.find()} == {JobState.DONE}

    task = client.get_task(connected.task)
    assert len(task["data"]["frames"]) == 12
    assert (task["data"]["prompt"], task["data"]["video"]) == ("the square", connected.video)
    frame = httpx.get(client.url + task["data"]["frames"][3], headers=client.authorization(), timeout=20)
    assert frame.content[:2] == b"\xff\xd8"  # Label Studio may, and does, serve it

    (prediction,) = client.list_predictions(connected.task)
    assert prediction["model_version"] == backend.model_version
    validate_results(prediction["result"], parse_config(BRUSH), frame_count=12)
    assert len(prediction["result"]) == 6

    # A task that has this version's prediction is not even asked for again.
    retrieve_predictions(client, connected.project)
    assert len(client.list_predictions(connected.task)) == 1
    assert kinds(backend) == ["frames", "prelabel"]


def test_a_cached_result_is_stored_at_once(connected: Connected) -> None:
    client, backend = connected.client, connected.backend
    retrieve_predictions(client, connected.project)
    connected.until(connected.idle)
    other = client.create_task(connected.project, client.get_task(connected.task)["data"])
    retrieve_predictions(client, connected.project)
    (prediction,) = client.list_predictions(other)
    assert len(prediction["result"]) == 6
    assert connected.model.calls == [["the square"]]
    assert len(backend.engine.find(kind="prelabel")) == 1


def test_a_typed_prompt_is_answered_in_the_editor(connected: Connected) -> None:
    # With frames, so that no job has to cut them: that reads the task, upon which Label Studio asks for more.
    data = {"video": connected.video, "fps": 10, "frames": [f"/f/{i}.jpg" for i in range(12)]}
    task = connected.client.create_task(connected.project, data)
    region = {
        "id": "abc",
        "from_name": "prompt",
        "to_name": "frames",
        "type": "textarea",
        "value": {"text": ["the typed square"]},
    }
    body = {"task": task, "context": {"result": [region]}}
    answer = post(connected, f"/api/ml/{connected.ml_backend}/interactive-annotating", body)
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert len(data["result"]) == 6
    assert data["model_version"] == connected.backend.model_version
    assert connected.model.calls == [["the typed square"]]
    assert connected.idle()
    assert connected.client.list_predictions(task) == []


def test_a_correction_is_carried_on_from_the_draft(connected: Connected) -> None:
    """The draft with the last stroke and the request comes while Label Studio waits for our answer."""
    client = connected.client
    retrieve_predictions(client, connected.project)
    connected.until(connected.idle)
    (prediction,) = client.list_predictions(connected.task)
    loaded = prediction["result"]
    edited = connected.painted(loaded[0])
    trigger = {
        "id": "rwhTmhnW9C",
        "from_name": "kp",
        "to_name": "frames",
        "type": "keypointlabels",
        "item_index": 3,
        "original_width": 64,
        "original_height": 48,
        "is_positive": True,
        "value": {"x": 6.3, "y": 11.2, "width": 0.26, "keypointlabels": ["propagate"]},
    }
    answers: list[httpx.Response] = []
    path = f"/api/ml/{connected.ml_backend}/interactive-annotating"
    body = {"task": connected.task, "context": {"result": [trigger]}}
    asking = threading.Thread(target=lambda: answers.append(post(connected, path, body)))
    asking.start()
    time.sleep(1.0)
    draft = {"result": [edited, *loaded[1:], trigger], "lead_time": 1}
    post(connected, f"/api/tasks/{connected.task}/drafts", draft).raise_for_status()
    asking.join()
    result = answers[0].json()["data"]["result"]
    gone = {region["id"] for region in result if region.get("dynamic")}
    made = [region for region in result if not region.get("dynamic")]
    assert gone == {region["id"] for region in loaded[1:]}
    assert {region["item_index"] for region in made} == set(range(12)) - {loaded[0]["item_index"]}
    assert all(region["value"]["rle"] == edited["value"]["rle"] for region in made)
    validate_results(made, parse_config(BRUSH), frame_count=12)


def test_a_submitted_correction_makes_a_prediction(connected: Connected) -> None:
    client, backend = connected.client, connected.backend
    retrieve_predictions(client, connected.project)
    connected.until(connected.idle)
    (prediction,) = client.list_predictions(connected.task)
    loaded = prediction["result"]
    edited = connected.painted(loaded[0])
    annotation = {"result": [edited, *loaded[1:]], "parent_prediction": prediction["id"]}
    post(connected, f"/api/tasks/{connected.task}/annotations/", annotation).raise_for_status()
    (job,) = connected.until(lambda: backend.engine.find(kind="propagate"))
    connected.until(connected.idle)
    assert backend.engine.get(job.id).error is None
    newest = max(client.list_predictions(connected.task), key=lambda item: int(item["id"]))
    assert newest["id"] != prediction["id"]
    assert len(newest["result"]) == 12
    assert {str(region["value"]["rle"]) for region in newest["result"]} == {str(edited["value"]["rle"])}
    (kept,) = client.list_annotations(connected.task)
    assert kept["result"] == annotation["result"]


def test_annotations_and_training_arrive(connected: Connected) -> None:
    backend = connected.backend
    result = [
        {"id": "x", "from_name": "prompt", "to_name": "frames", "type": "textarea", "value": {"text": ["a"]}}
    ]
    post(connected, f"/api/tasks/{connected.task}/annotations/", {"result": result}).raise_for_status()
    events = connected.until(lambda: backend.events.find(action="ANNOTATION_CREATED"))
    assert events[0].project_id == str(connected.project)
    assert events[0].body["annotation"]["result"][0]["value"] == {"text": ["a"]}
    assert events[0].body["task"]["id"] == connected.task


def test_corrections_come_and_go_and_start_training_learns_from_them(connected: Connected) -> None:
    """With Label Studio's own webhooks; what a real training makes of corrections is tested elsewhere."""
    client, backend = connected.client, connected.backend
    corrections = CorrectionStore(backend.database)
    retrieve_predictions(client, connected.project)
    connected.until(connected.idle)
    (prediction,) = client.list_predictions(connected.task)
    loaded = prediction["result"]  # masks on the odd frames
    edited = connected.painted(loaded[0])
    path = f"/api/tasks/{connected.task}/annotations/"
    annotation = {"result": [edited, *loaded[1:]], "parent_prediction": prediction["id"]}
    number = post(connected, path, annotation).raise_for_status().json()["id"]
    (found,) = connected.until(corrections.all)
    assert (found.annotation_id, found.task_id) == (str(number), str(connected.task))
    assert (found.drawn, found.accepted) == ({1}, set())
    assert (found.expression, found.model_version) == ("the square", backend.model_version)
    assert found.who
    assert found.when > time.time() - 600

    changed = {**annotation, "result": [edited, connected.painted(loaded[1]), *loaded[2:5]]}
    headers = client.authorization()
    httpx.patch(f"{client.url}/api/annotations/{number}/", json=changed, headers=headers).raise_for_status()
    connected.until(lambda: [one.drawn for one in corrections.all()] == [{1, 3, 11}])

    post(connected, f"/api/ml/{connected.ml_backend}/train", {})
    (job,) = connected.until(lambda: backend.engine.find(kind="finetune"))
    assert job.payload["project_id"] == str(connected.project)
    connected.until(connected.idle, 240)
    job = backend.engine.get(job.id)
    assert (job.state, job.error) == (JobState.DONE, None)
    assert job.message.startswith("1 corrected video so far: 7 more are needed")
    (state,) = client.list_ml_backends(connected.project)
    assert state["state"] == "CO"  # "Training" only until the backend is asked again

    httpx.delete(f"{client.url}/api/annotations/{number}/", headers=headers).raise_for_status()
    connected.until(lambda: corrections.all() == [])


def test_versions_are_shown(connected: Connected) -> None:
    answer = httpx.get(
        f"{connected.client.url}/api/ml/{connected.ml_backend}/versions",
        headers=connected.client.authorization(),
        timeout=20,
    )
    assert answer.json()["versions"] == [connected.backend.model_version]


def test_a_wrong_password_is_refused(connected: Connected) -> None:
    (state,) = connected.client.list_ml_backends(connected.project)
    with pytest.raises(SvacError, match="authentication"):
        connected.client.connect_ml_backend(connected.project, state["url"], basic_auth=(BASIC[0], "wrong"))
