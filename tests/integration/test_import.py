"""`svac-backend import` against a real Label Studio, with the real model code and random weights."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from pydantic import SecretStr
from werkzeug.serving import make_server

from svac_backend import pipeline
from svac_backend.cli.commands import videos as commands
from svac_backend.cli.import_videos import import_videos
from svac_backend.cli.projects import Destination
from svac_backend.datasets.windows import Windowing
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.labelstudio.regions.written import validate_results
from svac_backend.labelstudio.tasks import task_prompts
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.svac.files.weights import model_version
from svac_backend.video.reader import VideoReader
from tests.cli.videos import FPS, FRAMES, HEIGHT, WIDTH, write_video

PROMPT = "the red square"


@pytest.fixture(scope="module")
def client(label_studio: LabelStudioServer) -> LabelStudioClient:
    return label_studio.client()


@pytest.fixture
def settings(label_studio: LabelStudioServer, random_model: Path, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        model=str(random_model),
        data_dir=tmp_path / "data",
        label_studio_url=label_studio.url,
        label_studio_api_key=SecretStr(label_studio.token),
        label_studio_files_root=label_studio.files_root,
    )


@pytest.fixture
def title(client: LabelStudioClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """A title of the test's own; its projects are deleted at the end."""
    name = request.node.name[:50]
    yield name
    for project in projects_of(client, name):
        client.delete_project(project)


def projects_of(client: LabelStudioClient, title: str) -> list[int]:
    return [int(project["id"]) for project in client.list_projects() if project["title"] == title]


def do_import(
    settings: Settings, *videos: Path, prompts: tuple[str, ...] = (PROMPT,), **options: Any
) -> None:
    predict = options.pop("predict", True)
    import_videos(settings, videos, prompts, Destination(**options), Windowing(), predict=predict)


