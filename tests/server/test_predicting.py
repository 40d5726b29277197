"""What /predict answers, and which jobs it makes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from svac_backend.jobs.engine import BATCH, INTERACTIVE, Job, JobState
from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.jobs.services import Services
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.written import validate_results
from svac_backend.masks.tracks import ObjectPrompt
from tests.learning.adapter_folders import adapter_folder
from tests.server.bodies import CONFIG, click, predict_body, task
from tests.server.conftest import Worker


def predict(client: FlaskClient, body: dict[str, Any]) -> list[Any]:
    # Not `json=`: Flask's client would sort the keys, and with them the objects of a prompt.
    answer = client.post("/predict", data=json.dumps(body), content_type="application/json")
    assert answer.status_code == 200, answer.data
    results: list[Any] = json.loads(answer.data)["results"]
    return results


def prelabel_jobs(backend: Services, *states: JobState) -> list[Job]:
    return backend.engine.find(kind="prelabel", states=states)


def test_a_miss_is_queued_and_pushed_when_done(client: FlaskClient, backend: Services) -> None:
    backend.connections.put("38", "http://ls:8080", "t", CONFIG)
    assert predict(client, predict_body(task())) == [[]]
    (job,) = prelabel_jobs(backend)
    assert (job.state, job.priority) == (JobState.QUEUED, BATCH)
    payload = PrelabelPayload.from_json(job.payload)
    assert payload == PrelabelPayload(
        project_id="38",
        task_id="7",
        task_data=task()["data"],
        prompts=(ObjectPrompt("obj1", "dog", "the dog"),),
        label_config=CONFIG,
        hostname="http://ls:8080",
        video_url="/data/upload/7.mp4",
        push=True,
    )


def test_asking_again_makes_no_second_job(client: FlaskClient, backend: Services) -> None:
    for _ in range(3):
        assert predict(client, predict_body(task())) == [[]]
    assert len(prelabel_jobs(backend)) == 1


def test_a_hit_is_answered_from_the_cache(client: FlaskClient, backend: Services, worker: Any) -> None:
    predict(client, predict_body(task()))
    worker.complete(prelabel_jobs(backend)[0])
    for _ in range(2):  # rendered, then from the stored rendering
        (item,) = predict(client, predict_body(task()))
        assert set(item) == {"result", "score", "model_version"}
        assert (item["score"], item["model_version"]) == (0.625, backend.model_version)
        validate_results(item["result"], parse_config(CONFIG), frame_count=2)
        assert [region["id"] for region in item["result"]] == ["obj1-f00000", "obj1-f00001"]
    assert len(prelabel_jobs(backend)) == 1


def test_what_a_job_is_about_to_push_is_not_answered_too(
    client: FlaskClient, backend: Services, worker: Any
) -> None:
    """Label Studio asks again while the worker sends: it would store the same prediction twice."""
    predict(client, predict_body(task()))
    worker.do(prelabel_jobs(backend)[0])
    assert predict(client, predict_body(task(), text="the dog"))[0] != []  # it is in the cache
    assert predict(client, predict_body(task())) == [[]]
    assert len(prelabel_jobs(backend)) == 1


def test_a_hit_is_shown_with_the_config_of_the_call(
    client: FlaskClient, backend: Services, worker: Any
) -> None:
    predict(client, predict_body(task()))
    worker.complete(prelabel_jobs(backend)[0])
    predict(client, predict_body(task()))
    polygons = predict_body(task())
    polygons["label_config"] = CONFIG.replace("BrushLabels", "PolygonLabels")
    (item,) = predict(client, polygons)
    assert {region["type"] for region in item["result"]} == {"polygonlabels"}


def test_another_prompt_video_or_task_is_other_work(client: FlaskClient, backend: Services) -> None:
    predict(client, predict_body(task(), task(prompt="the cat"), task(video="/other.mp4"), task(8)))
    assert len(prelabel_jobs(backend)) == 4


def test_several_expressions_and_labels(client: FlaskClient, backend: Services) -> None:
    predict(
        client, predict_body(task(prompt={"dog": "the brown one", "cat": ["the black cat", "the white cat"]}))
    )
    payload = PrelabelPayload.from_json(prelabel_jobs(backend)[0].payload)
    assert [(p.object_id, p.label, p.expression) for p in payload.prompts] == [
        ("obj1", "dog", "the brown one"),
        ("obj2", "cat", "the black cat"),
        ("obj3", "cat", "the white cat"),
    ]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"data": {"video": "/v.mp4", "frames": ["f"], "prompt": " "}}, "empty"),
        ({"data": {"video": "/v.mp4", "frames": ["f"], "prompt": "x" * 501}}, "501 characters"),
        ({"data": {"video": "/v.mp4", "frames": ["f"], "prompt": {"bird": "the bird"}}}, "'bird'"),
        ({"data": {"video": "/v.mp4", "frames": ["f"], "prompt": 5}}, "not text"),
        ({"data": {"frames": ["f"], "prompt": "the dog"}}, "no video under the key 'video'"),
        ({"data": {"video": 7, "frames": ["f"], "prompt": "the dog"}}, "no video under the key 'video'"),
        ({"data": None}, "no data"),
        ({"id": None}, "no id"),
    ],
)
def test_a_task_that_cannot_be_predicted_is_a_failed_job_and_the_others_go_on(
    client: FlaskClient, backend: Services, change: dict[str, Any], error: str
) -> None:
    assert predict(client, predict_body({**task(), **change}, task(8))) == [[], []]
    (failed,) = prelabel_jobs(backend, JobState.FAILED)
    assert failed.error is not None
    assert error in failed.error
    assert failed.hint
    assert failed.payload["task_id"] == ("7" if "id" not in change else "")
    (queued,) = prelabel_jobs(backend, JobState.QUEUED)
    assert queued.payload["task_id"] == "8"


def test_a_config_that_shows_nothing_is_a_failed_job_that_says_what_is_missing(
    client: FlaskClient, backend: Services
) -> None:
    body = predict_body(task())
    body["label_config"] = '<View><Video name="video" value="$video"/></View>'
    assert predict(client, body) == [[]]
    assert predict(client, body) == [[]]
    (failed,) = prelabel_jobs(backend)  # one row, however often the task is opened
    assert failed.error is not None
    assert "<Image valueList>" in failed.error


def test_an_interactive_call_waits_for_its_result(
    client: FlaskClient, backend: Services, worker: Any
) -> None:
    worker.start()
    (item,) = predict(client, predict_body(task(), text="the cat"))
    assert [region["value"]["brushlabels"] for region in item["result"]] == [["dog"], ["dog"]]
    (job,) = prelabel_jobs(backend)
    assert job.priority == INTERACTIVE
    (done,) = worker.done
    assert (done.push, done.prompts[0].expression) == (False, "the cat")


def noted(answers: list[Any]) -> str:
    """What the one answer tells the annotator, in the prompt's field; it shows nothing else."""
    ((said,),) = [[region["value"]["text"][-1] for region in item["result"]] for item in answers]
    return str(said)


def test_an_interactive_call_answers_in_time_and_the_job_goes_on(
    make: Callable[..., Flask],
) -> None:
    app = make(predict_wait_s=0.3)
    backend: Services = app.extensions["svac"]
    begun = time.monotonic()
    assert "waits for other work" in noted(predict(app.test_client(), predict_body(task(), text="the cat")))
    assert 0.3 <= time.monotonic() - begun < 3
    (waiting,) = prelabel_jobs(backend, JobState.QUEUED)
    assert (waiting.payload["push"], waiting.priority) == (False, INTERACTIVE)


def test_an_interactive_call_whose_job_fails_does_not_wait_on(
    client: FlaskClient, backend: Services, worker: Any
) -> None:
    def fail(job: Job) -> None:
        backend.jobs.finish(job, JobState.FAILED, error="The video is damaged.", hint="Encode it again.")

    worker.do = fail
    worker.start()
    begun = time.monotonic()
    said = noted(predict(client, predict_body(task(), text="the cat")))
    assert said.endswith('"the cat": The video is damaged. Encode it again.')
    assert time.monotonic() - begun < 5
    assert [job.state for job in prelabel_jobs(backend)] == [JobState.FAILED]


def test_an_interactive_hit_needs_no_job(client: FlaskClient, backend: Services, worker: Any) -> None:
    predict(client, predict_body(task()))
    worker.complete(prelabel_jobs(backend)[0])
    (item,) = predict(client, predict_body(task(), text="dog: the dog"))
    assert [region["id"] for region in item["result"]] == ["obj1-f00000", "obj1-f00001"]
    assert len(prelabel_jobs(backend)) == 1