def test_a_video_becomes_a_task_with_frames_and_masks(
    settings: Settings,
    client: LabelStudioClient,
    title: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = write_video(tmp_path / "my dög, 100%.mp4")
    do_import(settings, video, create=title)
    (project,) = projects_of(client, title)
    (task,) = client.list_tasks(project)
    data = task["data"]
    assert (data["fps"], data["prompt"], len(data["frames"])) == (FPS, PROMPT, FRAMES)
    version = model_version(settings.model)
    (prediction,) = client.list_predictions(task["id"])
    assert prediction["model_version"] == version
    config = parse_config(client.get_project(project)["label_config"])
    validate_results(prediction["result"], config, frame_count=FRAMES)
    assert len(prediction["result"]) == FRAMES
    # Label Studio serves what the task names: the very video, and its frames.
    headers = client.authorization()
    served = httpx.get(client.url + data["video"], headers=headers)
    assert served.content == video.read_bytes()
    frame = httpx.get(client.url + data["frames"][-1], headers=headers)
    assert (frame.status_code, frame.headers["content-type"]) == (200, "image/jpeg")
    assert data["name"] == video.name
    # People see names, the worst first, and no addresses.
    (tab,) = httpx.get(f"{client.url}/api/dm/views/?project={project}", headers=headers).json()
    assert tab["data"]["title"] == "Worst first"
    assert tab["data"]["ordering"] == ["tasks:predictions_score"]
    hidden = tab["data"]["hiddenColumns"]["explore"]
    assert {"tasks:data.frames", "tasks:data.video", "tasks:predictions_results"} <= set(hidden)
    assert not {"tasks:data.name", "tasks:predictions_score", "tasks:id"} & set(hidden)
    # Else the editor would show no prediction.
    assert client.get_project(project)["model_version"] == version
    printed = capsys.readouterr().err
    assert f"{client.url}/projects/{project}/data" in printed
    assert f"task {task['id']}, {FRAMES} frames, a mask on {FRAMES} of them" in printed
    assert settings.label_studio_api_key is not None
    assert settings.label_studio_api_key.get_secret_value() not in printed
    folder = settings.label_studio_files_root / "svac" / str(project)  # type: ignore[operator]
    assert [path.name for path in folder.rglob("*") if "part" in path.name or "probe" in path.name] == []


@pytest.mark.parametrize("connected", [False, True])
def test_predict_answers_from_the_cache(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path, connected: bool
) -> None:
    project = client.create_project(title, brush())
    database = Database.from_settings(settings)
    if connected:  # as Label Studio calls itself, which may be another name than ours for it
        ConnectionStore(database).put(str(project), "http://label-studio.example", "", "")
    do_import(settings, write_video(tmp_path / "v.mp4"), project=project, prompts=(PROMPT, "the dog"))
    (task,) = client.list_tasks(project)
    body = {
        "tasks": [{"id": task["id"], "data": task["data"]}],
        "project": f"{project}.1795331614",
        "label_config": client.get_project(project)["label_config"],
        "params": {"context": None},
    }
    answer = create_app(settings).test_client().post("/predict", json=body)
    (result,) = answer.get_json()["results"]
    (prediction,) = client.list_predictions(task["id"])
    assert result["result"] == prediction["result"]
    assert {region["id"][:4] for region in result["result"]} == {"obj1", "obj2"}
    database.close()


def brush() -> str:
    return (Path(__file__).parents[2] / "labelstudio_config" / "brush_frames.xml").read_text()


def test_the_same_again_is_skipped_and_more_is_added(
    settings: Settings,
    client: LabelStudioClient,
    title: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = write_video(tmp_path / "a.mp4"), write_video(tmp_path / "b.mp4", shade=40)
    do_import(settings, first, create=title)
    do_import(settings, first, second, first, create=title)
    (project,) = projects_of(client, title)
    assert "already in the project" in capsys.readouterr().err
    tasks = list(client.list_tasks(project))
    assert len(tasks) == 2
    assert [len(client.list_predictions(task["id"])) for task in tasks] == [1, 1]
    do_import(settings, first, project=project, prompts=("another prompt",))
    assert len(list(client.list_tasks(project))) == 3
    first.write_bytes(second.read_bytes())
    do_import(settings, first, project=project)
    assert len(list(client.list_tasks(project))) == 4, "another video under the old name is another task"


def test_without_predictions_then_with(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "v.mp4")
    no_model = settings.model_copy(update={"model": "nothing-here"})
    do_import(no_model, video, create=title, predict=False)
    (project,) = projects_of(client, title)
    (task,) = client.list_tasks(project)
    assert client.list_predictions(task["id"]) == []
    do_import(settings, video, project=project)
    (again,) = client.list_tasks(project)
    assert again["id"] == task["id"]
    assert len(client.list_predictions(task["id"])) == 1


@pytest.fixture
def backend(settings: Settings) -> Iterator[str]:
    """The web process, in this one; its address."""
    server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def test_a_list_of_videos_goes_into_connected_projects_that_follow_the_newest_version(
    settings: Settings,
    client: LabelStudioClient,
    backend: str,
    title: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_video(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4", shade=40)
    (tmp_path / "bad.mp4").write_text("no video")
    rows = (
        f"a.mp4,the red square,car,{title}\nbad.mp4,the dog,,{title}\nb.mp4,the sky|the red square,,{title}\n"
    )
    (tmp_path / "list.csv").write_text(f"video,prompts,labels,project\n{rows}")
    monkeypatch.setattr(commands, "get_settings", lambda: settings)
    with pytest.raises(typer.Exit) as end:
        commands.import_(from_=tmp_path / "list.csv", backend_url=backend, as_json=True)
    assert end.value.exit_code == 1
    printed = capsys.readouterr()
    (project,) = projects_of(client, title)
    (done,) = json.loads(printed.out)
    assert (done["project"], done["connected"], len(done["videos"])) == (project, True, 2)
    assert [one["place"] for one in done["failed"]] == [3]
    assert "Line 3" in printed.err
    assert "bad.mp4 is not a video" in printed.err
    tasks = {task["data"]["name"]: task["data"]["prompt"] for task in client.list_tasks(project)}
    assert tasks == {"a.mp4": "car: the red square", "b.mp4": "the sky\nthe red square"}
    hooks = [hook["url"] for hook in client.list_webhooks(project)]
    assert f"{backend}/webhook" in hooks
    assert client.get_project(project)["model_version"] == "SVAC", "whatever is promoted"

    # One that was made before, and is connected only now: it shows a version by its name.
    do_import(settings, write_video(tmp_path / "c.mp4", shade=70), create=f"{title[:40]} two")
    (other,) = projects_of(client, f"{title[:40]} two")
    try:
        assert client.get_project(other)["model_version"] == model_version(settings.model)
        client.connect_ml_backend(other, backend, title="SVAC")
        deadline = time.monotonic() + 20
        while client.get_project(other)["model_version"] != "SVAC":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # And one that is connected shows what served until now.
        client.set_model_version(other, model_version(settings.model))
        with closing(Database(settings.data_dir)) as database:
            access = LabelStudioAccess(settings, ConnectionStore(database))
            assert access.follow_all({"another"}) == ([], None)
            assert access.follow_all({model_version(settings.model)}) == ([str(other)], None)
        assert client.get_project(other)["model_version"] == "SVAC"
    finally:
        client.delete_project(other)


def test_a_backend_that_label_studio_does_not_reach_is_said(
    settings: Settings,
    client: LabelStudioClient,
    title: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = write_video(tmp_path / "v.mp4")
    done = import_videos(
        settings,
        [video],
        ["the dog"],
        Destination(create=title, backend_url="http://127.0.0.1:9"),
        Windowing(),
        predict=False,
    )
    assert (done.connected, len(done.tasks)) == (False, 1)
    assert "The model is not connected" in capsys.readouterr().err
    assert client.list_ml_backends(done.project) == []


def test_labels_of_prompts_are_in_the_new_config(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path
) -> None:
    prompts = ("car: the red car", "the sky")
    do_import(settings, write_video(tmp_path / "v.mp4"), create=title, prompts=prompts)
    (project,) = projects_of(client, title)
    (task,) = client.list_tasks(project)
    config = parse_config(client.get_project(project)["label_config"])
    labels = list(config.mask_control().labels)
    assert labels[0] == "object"
    assert "car" in labels
    wishes = task_prompts(task["data"], config, max_chars=100)
    assert [(wish.label, wish.expression) for wish in wishes] == [
        ("car", "the red car"),
        ("object", "the sky"),
    ]
    (prediction,) = client.list_predictions(task["id"])
    assert {tuple(region["value"]["brushlabels"]) for region in prediction["result"]} == {
        ("car",),
        ("object",),
    }


def test_a_failure_in_the_middle_says_what_is_in_and_can_be_continued(
    settings: Settings,
    client: LabelStudioClient,
    title: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos = [
        write_video(tmp_path / f"{name}.mp4", shade=shade) for name, shade in (("a", 0), ("b", 30), ("c", 60))
    ]
    real, calls = pipeline.prelabel, []

    def fails_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise SvacError("Frame 3 of b.mp4 is damaged.", "Copy it again.")
        return real(*args, **kwargs)

    monkeypatch.setattr(pipeline, "prelabel", fails_once)
    with pytest.raises(SvacError) as caught:
        do_import(settings, *videos, create=title)
    (project,) = projects_of(client, title)
    assert caught.value.message == "b.mp4 was not imported. Frame 3 of b.mp4 is damaged."
    assert f"--project {project}" in caught.value.hint
    printed = capsys.readouterr().err
    assert f"in project {project}: a.mp4\n" in printed
    assert f"not in project {project}: b.mp4, c.mp4" in printed
    assert len(list(client.list_tasks(project))) == 1
    do_import(settings, *videos, create=title)
    assert len(list(client.list_tasks(project))) == 3
    assert len(calls) == 4, "a.mp4 is segmented once"


def test_what_label_studio_did_not_take_is_not_segmented_again(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = client.create_project(title, brush())
    video = write_video(tmp_path / "v.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(LabelStudioClient, "create_prediction", _down)
        with pytest.raises(SvacError, match="is down"):
            do_import(settings, video, project=project)
    (task,) = client.list_tasks(project)
    monkeypatch.setattr(pipeline, "prelabel", lambda *_, **__: pytest.fail("segmented again"))
    do_import(settings, video, project=project)
    assert [one["id"] for one in client.list_tasks(project)] == [task["id"]]
    assert len(client.list_predictions(task["id"])) == 1


def _down(*_: Any) -> int:
    raise SvacError("Label Studio is down.", "Start it.")


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"prompts": ("car: the car",), "config": "brush"}, "no label 'car'"),
        ({"label_studio_files_root": None}, {}, "SVAC_LABEL_STUDIO_FILES_ROOT is not set"),
        ({"label_studio_api_key": SecretStr("0" * 40)}, {}, "does not accept the legacy token"),
        ({"model": "nothing-here"}, {}, "no model"),
        ({"label_studio_files_root": "elsewhere"}, {}, "is not below it"),
    ],
)
def test_nothing_is_changed_when_a_check_fails(
    settings: Settings,
    client: LabelStudioClient,
    label_studio: LabelStudioServer,
    title: str,
    tmp_path: Path,
    change: dict[str, Any],
    options: dict[str, Any],
    words: str,
) -> None:
    if change.get("label_studio_files_root"):
        change = {"label_studio_files_root": tmp_path / "elsewhere"}
        change["label_studio_files_root"].mkdir()
    if options.get("config"):
        path = tmp_path / "brush.xml"
        path.write_text(brush())
        options = {**options, "config": path}
    with pytest.raises(SvacError, match=words) as caught:
        do_import(
            settings.model_copy(update=change), write_video(tmp_path / "v.mp4"), create=title, **options
        )
    assert projects_of(client, title) == []
    if "is not below" in words:
        assert str(label_studio.files_root) in caught.value.message
        assert "LOCAL_FILES_DOCUMENT_ROOT" in caught.value.hint


def test_a_bad_video_among_good_ones_changes_nothing(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    with pytest.raises(SvacError, match=r"bad\.mp4"):
        do_import(settings, write_video(tmp_path / "v.mp4"), bad, create=title)
    assert projects_of(client, title) == []


def test_somebody_elses_project_of_that_title_is_left_alone(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path
) -> None:
    project = client.create_project(title, brush())
    with pytest.raises(SvacError) as caught:
        do_import(settings, write_video(tmp_path / "v.mp4"), create=title)
    assert caught.value.message == f"There is a project '{title}' already (number {project})."
    assert f"--project {project}" in caught.value.hint
    assert list(client.list_tasks(project)) == []


def test_a_project_that_cannot_show_masks_or_is_not_there(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path
) -> None:
    plain = '<View><Image name="i" value="$image"/><Choices name="c" toName="i"><Choice value="x"/></Choices></View>'
    project = client.create_project(title, plain)
    video = write_video(tmp_path / "v.mp4")
    with pytest.raises(SvacError, match="has no valueList"):
        do_import(settings, video, project=project)
    with pytest.raises(SvacError, match="could not read project 999999"):
        do_import(settings, video, project=999_999)


def test_another_version_that_is_shown_is_said(
    settings: Settings,
    client: LabelStudioClient,
    title: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    do_import(settings, write_video(tmp_path / "a.mp4"), create=title)
    (project,) = projects_of(client, title)
    (task,) = client.list_tasks(project)
    client.create_prediction(task["id"], {"result": [], "score": 0.0, "model_version": "old-1"})
    client.set_model_version(project, "old-1")
    capsys.readouterr()
    do_import(settings, write_video(tmp_path / "b.mp4", shade=30), project=project)
    assert "shows the predictions of old-1 first" in capsys.readouterr().err
    assert client.get_project(project)["model_version"] == "old-1"


def test_what_was_copied_can_be_read(
    settings: Settings, client: LabelStudioClient, title: str, tmp_path: Path
) -> None:
    do_import(settings, write_video(tmp_path / "v.mp4"), create=title, predict=False)
    (project,) = projects_of(client, title)
    folder = settings.label_studio_files_root / "svac" / str(project)  # type: ignore[operator]
    (copy,) = folder.rglob("*.mp4")
    assert copy.stat().st_mode & 0o044 == 0o044
    with VideoReader(copy) as video:
        assert (video.info.width, video.info.height, len(video)) == (WIDTH, HEIGHT, FRAMES)
    manifest = json.loads((copy.parent / "manifest.json").read_text())
    assert len(list(copy.parent.glob("*.jpg"))) == FRAMES
    assert manifest["quality"] == settings.frame_quality