def test_an_empty_context_is_answered_with_nothing_at_once(
    client: FlaskClient, backend: Services, worker: Worker
) -> None:
    """The editor sends one for each suggestion that it deletes; a whole prediction would come back as suggestions."""
    predict(client, predict_body(task()))
    worker.complete(prelabel_jobs(backend)[0])
    body = predict_body(task(), text="")
    body["params"]["context"]["result"] = []
    assert predict(client, body) == [[]]
    assert len(prelabel_jobs(backend)) == 1


def test_a_region_that_is_no_prompt_is_a_failed_job(client: FlaskClient, backend: Services) -> None:
    body = predict_body(task(), text="")
    body["params"]["context"]["result"] = [{"item_index": 3, "value": {"rle": [1]}, "type": "brushlabels"}]
    assert predict(client, body)[0]["result"] == []
    (failed,) = prelabel_jobs(backend, JobState.FAILED)
    assert failed.error == "A region of type 'brushlabels' is not a prompt."


def test_a_context_without_result_is_no_interactive_call(client: FlaskClient, backend: Services) -> None:
    body = predict_body(task())
    body["params"]["context"] = {"login": None}
    assert predict(client, body) == [[]]
    assert prelabel_jobs(backend)[0].payload["push"] is True


def test_waiting_calls_leave_threads_free(make: Callable[..., Flask]) -> None:
    """With one thread for waiting, a second interactive call is answered at once."""
    app = make(server_threads=2, predict_wait_s=10)
    client, answers = app.test_client(), []
    first = threading.Thread(
        target=lambda: answers.append(predict(app.test_client(), predict_body(task(1), text="the cat")))
    )
    first.start()
    backend: Services = app.extensions["svac"]
    while not prelabel_jobs(backend):
        time.sleep(0.01)
    time.sleep(0.1)
    begun = time.monotonic()
    assert "waits for other work" in noted(predict(client, predict_body(task(2), text="the cat")))
    assert time.monotonic() - begun < 3
    (job,) = [job for job in prelabel_jobs(backend) if job.payload["task_id"] == "1"]
    backend.engine.cancel(job.id)
    first.join(timeout=10)
    assert noted(answers[0]).endswith('"the cat": the job was cancelled. Ask again.')


def test_missing_frames_are_ordered(make: Callable[..., Flask], tmp_path: Any) -> None:
    app = make(label_studio_files_root=tmp_path)
    backend: Services = app.extensions["svac"]
    for _ in range(2):
        predict(app.test_client(), predict_body(task(frames=None), task(8)))
    (job,) = backend.engine.find(kind="frames")
    assert (job.state, job.payload["task_id"]) == (JobState.QUEUED, "7")
    assert job.payload["video_url"] == "/data/upload/7.mp4"
    assert len(prelabel_jobs(backend, JobState.QUEUED)) == 2


def test_missing_frames_without_a_place_for_them_are_a_failed_job(
    client: FlaskClient, backend: Services
) -> None:
    for _ in range(2):
        predict(client, predict_body(task(frames=[])))
    (job,) = backend.engine.find(kind="frames")
    assert job.state is JobState.FAILED
    assert job.hint is not None
    assert "SVAC_LABEL_STUDIO_FILES_ROOT" in job.hint
    # The masks are made all the same; they show as soon as the frames are there.
    assert len(prelabel_jobs(backend, JobState.QUEUED)) == 1


def test_the_config_of_setup_stands_in_for_a_missing_one(client: FlaskClient, backend: Services) -> None:
    backend.connections.put("38", "http://ls:8080", "t", CONFIG)
    body = predict_body(task())
    del body["label_config"]
    assert predict(client, body) == [[]]
    assert prelabel_jobs(backend)[0].payload["label_config"] == CONFIG


def test_a_new_model_version_is_predicted_anew(
    client: FlaskClient, backend: Services, make: Any, tmp_path: Any
) -> None:
    predict(client, predict_body(task()))
    (old,) = prelabel_jobs(backend)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"preset": "standin"}')
    (other / "model.safetensors").write_bytes(b"other weights")
    predict(make(model=str(other)).test_client(), predict_body(task()))
    assert len(prelabel_jobs(backend)) == 2
    assert {job.key for job in prelabel_jobs(backend)} > {old.key}


def test_a_promoted_version_predicts_anew_and_roll_back_brings_the_old_masks_back(
    client: FlaskClient, backend: Services, worker: Any, tmp_path: Path
) -> None:
    predict(client, predict_body(task()))
    worker.complete(prelabel_jobs(backend)[0])
    (before,) = predict(client, predict_body(task()))
    adapter_folder(tmp_path / "adapter")
    base = backend.registry.base
    new = backend.registry.publish(tmp_path / "adapter", base=base, promote=True, reason="better")

    assert predict(client, predict_body(task())) == [[]]
    (job,) = prelabel_jobs(backend, JobState.QUEUED)
    worker.complete(job)
    (item,) = predict(client, predict_body(task()))
    assert item["model_version"] == new.name

    backend.registry.roll_back()
    assert predict(client, predict_body(task())) == [before]  # at once: they are still there
    assert before["model_version"] == base
    assert len(prelabel_jobs(backend)) == 2


def test_many_tasks_are_stored_in_one_transaction(client: FlaskClient, backend: Services) -> None:
    begun: list[str] = []
    event.listen(
        backend.database.engine,
        "before_cursor_execute",
        lambda *args: begun.append(args[2]) if args[2].startswith("BEGIN IMMEDIATE") else None,
    )
    answer = client.post("/predict", json=predict_body(*(task(n) for n in range(1, 41))))
    assert answer.get_json()["results"] == [[]] * 40
    assert len(begun) == 1
    assert sorted(int(job.payload["task_id"]) for job in backend.engine.find()) == list(range(1, 41))


def test_a_cached_answer_does_not_go_to_a_task_with_other_frames(
    client: FlaskClient, backend: Services, worker: Worker
) -> None:
    predict(client, predict_body(task(), task(8, video="/data/upload/7.mp4")))
    for job in prelabel_jobs(backend):
        worker.complete(job)
    assert predict(client, predict_body(task()))[0]["result"]
    assert predict(client, predict_body(task(8, video="/data/upload/7.mp4", frames=["/f/0.jpg"]))) == [[]]
    (failed,) = prelabel_jobs(backend, JobState.FAILED)
    assert failed.error == "The task has 1 frames under 'frames', but its video has 2."


@pytest.mark.parametrize(
    "url", ["http://[host/x.mp4", "http://u:secret@host:port/x.mp4?sig=secret", "http://host:99999/x"]
)
def test_an_address_without_sense_harms_no_other_task(
    client: FlaskClient, backend: Services, url: str
) -> None:
    """It answered 500 for all tasks of the call."""
    answer = client.post("/predict", json=predict_body(task(1), task(2, video=url), task(3)))
    assert answer.status_code == 200
    assert answer.get_json() == {"results": [[], [], []]}
    jobs = {job.payload["task_id"]: job for job in backend.engine.find()}
    assert [jobs[number].state.value for number in ("1", "2", "3")] == ["queued", "failed", "queued"]
    listed = client.get("/jobs").get_data(as_text=True)
    assert "not an address" in listed
    assert "secret" not in listed
    one = client.post("/predict", json=predict_body(task(2, video=url), region=click(50, 50)))
    assert one.status_code == 200
